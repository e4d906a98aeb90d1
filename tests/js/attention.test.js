import assert from "node:assert/strict";
import test from "node:test";
import { deflateSync } from "node:zlib";
import { cellAt, decode, fit, headWeights, largest, number, pooled, ramp, shown, summary } from "../../llmlab/static/attention.js";

// two heads over two tokens: largest of each row as float32, then one byte a weight
const raw = Buffer.concat([Buffer.from(new Float32Array([1, 0.5, 1, 0.75]).buffer), Buffer.from([255, 0, 255, 255, 255, 0, 128, 255])]);

test("base64 and DataView decode to the same bytes", async () => {
  const packed = deflateSync(raw), padded = Buffer.concat([Buffer.from("xyz"), packed]);
  const view = new DataView(padded.buffer, padded.byteOffset + 3, packed.length);
  assert.deepEqual(Buffer.from(await decode(packed.toString("base64"))), raw);
  assert.deepEqual(Buffer.from(await decode(view)), raw);
});

test("a byte is the root of a weight in its row", () => {
  const bytes = new Uint8Array(raw);
  assert.deepEqual([...headWeights(bytes, 2, 0, 2, 2)], [1, 0, 0.5, 0.5]);
  const second = headWeights(bytes, 2, 1, 2, 2);
  assert.ok(Math.abs(second[2] - 0.75 * (128 / 255) ** 2) < 1e-6);
  assert.equal(second[3], 0.75);
});

test("a thumbnail keeps the largest weight of each tile", () => {
  const { rows, cols, out } = pooled(Float32Array.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]), 4, 4, 2);
  assert.deepEqual([rows, cols, ...out], [2, 2, 5, 7, 13, 15]);
  assert.deepEqual([...pooled(Float32Array.from([0.25, 0.5]), 1, 2, 48).out], [0.25, 0.5]);
});

test("the pixel that shows a cell finds that cell again", () => {
  for (const [width, nq, nk] of [[400, 6, 6], [300, 40, 40], [360, 4, 9], [400, 512, 512]]) {
    const box = fit(width, nq, nk, 5);
    assert.ok(box.left + box.width <= width + 1, `${nk} columns fit into ${width}`);
    for (const [q, k] of [[0, 0], [nq - 1, nk - 1], [nq >> 1, 0]])
      assert.deepEqual(cellAt(box.left + (k + 0.5) * box.cell, box.top + (q + 0.5) * box.cell, box, nq, nk), { q, k });
    assert.equal(cellAt(box.left - 1, box.top + 1, box, nq, nk), null);
    assert.equal(cellAt(box.left + 1, box.top + box.height + 1, box, nq, nk), null);
  }
});

test("labels are drawn only where they can be read", () => {
  assert.equal(fit(500, 10, 10, 5).named, true);
  assert.equal(fit(500, 300, 300, 5).named, false);
});

test("whitespace and nothing are visible", () => {
  assert.equal(shown(" a\n\t"), "·a↵⇥");
  assert.equal(shown(""), "∅");
  assert.equal(shown("<b>"), "<b>");
});

test("the text alternative says the largest weights of the state", () => {
  const row = Float32Array.from([0.1, 0.7, 0.2, 0]), tokens = ["a", " b", "c", "d"];
  assert.deepEqual(largest(row, 2).map(([i]) => i), [1, 2]);
  const text = summary({ layer: 2, head: 1, token: 3, back: false }, row, tokens, tokens);
  assert.equal(text, "Layer 2, head 1: “d” (3) looks most at “·b” (1) 0.70, “c” (2) 0.20, “a” (0) 0.10.");
  assert.match(summary({ layer: 0, head: 0, token: 0, back: true }, new Float32Array(4), tokens, tokens), /is looked at most by nothing/);
});

test("numbers tell zero from nearly zero", () => assert.deepEqual([0, 0.001, 0.005, 0.25, 1].map(number), ["0", "0.00", "0.01", "0.25", "1.00"]));

test("the colour map grows from stop to stop", () => {
  const map = ramp([[255, 255, 255], [100, 150, 200], [0, 0, 50]]);
  assert.equal(map.length, 256);
  assert.deepEqual([map[0], map[127], map[255]], [[255, 255, 255], [100, 150, 200], [0, 0, 50]]);
  for (let i = 1; i < 256; i++) assert.ok(map[i][0] <= map[i - 1][0], "darker with every step");
});
