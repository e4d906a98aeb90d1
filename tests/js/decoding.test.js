import assert from "node:assert/strict";
import test from "node:test";
import { decode, rows, summary, toK, toSlider } from "../../llmlab/static/decoding.js";

const open = { temperature: 1, k: 99, top_p: 1, min_p: 0 };
const p = [0.5, 0.3, 0.15, 0.05];
const close = (a, b) =>
  a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 1e-9, `${a} is not ${b}`));

test("nothing is cut by default", () => {
  const { left, out } = decode(p, open);
  close(left, p);
  assert.ok(out.every((x) => x === ""));
});

test("top-k keeps k", () => {
  const { left, out } = decode(p, { ...open, k: 2 });
  close(left, [0.625, 0.375, 0, 0]);
  assert.deepEqual(out, ["", "", "top-k", "top-k"]);
});

test("top-p keeps the fewest that hold the share, by hand", () => {
  assert.deepEqual(decode(p, { ...open, top_p: 0.7 }).out, ["", "", "top-p", "top-p"]);
  assert.deepEqual(decode(p, { ...open, top_p: 0.1 }).out, ["", "top-p", "top-p", "top-p"]);
});

test("min-p measures against the likeliest", () =>
  assert.deepEqual(decode(p, { ...open, min_p: 0.2 }).out, ["", "", "", "min-p"]));

test("half the temperature squares", () =>
  close(decode([0.75, 0.25], { ...open, temperature: 0.5 }).left, [0.9, 0.1]));

test("top-p counts in what top-k left", () =>
  assert.deepEqual(decode(p, { ...open, k: 2, top_p: 0.6 }).out, ["", "top-p", "top-k", "top-k"]));

test("a token of probability 0 does no harm", () =>
  close(decode([1, 0], { ...open, temperature: 2, min_p: 0.1 }).left, [1, 0]));

test("slider and k are inverse", () =>
  [1, 2, 40, 512].forEach((k) => assert.equal(toK(toSlider(k, 512), 512), k)));

test("in words", () => {
  const text = summary("the", ["a", " b", "c", "d"], decode(p, { ...open, k: 3, min_p: 0.4 }));
  assert.equal(
    text,
    "After “the”: 2 of 4 tokens stay, which held 80 %; cut: 1 by top-k, 1 by min-p. The likeliest, “a”, now has 63 %.",
  );
});

test("the first 14 tokens have a row each, all others share one", () => {
  const candidates = Array.from({ length: 20 }, (_, i) => [`t${i}`, 0.05]);
  const probabilities = candidates.map(([, p]) => p);
  const open = { temperature: 1, k: 16, top_p: 1, min_p: 0 };
  const all = rows(candidates, decode(probabilities, open));
  assert.equal(all.length, 15);
  assert.equal(all[14].name, "2 of 6 others stay");
  assert.equal(all[14].why, "");
  assert.ok(Math.abs(all[14].now - 2 / 16) < 1e-12 && Math.abs(all[14].was - 0.3) < 1e-12);
  const greedy = rows(candidates, decode(probabilities, { ...open, k: 1 }));
  assert.equal(greedy[1].why, "top-k");
  assert.equal(greedy[14].why, "all cut");
  assert.equal(rows(candidates.slice(0, 14), decode(probabilities.slice(0, 14), open)).length, 14);
});
