import assert from "node:assert/strict";
import test from "node:test";
import { standIn } from "../../llmlab/static/figure.js";

test("the stand-in model behaves as anywidget's", () => {
  const model = standIn({ layer: 0, head: 1 }), heard = [];
  const listen = () => heard.push(model.get("layer"));
  model.on("change:layer", listen);
  model.set("layer", 2);
  model.set("layer", 2);
  model.set("head", 0);
  model.save_changes();
  assert.deepEqual(heard, [2], "heard once: neither a set to the same value nor another trait tells");
  model.off("change:layer", listen);
  model.set("layer", 3);
  assert.deepEqual(heard, [2]);
});
