import assert from "node:assert/strict";
import test from "node:test";
import {
  cut,
  reshape,
  rows,
  summary,
  toSlider,
  toTemperature,
} from "../../llmlab/static/next_token.js";

const close = (a, b) =>
  a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 1e-9, `${a} is not ${b}`));
const pairs = (...p) => p.map((x, i) => [`t${i}`, x]);

test("temperature 1 changes nothing, and the rest is what is missing", () =>
  close(reshape(pairs(0.5, 0.2), 1), [0.5, 0.2, 0.3]));

test("half the temperature squares, by hand", () =>
  close(reshape(pairs(0.75, 0.25), 0.5), [0.9, 0.1, 0]));

test("a high temperature evens out, a low one keeps the likeliest", () => {
  close(reshape(pairs(0.6, 0.4), 1e9).slice(0, 2), [0.5, 0.5]);
  assert.ok(reshape(pairs(0.6, 0.4), 0.01)[0] > 0.999999);
});

test("a probability of zero stays zero", () => close(reshape(pairs(1, 0), 2), [1, 0, 0]));

test("slider and temperature are inverse", () =>
  [0.125, 0.5, 1, 2, 4].forEach((t) => assert.ok(Math.abs(toTemperature(toSlider(t)) - t) < 0.01)));

test("the text alternative names the likeliest tokens after reshaping", () => {
  const text = summary(
    "the cat",
    [
      ["a", 0.2],
      [" b", 0.7],
    ],
    [0.1, 0.9],
    0.5,
  );
  assert.equal(text, "After “the cat” at temperature 0.50: “·b” 90 %, “a” 10 %.");
});

test("top-k keeps the k likeliest and shares their sum", () => {
  close(cut([0.2, 0.5, 0.1, 0.2], 2, 1), [0.2 / 0.7, 0.5 / 0.7, 0, 0]);
  close(cut([0.2, 0.5, 0.1, 0.2], 0, 1), [0.2, 0.5, 0.1, 0.2]);
});

test("top-p keeps the fewest that reach p, at least one", () => {
  close(cut([0.5, 0.3, 0.2, 0], 0, 0.8), [0.625, 0.375, 0, 0]);
  close(cut([0.5, 0.3, 0.2, 0], 0, 0.05), [1, 0, 0, 0]);
  close(
    cut([0.3, 0.2, 0.5], 0, 0.9),
    [0.3, 0.2, 0.5],
    "where the shown ones do not reach p, the rest stays",
  );
});

test("a row a token, and one for all others where any are left", () => {
  const candidates = [
    ["a", 0.5],
    ["b", 0.3],
  ];
  const plain = reshape(candidates, 1);
  const all = rows(candidates, cut(plain, 1, 1), plain);
  assert.deepEqual(
    all.map(({ name, quiet, text }) => [name, quiet, text]),
    [
      ["a", false, "100 %"],
      ["b", false, "cut"],
      ["all other tokens", true, "cut"],
    ],
  );
  assert.ok(Math.abs(all[2].was - 0.2) < 1e-12);
  const full = [
    ["a", 0.5],
    ["b", 0.5],
  ];
  assert.equal(rows(full, reshape(full, 1), reshape(full, 1)).length, 2, "nothing is left over");
});
