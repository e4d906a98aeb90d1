import assert from "node:assert/strict";
import test from "node:test";
import { short, shown } from "../../llmlab/static/dom.js";

test("whitespace, nothing and control characters are visible", () => {
  assert.equal(shown(" a\n\t"), "·a↵⇥");
  assert.equal(shown(""), "∅");
  assert.equal(shown("<b>"), "<b>");
  assert.equal(shown("\u0000\u001b\u00a0\u200b"), "␀␛⍽⟨200B⟩");
});

test("what turns the text around it is written out", () => assert.equal(shown("a\u202eb\u2028"), "a⟨202E⟩b⟨2028⟩"));

test("right-to-left, Chinese and joined emoji stay as they are", () => {
  for (const token of ["שלום", "مرحبا", "你好", "👩‍👧", "❤️"]) assert.equal(shown(token), token);
  assert.equal(shown("\u200d"), "⟨200D⟩");
});

test("a combining mark alone gets something to stand on", () => assert.equal(shown("\u0301"), "◌\u0301"));

test("a long token is cut between characters, not inside one", () => {
  assert.equal(short("🐱".repeat(20)), `${"🐱".repeat(13)}…`);
  assert.equal(short("cat"), "cat");
});
