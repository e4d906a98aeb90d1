import assert from "node:assert/strict";
import test from "node:test";
import { against, blend, largestOf, number, summary } from "../../llmlab/static/neuron.js";

test("products, score and weight by hand", () => {
  const { products, scores, weights, seen } = against(
    [1, 2, 0, 1],
    [
      [1, 1, 5, 1],
      [0, 0, 0, 0],
    ],
    1,
    false,
  );
  assert.deepEqual(products[0], [1, 2, 0, 1]);
  assert.deepEqual(scores, [2, 0], "4 / √4");
  assert.ok(Math.abs(weights[0] - Math.exp(2) / (Math.exp(2) + 1)) < 1e-12);
  assert.deepEqual(seen, [true, true]);
});

test("later keys are hidden", () =>
  assert.deepEqual(against([1], [[1], [9]], 0, true).weights, [1, 0]));

test("the text names the strongest products", () => {
  const q = [1, -2];
  const k = [0.5, 3];
  const now = against(q, [k], 0, true);
  assert.equal(
    summary("", " a", "b", q, k, now, 0),
    "“·a” for “b”. Strongest number 1: −2.00 × 3.00 = −6.00; number 0: 1.00 × 0.50 = 0.50. " +
      "The score, the sum divided by √2, is −3.89; its weight 1.00.",
  );
});

test("minus is a minus sign", () =>
  assert.deepEqual([-0.001, -1.5, 2].map(number), ["0.00", "−1.50", "2.00"]));

test("a number is a colour between three, a square root apart", () => {
  const colours = [
    [0, 0, 0],
    [100, 100, 100],
    [200, 200, 200],
  ];
  assert.deepEqual(blend(0, 4, colours), [100, 100, 100]);
  assert.deepEqual(blend(1, 4, colours), [150, 150, 150]);
  assert.deepEqual(blend(-4, 4, colours), [0, 0, 0]);
});

test("the largest number by size is never zero", () => {
  assert.equal(
    largestOf([
      [1, -3],
      [2, 0],
    ]),
    3,
  );
  assert.ok(largestOf([[0, 0]]) > 0);
});
