import assert from "node:assert/strict";
import test from "node:test";
import { isDropped, line, nodePlace, summary, tree } from "../../llmlab/static/beams.js";

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

test("a step is a column, and what nothing goes on from was dropped", () => {
  assert.deepEqual(nodePlace({ step: 1, y: 0 }, 4), [0, 15]);
  assert.deepEqual(nodePlace({ step: 3, y: 2 }, 4), [50, 75]);
  const steps = [
    [
      [["a"], -1],
      [["b"], -2],
    ],
    [[["a", "c"], -1.5]],
  ];
  const found = tree(steps);
  const gone = found.nodes.slice(1).filter((node) => isDropped(node, found));
  assert.deepEqual(
    gone.map(({ token }) => token),
    ["b"],
  );
});
