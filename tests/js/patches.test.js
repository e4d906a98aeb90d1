import assert from "node:assert/strict";
import test from "node:test";
import { rounded, squares, strongest, summary, veil } from "../../llmlab/static/patches.js";

test("patches stand row by row", () =>
  assert.deepEqual(squares(4, 6, 3), [
    { x: 0, y: 0 },
    { x: 3, y: 0 },
    { x: 0, y: 3 },
    { x: 3, y: 3 },
  ]));

test("a wide picture has more columns than rows", () =>
  assert.deepEqual(squares(3, 9, 3)[2], { x: 6, y: 0 }));

test("the patch with the most weight is bare, one without weight is dark", () =>
  assert.deepEqual(veil([0.5, 0, 0.25]), [0, 0.82, 0.41]));

test("no weight at all is no division by nothing", () =>
  assert.deepEqual(veil([0, 0]), [0.82, 0.82]));

test("the strongest patch is named by row and column, from 1", () => {
  assert.equal(strongest([0.1, 0.7, 0.2]), 1);
  assert.equal(
    summary("circle", [0.1, 0.1, 0.2, 0.6], 2),
    "Before it wrote “circle”, the model looked most at the patch in row 2, column 2: 60 % of its attention.",
  );
});

test("percentages are whole", () => assert.equal(rounded(0.126), "13 %"));
