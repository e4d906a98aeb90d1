import assert from "node:assert/strict";
import test from "node:test";
import { note, parse, summary } from "../../book/_static/answers.js";

test("the first choice counts", () => {
  const once = note({}, "attention.fits", false);
  assert.deepEqual(note(once, "attention.fits", true), { "attention.fits": false });
});

test("a sentence counts what was answered and what was right at once", () => {
  const names = ["a.x", "a.y", "a.z"];
  assert.equal(summary(names, {}), "3 questions, none answered yet");
  assert.equal(summary(names, { "a.x": true, "a.y": false }), "1 right at once, 2 of 3 answered");
});

test("a damaged record counts as empty", () => {
  for (const text of [null, "", "[1]", "3", "{"]) assert.deepEqual(parse(text), {});
});
