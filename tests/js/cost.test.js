import assert from "node:assert/strict";
import test from "node:test";
import {
  between,
  brief,
  compute,
  contour,
  gb,
  loss,
  optimum,
  place,
  summary,
} from "../../llmlab/static/cost.js";

const law = { E: 1.8172, A: 482.01, B: 2085.43, alpha: 0.3478, beta: 0.3658 };
const data = {
  models: [
    {
      name: "small",
      n: 1e9,
      context: 4096,
      flops: 2e9,
      square: 1e5,
      cache: 1e5,
      kept: 1e6,
      vocab: 50000,
    },
  ],
  gpus: [{ name: "card", memory: [80, 80], peak: [1000, 1000], power: [500, 500], price: [1, 3] }],
  overhead: [1, 2],
  grids: { here: 100, there: 1000 },
  law,
  runs: {},
};
const state = { model: 0, gpu: 0, grid: 1, tokens: 10, context: 10, utilisation: 0.5 };

test("one run by hand", () => {
  const r = compute(data, state);
  assert.equal(r.flops, 3 * 1e10 * (2e9 + 1024e5));
  assert.ok(Math.abs(r.hours - r.flops / 5e14 / 3600) < 1e-9);
  assert.deepEqual(r.usd, [r.hours, 3 * r.hours]);
  assert.deepEqual(r.kwh, [r.hours / 2, r.hours]);
  assert.ok(Math.abs(r.kg[1] - r.hours) < 1e-9);
  assert.equal(r.training.weights + r.training.gradients + r.training.optimizer, 16e9);
  assert.equal(r.running["key–value cache"], 2e5 * 1024);
  assert.deepEqual(r.cards, [1, 1]);
  assert.equal(
    compute({ ...data, gpus: [{ ...data.gpus[0], memory: [1, 1] }] }, state).cards[1],
    3,
  );
});

test("a sequence ends where the model's context ends", () =>
  assert.equal(compute(data, { ...state, context: 17 }).t, 4096));

test("the optimum has the smallest loss for its FLOPs", () => {
  const [n, d] = optimum(law, 5.76e23);
  assert.ok(Math.abs(d / n - 18.39) < 0.01 && Math.abs(6 * n * d - 5.76e23) < 1e14);
  for (const k of [0.5, 0.9, 1.1, 2]) assert.ok(loss(law, n * k, d / k) > loss(law, n, d));
});

test("readings are short", () => {
  assert.deepEqual([0.0123, 5, 42.4, 999, 1000, 124439808, 999999, 3.14e23].map(brief), [
    "0.012",
    "5",
    "42",
    "999",
    "1 thousand",
    "124 million",
    "1 million",
    "3.1 · 10^23",
  ]);
  assert.equal(between([1, 1]), "1");
  assert.equal(between([1, 2000]), "1 to 2 thousand");
});

test("the text alternative says what it costs", () => {
  assert.match(
    summary(compute(data, state)),
    /^small on 10 billion tokens \(10 a parameter\): .* FLOPs, 35 hours of one card, 35 to 105 USD, 18 to 35 kWh\./,
  );
});

test("a contour has one loss, and ends where no tokens suffice", () => {
  assert.ok(Math.abs(loss(law, 1e9, contour(law, 1e9, 2.5)) - 2.5) < 1e-9);
  assert.ok(Number.isNaN(contour(law, 1e7, 2)));
});

test("names do not lie on each other", () => {
  assert.deepEqual(
    place(
      [
        ["one", 100, 100],
        ["two", 108, 100],
        ["three", 600, 50],
      ],
      620,
    ).map((x) => x?.anchor),
    ["start", "end", "end"],
  );
  assert.equal(
    place(
      Array.from({ length: 9 }, () => ["same", 100, 100]),
      400,
    ).filter(Boolean).length,
    4,
  );
});

test("bytes", () => assert.deepEqual([3e8, 8e10, 2.83e12].map(gb), ["0.3 GB", "80 GB", "2.8 TB"]));
