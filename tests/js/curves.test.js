import assert from "node:assert/strict";
import test from "node:test";
import {
  format,
  path,
  pointAt,
  range,
  scale,
  summary,
  tick,
  ticks,
} from "../../llmlab/static/curves.js";

test("ticks are round and inside", () => {
  assert.deepEqual(ticks(0, 10, false, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(ticks(0.92, 4.31, false, 4), [1, 2, 3, 4]);
  assert.deepEqual(ticks(1, 1000, true), [1, 10, 100, 1000]);
  assert.ok(ticks(2, 2, false).every(Number.isFinite));
  assert.ok(ticks(1.1, 1.3, true).length > 1, "a narrow logarithmic axis still has ticks");
});

test("a scale maps ends to ends, logarithms too", () => {
  const linear = scale(0, 10, 100, 200, false);
  const log = scale(1, 100, 0, 2, true);
  assert.deepEqual([linear(0), linear(5), linear(10)], [100, 150, 200]);
  assert.ok(Math.abs(log(10) - 1) < 1e-12);
  assert.equal(scale(3, 3, 0, 10, false)(3), 5, "a single value stands in the middle");
});

test("a missing value leaves a gap", () => {
  const same = (x) => x;
  assert.equal(
    path(
      [
        [0, 1],
        [1, 2],
        [2, null],
        [3, 4],
      ],
      same,
      same,
    ),
    "M0.0 1.0L1.0 2.0M3.0 4.0",
  );
});

test("the reading is that of the last point at or before x", () => {
  const points = [
    [1, "a"],
    [10, "b"],
    [100, "c"],
  ];
  assert.deepEqual(
    [0.5, 1, 50, 1000].map((x) => pointAt(points, x)[1]),
    ["a", "a", "b", "c"],
  );
});

test("readings have three digits, ticks no needless zeros", () => {
  assert.deepEqual([2.1, 0.8829, 512, 0, 1e-5, null].map(format), [
    "2.10",
    "0.883",
    "512",
    "0",
    "1.0e-5",
    "–",
  ]);
  assert.deepEqual([0.1 + 0.2, 5, 2.5].map(tick), ["0.3", "5", "2.5"]);
});

test("the text alternative reads every series", () =>
  assert.equal(
    summary(
      {
        train: [
          [1, 4],
          [2, 3],
        ],
        valid: [[1, 5]],
      },
      2,
      "step",
      "loss",
    ),
    "loss at step 2: train 3, valid 5.",
  ));

test("range pads on both sides", () => assert.deepEqual(range([1, 3], 0.5), [0, 4]));
