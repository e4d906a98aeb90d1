import assert from "node:assert/strict";
import test from "node:test";
import { number, shade, shares, summary } from "../../llmlab/static/grid.js";

test("the largest number by size has the full colour", () => {
  assert.deepEqual(
    shares([
      [1, -4],
      [2, 0],
    ]),
    [
      [0.25, -1],
      [0.5, 0],
    ],
  );
  assert.deepEqual(shares([[0, 0]]), [[0, 0]]);
});

test("numbers are short, and zero has no sign", () =>
  assert.deepEqual([0.1234, 12.6, -0.5, -0.001, 0].map(number), ["0.12", "13", "−0.5", "0", "0"]));

test("below zero the colour is another one", () => {
  assert.match(shade(1), /--chip\) 70%/);
  assert.match(shade(-0.5), /--c1\) 35%/);
});

test("a cell says row, token, place, number and what stands behind it", () => {
  const data = {
    rows: ["block 0", "block 1"],
    columns: ["a", " b"],
    values: [
      [1, 2],
      [3, 0.456],
    ],
    tips: [
      ["", ""],
      ["", "sat 46 %"],
    ],
  };
  assert.equal(summary(data, 1, 1), "block 1, “·b” (1): 0.46. sat 46 %");
  assert.equal(summary({ ...data, tips: null }, 0, 0), "block 0, “a” (0): 1");
});
