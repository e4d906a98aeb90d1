import assert from "node:assert/strict";
import test from "node:test";
import { illegal, ranked, shades, signed, summary } from "../../llmlab/static/spans.js";

const inside = [false, true, true, true];
const start = [5, 0, 2, -1];
const end = [5, 1, 0, 3];
const data = { tokens: ["[CLS]", " red", " lamp", "."], start, end, inside, longest: 2, none: 1 };

test("a span is legal inside the passage, forwards and short enough", () => {
  assert.equal(illegal(1, 2, inside, 2), "");
  assert.equal(illegal(2, 1, inside, 2), "it ends before it starts");
  assert.equal(illegal(1, 3, inside, 2), "it is longer than 2 tokens");
  assert.equal(illegal(0, 1, inside, 2), "an edge lies outside the passage");
});

test("every legal span once, the best first", () => {
  const found = ranked(start, end, inside, 2);
  assert.deepEqual(
    found.map(({ i, j, score }) => [i, j, score]),
    [
      [2, 3, 5],
      [2, 2, 2],
      [3, 3, 2],
      [1, 1, 1],
      [1, 2, 0],
    ],
  );
});

test("of equal spans the first stands first", () =>
  assert.deepEqual(
    ranked([0, 0], [0, 0], [true, true], 2).map(({ i, j }) => [i, j]),
    [
      [0, 0],
      [0, 1],
      [1, 1],
    ],
  ));

test("the best has shade 1, e⁻² less has a third of it", () => {
  const [top, less] = shades([3, 1]);
  assert.equal(top, 1);
  assert.ok(Math.abs(less - Math.exp(-1)) < 1e-12);
});

test("a minus is a minus", () => assert.equal(signed(-1.25), "−1.3"));

test("the words name sum, rank, no answer and who wins", () => {
  const spans = ranked(start, end, inside, 2);
  assert.equal(
    summary(data, spans, 2, 3),
    "“lamp.”: start 2.0 + end 3.0 = 5.0, rank 1 of 5 legal spans. No answer scores 1.0. " +
      "It beats no answer, so it is the answer.",
  );
  assert.match(
    summary({ ...data, none: 9 }, spans, 2, 3),
    /No answer beats it, so the answer is: none\.$/,
  );
  assert.match(
    summary(data, spans, 1, 1),
    /rank 4 of 5 legal spans.* The best is “lamp\.” with 5\.0\.$/,
  );
  assert.match(
    summary(data, spans, 3, 1),
    /^From “\.” to “·red”: start −1\.0 \+ end 1\.0 = 0\.0, but this is no legal span: it ends before it starts\.$/,
  );
});
