import assert from "node:assert/strict";
import test from "node:test";
import { splitAtPhrase, measures, parts, summary } from "../../llmlab/static/phrases.js";

const source = ["", "One", " ", "day", " ", "Mia", " ", "saw", "."];
const row = {
  name: "model",
  pieces: ["", "Mia", " ", "saw", ", ", "twice", ", ", "one", "!"],
  fragments: [
    [0, 2, 2],
    [3, 0, 1],
  ],
};

test("a summary falls into phrases, words from nowhere, and what stands between", () =>
  assert.deepEqual(
    parts(row.pieces, row.fragments).map(({ text, fragment, fresh }) => [text, fragment, fresh]),
    [
      ["Mia saw", 0, false],
      [", ", null, false],
      ["twice", null, true],
      [", ", null, false],
      ["one", 1, false],
      ["!", null, false],
    ],
  ));

test("no text is lost or doubled", () => {
  assert.equal(
    parts(row.pieces, row.fragments)
      .map((part) => part.text)
      .join(""),
    row.pieces.join(""),
  );
  assert.equal(
    parts(["¿", "a", " ", "b", "?"], [])
      .map((part) => part.text)
      .join(""),
    "¿a b?",
  );
  assert.deepEqual(parts([""], []), []);
});

test("the source is cut around the phrase", () => {
  assert.deepEqual(splitAtPhrase(source, [0, 2, 2]), ["One day ", "Mia saw", "."]);
  assert.deepEqual(splitAtPhrase(source, [3, 0, 1]), ["", "One", " day Mia saw."]);
  assert.deepEqual(splitAtPhrase(source, undefined), ["One day Mia saw.", "", ""]);
});

test("coverage and density of Grusky et al. 2018", () => {
  assert.deepEqual(measures(row), { words: 4, coverage: 3 / 4, density: 5 / 4 });
  assert.deepEqual(measures({ pieces: [""], fragments: [] }), {
    words: 0,
    coverage: 0,
    density: 0,
  });
});

test("the text alternative names the phrase and its place", () => {
  assert.equal(
    summary(source, row, 0),
    "model: 75 % of 4 words are copied, density 1.3. “Mia saw” stands in the source from word 3 on.",
  );
  assert.match(
    summary(source, { name: "x", pieces: ["", "zoo", ""], fragments: [] }, 0),
    /No phrase stands in the source/,
  );
});
