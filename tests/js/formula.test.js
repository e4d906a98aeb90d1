import assert from "node:assert/strict";
import test from "node:test";
import { compute, number, softmax, worked } from "../../llmlab/static/formula.js";

const close = (a, b) =>
  a
    .flat(3)
    .forEach((x, i) => assert.ok(Math.abs(x - b.flat(3)[i]) < 1e-6, `${x} is not ${b.flat(3)[i]}`));

test("one query, two keys, by hand", () => {
  // scores 0 and ln 3, so the weights are 1/4 and 3/4
  const steps = compute(
    [[1], [1]],
    [[0], [Math.log(3)]],
    [
      [4, 0],
      [0, 4],
    ],
    { scaled: false, causal: false },
  );
  close(steps.weights, [
    [0.25, 0.75],
    [0.25, 0.75],
  ]);
  close(steps.output, [
    [1, 3],
    [1, 3],
  ]);
});

test("the numbers of the course's four tokens, as NumPy computes them", () => {
  const q = [
    [1, 0, 1],
    [0, 2, 0],
    [1, 1, 0],
    [0, 1, 1],
  ];
  const k = [
    [1, 1, 0],
    [0, 1, 1],
    [2, 0, 1],
    [1, 0, 0],
  ];
  const v = [
    [1, 0],
    [0, 1],
    [2, 2],
    [0, 3],
  ];
  const { scores, divided, weights, output } = compute(q, k, v, { scaled: true, causal: true });
  assert.deepEqual(scores, [
    [1, 1, 3, 1],
    [2, 2, 0, 0],
    [2, 1, 2, 1],
    [1, 2, 1, 0],
  ]);
  close(divided[0], [0.57735027, 0.57735027, 1.73205081, 0.57735027]);
  close(weights, [
    [1, 0, 0, 0],
    [0.5, 0.5, 0, 0],
    [0.39041395, 0.21917211, 0.39041395, 0],
    [0.2302717, 0.41018578, 0.2302717, 0.12927083],
  ]);
  close(output, [
    [1, 0],
    [0.5, 0.5],
    [1.17124184, 1],
    [0.69081509, 1.25854165],
  ]);
});

test("the mask hides later keys, and rows still sum to one", () => {
  const x = [
    [1, 2],
    [3, 4],
    [5, 6],
  ];
  const { masked, weights } = compute(x, x, x, { scaled: true, causal: true });
  assert.equal(masked[0][1], null);
  assert.equal(masked[1][2], null);
  weights.forEach((row, i) => {
    assert.ok(Math.abs(row.reduce((a, b) => a + b) - 1) < 1e-12);
    row.forEach((w, j) => assert.equal(j > i, w === 0));
  });
});

test("large scores do not overflow", () => assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5]));

test("a score is written out with its products", () => {
  const q = [[1, -2]];
  const k = [[3, 0.5]];
  const v = [[7]];
  const state = { query: 0, key: 0, scaled: true, causal: false };
  const [score, output] = worked(q, k, v, compute(q, k, v, state), state, ["cat"]);
  assert.match(
    score,
    /score of “cat” for “cat” = 1·3 \+ \(−2\)·0.5 = 2.00, divided by √2 = 1.41: 1.41; softmax .* the weight 1.00/,
  );
  assert.equal(output, "output of “cat” = 1.00·[7] = [7.00].");
});

test("minus is a minus sign, minus nothing is nothing", () =>
  assert.deepEqual([null, -0.001, -1.5, 2].map(number), ["−∞", "0.00", "−1.50", "2.00"]));
