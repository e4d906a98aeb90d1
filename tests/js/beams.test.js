import assert from "node:assert/strict";
import test from "node:test";
import { line, summary, tree } from "../../llmlab/static/beams.js";

const steps = [
  [
    [["a"], -0.5],
    [["b"], -0.9],
  ],
  [
    [["b", "c"], -1],
    [["b", "d"], -1.6],
  ],
];
const found = tree(steps);
const id = (...tokens) => JSON.stringify(tokens);

test("every beginning is one node below its parent", () => {
  assert.deepEqual(
    found.nodes.map(({ id, parent }) => [id, parent]),
    [
      ["", null],
      [id("a"), ""],
      [id("b"), ""],
      [id("b", "c"), id("b")],
      [id("b", "d"), id("b")],
    ],
  );
  assert.equal(found.leaves, 3);
});

test("leaves stand on rows of their own, parents between their children", () =>
  assert.deepEqual(
    found.nodes.slice(1).map(({ y }) => y),
    [0, 1.5, 1, 2],
  ));

test("the way to a node begins at the root", () =>
  assert.deepEqual(
    line(found.nodes, id("b", "c")).map(({ token }) => token),
    ["", "b", "c"],
  ));

test("in words", () => {
  assert.match(
    summary("x", found, id("b", "c")),
    /“x” \+ “b c”: log-probability -1.00, -0.50 a token; goes on/,
  );
  assert.match(summary("x", found, id("a")), /was dropped here/);
  assert.match(summary("x", found, id("b")), /became part of longer ones/);
});
