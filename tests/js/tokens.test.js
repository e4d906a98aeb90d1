import assert from "node:assert/strict";
import test from "node:test";
import { colours, fresh, summary } from "../../llmlab/static/tokens.js";

test("a token keeps its colour over all steps", () => {
  const seen = colours(
    [
      ["a", "b"],
      ["ab", "a"],
    ],
    2,
  );
  assert.deepEqual(
    [...seen],
    [
      ["a", 0],
      ["b", 1],
      ["ab", 0],
    ],
  );
});

test("fresh tokens are those that the step before did not have", () => {
  assert.deepEqual([...fresh(["a", "b"], ["ab", "a"])], ["ab"]);
  assert.equal(fresh(undefined, ["a"]).size, 0);
});

test("the text alternative counts", () =>
  assert.equal(
    summary("a+b", ["ab", "ab", "c"], new Set(["ab"])),
    "a+b: 3 tokens, 2 different, 1.67 characters a token. New: “ab” × 2.",
  ));

test("an emoji is one character", () =>
  assert.match(summary("x", ["🐱"], new Set()), /1.00 characters/));
