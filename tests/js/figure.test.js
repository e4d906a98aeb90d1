import assert from "node:assert/strict";
import test from "node:test";
import { readState, standIn, stateText } from "../../llmlab/static/figure.js";

test("the stand-in model behaves as anywidget's", () => {
  const model = standIn({ layer: 0, head: 1 });
  const heard = [];
  const listen = () => heard.push(model.get("layer"));
  model.on("change:layer", listen);
  model.set("layer", 2);
  model.set("layer", 2);
  model.set("head", 0);
  model.save_changes();
  assert.deepEqual(
    heard,
    [2],
    "heard once: neither a set to the same value nor another trait tells",
  );
  model.off("change:layer", listen);
  model.set("layer", 3);
  assert.deepEqual(heard, [2]);
});

test("a link holds what differs from the start, and reads back with its types", () => {
  const start = { data: {}, alt: "x", layer: 0, at: 0.5, back: false, window: "" };
  const now = { ...start, layer: 3, back: true, window: "0-4-0-4" };
  assert.equal(stateText(start, now), "layer=3&back=true&window=0-4-0-4");
  assert.deepEqual(readState(start, stateText(start, now)), {
    layer: 3,
    back: true,
    window: "0-4-0-4",
  });
  assert.deepEqual(readState(start, "layer=x&alt=evil&data=1&other=2"), {});
});
