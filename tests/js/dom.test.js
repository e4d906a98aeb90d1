import assert from "node:assert/strict";
import test from "node:test";
import { chooser, clampIndex, percent, press, short, shown } from "../../llmlab/static/dom.js";

test("whitespace, nothing and control characters are visible", () => {
  assert.equal(shown(" a\n\t"), "·a↵⇥");
  assert.equal(shown(""), "∅");
  assert.equal(shown("<b>"), "<b>");
  assert.equal(shown("\u0000\u001b\u00a0\u200b"), "␀␛⍽⟨200B⟩");
});

test("what turns the text around it is written out", () =>
  assert.equal(shown("a\u202eb\u2028"), "a⟨202E⟩b⟨2028⟩"));

test("right-to-left, Chinese and joined emoji stay as they are", () => {
  for (const token of ["שלום", "مرحبا", "你好", "👩‍👧", "❤️"]) assert.equal(shown(token), token);
  assert.equal(shown("\u200d"), "⟨200D⟩");
});

test("a combining mark alone gets something to stand on", () =>
  assert.equal(shown("\u0301"), "◌\u0301"));

test("a long token is cut between characters, not inside one", () => {
  assert.equal(short("🐱".repeat(20)), `${"🐱".repeat(13)}…`);
  assert.equal(short("cat"), "cat");
});

test("a place stays inside its list", () =>
  assert.deepEqual(
    [-1, 0, 2, 3].map((x) => clampIndex(x, 3)),
    [0, 0, 2, 2],
  ));

test("a choice is set, trait by trait, and saved once", () => {
  const done = [];
  const model = { set: (...pair) => done.push(pair), save_changes: () => done.push("saved") };
  chooser(model)({ row: 1, column: 2 });
  assert.deepEqual(done, [["row", 1], ["column", 2], "saved"]);
});

test("a pressed button is the tab stop, unless another is named", () => {
  const button = {
    setAttribute(name, value) {
      this[name] = value;
    },
  };
  press(button, true);
  assert.deepEqual([button["aria-pressed"], button.tabIndex], [true, 0]);
  press(button, false, true);
  assert.deepEqual([button["aria-pressed"], button.tabIndex], [false, 0]);
  press(button, false);
  assert.equal(button.tabIndex, -1);
});

test("percentages keep small numbers apart from nothing", () =>
  assert.deepEqual([0.62, 0.0999, 0.05, 0.0001, 0].map(percent), [
    "62 %",
    "10 %",
    "5.0 %",
    "< 0.1 %",
    "0 %",
  ]));
