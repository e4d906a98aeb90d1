import assert from "node:assert/strict";
import test from "node:test";
import { bars, describeVisible, summary, visibleFrom } from "../../llmlab/static/mask.js";

test("what is visible travels as zeros and ones", () =>
  assert.deepEqual(visibleFrom("0110"), [false, true, true, false]));

test("the true token is marked among the candidates, and the rest is what is missing", () => {
  const [cat, dog, rest] = bars(
    [
      [" cat", 0.5],
      [" dog", 0.25],
    ],
    " dog",
    0.25,
  );
  assert.deepEqual([cat.right, dog.right, rest.token, rest.p], [false, true, null, 0.25]);
});

test("a true token beyond the candidates is added with its own probability", () => {
  const found = bars([[" cat", 0.5]], " emu", 0.125);
  assert.deepEqual(found[1], { token: " emu", p: 0.125, right: true, far: true });
  assert.equal(found[2].p, 0.375);
});

test("without its probability the true token is not invented, and a full list leaves no rest", () =>
  assert.deepEqual(bars([["a", 1]], "b", null), [{ token: "a", p: 1, right: false }]));

test("what a position sees, in words", () => {
  assert.equal(describeVisible("111", 1), "every other token, and itself");
  assert.equal(describeVisible("101", 1), "every other token");
  assert.equal(describeVisible("110", 1), "the 1 token on its left, and itself");
  assert.equal(describeVisible("100", 0), "no other token, and itself");
  assert.equal(describeVisible("0101", 1), "1 token of the other 3, and itself");
  assert.equal(describeVisible("0110", 2), "1 token of the other 3, and itself");
});

test("the text alternative names position, visible tokens and best candidate", () => {
  const models = [
    { name: "BERT", visible: ["01", "10"], predictions: [null, [[[" b", 0.62]], 0.62]] },
    { name: "GPT", visible: ["10", "11"], predictions: [] },
  ];
  assert.equal(
    summary(["a", " b"], 1, models),
    "Position 1, “·b”: BERT sees every other token, and says “·b” with 62 %; GPT sees every other token, and itself.",
  );
});
