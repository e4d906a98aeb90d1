import assert from "node:assert/strict";
import test from "node:test";
import { deflateSync } from "node:zlib";
import { decode, differenceOf, line, store, windowOf } from "../../llmlab/static/attention_data.js";
import {
  cellAfterKey,
  cellAt,
  cellOfToken,
  coarse,
  crop,
  draggedWindow,
  fit,
  headColumns,
  headSide,
  isInWindow,
  keyAt,
  lines,
  queryAt,
  ramp,
  rampIndex,
  readWindow,
  rowOf,
  scaleEnd,
  sentenceWindow,
  stripRange,
  subtract,
  tokenAtLine,
  unpack,
  windowText,
  zoom,
} from "../../llmlab/static/attention_layout.js";
import {
  blockName,
  cellText,
  found,
  headName,
  hintText,
  hitsText,
  largest,
  mapTitle,
  number,
  scaleText,
  signed,
  summary,
} from "../../llmlab/static/attention_words.js";

const map = (w, rows, cols, window = [0, rows, 0, cols]) => ({
  w: Float32Array.from(w),
  rows,
  cols,
  window,
});
// two heads over two tokens: largest of each row as float32, then one byte a weight
const raw = Buffer.concat([
  Buffer.from(new Float32Array([1, 0.5, 1, 0.75]).buffer),
  Buffer.from([255, 0, 255, 255, 255, 0, 128, 255]),
]);

test("base64 and DataView decode to the same bytes", async () => {
  const packed = deflateSync(raw);
  const padded = Buffer.concat([Buffer.from("xyz"), packed]);
  const view = new DataView(padded.buffer, padded.byteOffset + 3, packed.length);
  assert.deepEqual(Buffer.from(await decode(packed.toString("base64"))), raw);
  assert.deepEqual(Buffer.from(await decode(view)), raw);
});

test("a byte is the root of a weight in its row", () => {
  const bytes = new Uint8Array(raw);
  assert.deepEqual([...unpack(bytes, 2, 2, 2, 0)], [1, 0, 0.5, 0.5]);
  const second = unpack(bytes, 2, 2, 2, 1);
  assert.ok(Math.abs(second[2] - 0.75 * (128 / 255) ** 2) < 1e-6);
  assert.equal(second[3], 0.75);
});

test("the pixel that shows a cell finds that cell again", () => {
  for (const [width, nq, nk] of [
    [400, 6, 6],
    [300, 40, 40],
    [360, 4, 9],
    [400, 512, 512],
  ]) {
    const box = fit(width, nq, nk, 5);
    assert.ok(box.left + box.width <= width + 1, `${nk} columns fit into ${width}`);
    for (const [q, k] of [
      [0, 0],
      [nq - 1, nk - 1],
      [nq >> 1, 0],
    ]) {
      assert.deepEqual(
        cellAt(box.left + (k + 0.5) * box.cell, box.top + (q + 0.5) * box.cell, box, nq, nk),
        { q, k },
      );
    }
    assert.equal(cellAt(box.left - 1, box.top + 1, box, nq, nk), null);
    assert.equal(cellAt(box.left + 1, box.top + box.height + 1, box, nq, nk), null);
  }
});

test("labels are drawn only where they can be read", () => {
  assert.equal(fit(500, 10, 10, 5).named, true);
  assert.equal(fit(500, 300, 300, 5).named, false);
});

test("a coarse map sums keys and averages queries, so its rows still sum to one", () => {
  const { w, rows, cols } = coarse(
    map([0.5, 0.5, 0, 0, 0, 0, 0, 1, 0.25, 0.25, 0.25, 0.25, 1, 0, 0, 0], 4, 4),
    2,
    2,
  );
  assert.deepEqual([rows, cols, ...w], [2, 2, 0.5, 0.5, 0.75, 0.25]);
  const uneven = coarse(map(Array(15).fill(1 / 5), 3, 5), 2, 2).w;
  assert.ok(
    Math.abs(uneven[0] + uneven[1] - 1) < 1e-6 && Math.abs(uneven[2] + uneven[3] - 1) < 1e-6,
  );
});

test("a window shows just its cells, and of a pooled map whole blocks", () => {
  const exact = map(
    Array.from({ length: 16 }, (_, i) => i),
    4,
    4,
  );
  assert.deepEqual([...crop(exact, [1, 3, 2, 4]).w], [6, 7, 10, 11]);
  const pooled = crop(map([1, 2, 3, 4], 2, 2, [0, 8, 0, 8]), [5, 7, 1, 3]);
  assert.deepEqual([...pooled.w, ...pooled.window], [3, 4, 8, 0, 4]);
});

test("zooming in keeps the token in view, zooming out ends at the whole", () => {
  const near = zoom([0, 100, 0, 100], 90, 100, 100, 0.5);
  assert.deepEqual(near, [50, 100, 50, 100]);
  assert.equal(zoom(near, 90, 100, 100, 2), null);
  assert.deepEqual(zoom([0, 8, 0, 8], 3, 100, 100, 0.5), [0, 8, 0, 8], "8 tokens are the least");
});

test("a window survives as text, and nonsense means the whole", () => {
  assert.deepEqual(readWindow(windowText([1, 5, 2, 6]), 9, 9), [1, 5, 2, 6]);
  for (const text of ["", "5-1-0-2", "a-b", "0-10-0-9"]) {
    assert.deepEqual(readWindow(text, 9, 9), [0, 9, 0, 9]);
  }
});

test("a row and a column of a map, exact or pooled", () => {
  const m = map([1, 2, 3, 4, 5, 6], 2, 3);
  assert.deepEqual([...rowOf(m, 1, false).row], [4, 5, 6]);
  assert.deepEqual([...rowOf(m, 2, true).row], [3, 6]);
  const far = rowOf(map([1, 2, 3, 4], 2, 2, [0, 100, 0, 60]), 70, false);
  assert.deepEqual([...far.row, far.start, far.step], [3, 4, 0, 30]);
});

test("lines: the strongest lie on top, at most n, nothing that cannot be seen", () => {
  assert.deepEqual(
    lines(map([0.5, 0.001, 0.25, 0.75], 2, 2)).map(([q, k]) => [q, k]),
    [
      [1, 0],
      [0, 0],
      [1, 1],
    ],
  );
  assert.equal(
    lines(
      map(
        Array.from({ length: 100 }, (_, i) => i / 100),
        10,
        10,
      ),
      5,
    ).length,
    5,
  );
});

test("the text alternative says the largest weights of the state", () => {
  const row = Float32Array.from([0.1, 0.7, 0.2, 0]);
  const to = (i) => `“${"abcd"[i]}” (${i})`;
  assert.deepEqual(
    largest(row, 2).map(([i]) => i),
    [1, 2],
  );
  const text = summary({ name: headName(2, 1), back: false }, "“d” (3)", row, to);
  assert.equal(
    text,
    "Layer 2, head 1: “d” (3) looks most at “b” (1) 0.70, “c” (2) 0.20, “a” (0) 0.10.",
  );
  assert.match(
    summary({ name: headName(0, -1), back: true }, "“a” (0)", new Float32Array(4), to),
    /^Layer 0, mean of its heads: “a” \(0\) is looked at most by nothing/,
  );
});

test("a comparison says what one head gives more and less", () => {
  const text = summary(
    { name: headName(0, 1), other: headName(1, 0), back: false },
    "“d” (3)",
    Float32Array.from([0.25, -0.5, 0]),
    (i) => `${i}`,
  );
  assert.equal(
    text,
    "Layer 0, head 1 minus layer 1, head 0: “d” (3) more to 0 +0.25; less to 1 −0.50.",
  );
  assert.match(
    summary({ name: "a", other: "b", back: false }, "x", new Float32Array(2), String),
    /looks the same in both/,
  );
});

test("a search ignores case and spaces around", () =>
  assert.deepEqual(found([" The", "cat", " other"], " THE "), [0, 2]));

test("numbers tell zero from nearly zero, and carry their sign", () => {
  assert.deepEqual([0, 0.001, 0.005, 0.25, 1].map(number), ["0", "0.00", "0.01", "0.25", "1.00"]);
  assert.deepEqual([0.25, -0.5, 0].map(signed), ["+0.25", "−0.50", "0"]);
});

test("the colours of a large map end below its outliers", () => {
  assert.equal(scaleEnd([0.5, -0.75]), 0.75);
  const w = new Float32Array(10000).fill(0.1);
  w[5] = 1;
  assert.ok(Math.abs(scaleEnd(w) - 0.1) < 1e-6);
  assert.equal(
    scaleEnd(Float32Array.from({ length: 10000 }, (_, i) => (i ? 0 : 1))),
    1,
    "never nothing",
  );
});

const part = (more) => ({
  entries: [
    [0, 0],
    [0, 1],
  ],
  rows: 1,
  cols: 1,
  size: [2, 2],
  queries: ["a", "b"],
  keys: ["a", "b"],
  maps: {},
  thumbs: deflateSync(
    Buffer.concat([Buffer.from(new Float32Array([1, 1]).buffer), Buffer.from([255, 255])]),
  ).toString("base64"),
  ...more,
});
const whole = deflateSync(
  Buffer.concat([Buffer.from(new Float32Array([1, 0.5]).buffer), Buffer.from([255, 0, 255, 255])]),
);

test("what the page carries is decoded when it is opened", async () => {
  const kept = await store(part({ maps: { 1: whole.toString("base64") } }), 0, () =>
    Promise.reject(new Error("no Python")),
  );
  assert.deepEqual([...(await kept.map(0, 1)).w], [1, 0, 0.5, 0.5]);
  const pooled = await kept.map(0, 0);
  assert.deepEqual(
    [pooled.exact, pooled.rows],
    [false, 1],
    "what it does not carry stays a small map",
  );
  await assert.rejects(kept.tile(0, 0, [0, 1, 0, 1]));
});

test("what the page does not carry is asked of Python, once", async () => {
  const asked = [];
  const listeners = [];
  const model = {
    on: (_, call) => listeners.push(call),
    send: (question) => {
      asked.push(question);
      queueMicrotask(() =>
        listeners[0](question, [new DataView(whole.buffer, whole.byteOffset, whole.length)]),
      );
    },
  };
  const kept = await store(part(), 0, line(model));
  assert.deepEqual([...(await kept.map(0, 0)).w], [1, 0, 0.5, 0.5]);
  await kept.map(0, 0);
  assert.deepEqual(asked, [{ part: 0, layer: 0, head: 0, window: null }]);
});

test("the colour map grows from stop to stop", () => {
  const map = ramp([
    [255, 255, 255],
    [100, 150, 200],
    [0, 0, 50],
  ]);
  assert.equal(map.length, 256);
  assert.deepEqual(
    [map[0], map[127], map[255]],
    [
      [255, 255, 255],
      [100, 150, 200],
      [0, 0, 50],
    ],
  );
  for (let i = 1; i < 256; i++) assert.ok(map[i][0] <= map[i - 1][0], "darker with every step");
});

// ---- cells and tokens

const blocks = { rows: 4, cols: 2, window: [0, 16, 8, 16], w: new Float32Array(8), exact: false };

test("a cell stands for a block of tokens, and a token lies in one cell", () => {
  assert.deepEqual(
    [0, 1, 3].map((row) => queryAt(blocks, row)),
    [0, 4, 12],
  );
  assert.deepEqual(
    [0, 1].map((column) => keyAt(blocks, column)),
    [8, 12],
  );
  assert.equal(cellOfToken(blocks, 5, false), 1);
  assert.equal(cellOfToken(blocks, 13, true), 1);
  assert.equal(cellOfToken(blocks, 5, true), -1, "outside the window");
  assert.ok(isInWindow(blocks.window, 5, false) && !isInWindow(blocks.window, 5, true));
});

test("a click among the lines chooses a token on its side, at most the last", () => {
  assert.deepEqual(tokenAtLine(blocks, { i: 1, back: false }), { token: 4, back: false });
  assert.deepEqual(tokenAtLine(blocks, { i: 9, back: true }), { token: 12, back: true });
});

test("a drag over more than two cells both ways is a window, less is none", () => {
  const map = { rows: 8, cols: 8, window: [0, 8, 0, 8] };
  assert.deepEqual(draggedWindow({ q: 1, k: 2 }, { q: 5, k: 6 }, map), [1, 6, 2, 7]);
  assert.deepEqual(draggedWindow({ q: 5, k: 6 }, { q: 1, k: 2 }, map), [1, 6, 2, 7], "either way");
  assert.equal(draggedWindow({ q: 1, k: 2 }, { q: 3, k: 6 }, map), null);
});

test("arrows move by one cell and stop at the edge; the first goes to the chosen token's row", () => {
  const map = { rows: 4, cols: 4, window: [0, 4, 0, 4] };
  assert.deepEqual(cellAfterKey(null, [1, 0], 2, map), { q: 2, k: 0 });
  assert.deepEqual(cellAfterKey({ q: 2, k: 0 }, [1, 0], 2, map), { q: 3, k: 0 });
  assert.deepEqual(cellAfterKey({ q: 3, k: 0 }, [1, 0], 2, map), { q: 3, k: 0 });
});

test("two sentences give four quarters", () => {
  assert.equal(sentenceWindow(0, 2, 6), null);
  assert.deepEqual(sentenceWindow(1, 2, 6), [0, 2, 0, 2]);
  assert.deepEqual(sentenceWindow(3, 2, 6), [2, 6, 0, 2]);
});

test("one head minus another is as fine as the coarser", () => {
  const fine = { ...map([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], 4, 4), exact: true };
  const rough = { ...map([0.5, 0.5, 1, 0], 2, 2), exact: false };
  const less = subtract(fine, rough);
  assert.deepEqual([...less.w], [0.5, -0.5, 0, 0]);
  assert.equal(less.exact, false);
});

test("a strip of many tokens shows those around the chosen one", () => {
  const whole = [0, 1000, 0, 1000];
  assert.deepEqual(stripRange(whole, 0, { same: true, back: false, token: 500 }, 400), [300, 700]);
  assert.deepEqual(stripRange(whole, 0, { same: true, back: false, token: 990 }, 400), [600, 1000]);
  assert.deepEqual(stripRange(whole, 1, { same: false, back: false, token: 990 }, 400), [0, 400]);
  const quarter = [0, 4, 4, 9];
  assert.deepEqual(stripRange(quarter, 0, { same: true, back: false, token: 1 }, 400), [0, 9]);
});

test("the grid has a column a head, then the mean and the rollout", () => {
  const entries = [
    [0, 0],
    [1, 0],
    [1, 1],
    [1, -1],
    [1, -2],
  ];
  assert.deepEqual(headColumns({ heads: [1, 2], entries }), [0, 1, -1, -2]);
  assert.deepEqual(headColumns({ heads: [1], entries: [[0, 0]] }), [0]);
  assert.equal(headSide(400, 2), 58, "as large as it may be");
  assert.equal(headSide(400, 33), 14, "as small as it may be");
});

test("the colour of a weight is the square root of its share of the top", () => {
  assert.deepEqual(
    [0, 0.25, 1, 4].map((w) => rampIndex(w, 1, false)),
    [0, 128, 255, 255],
  );
  assert.deepEqual(
    [-1, 0, 1].map((w) => rampIndex(w, 1, true)),
    [1, 128, 255],
  );
  assert.equal(rampIndex(0, 0, false), 0, "a map of zeros");
});

// ---- what is said

test("the heading says whose weights, how fine, and of which tokens", () => {
  const exact = { ...blocks, exact: true };
  assert.equal(
    mapTitle("layer 0, head 1", exact, "", false),
    "Layer 0, head 1: rows look at columns",
  );
  assert.equal(
    mapTitle("layer 0, head 1", blocks, "layer 0, head 0", true),
    "Layer 0, head 1 minus layer 0, head 0: rows look at columns, in blocks of 4 tokens " +
      "(exact weights come where Python runs); tokens 0–15 at 8–15",
  );
});

test("the colour scale says its ends, and when rows do not sum to one", () => {
  assert.deepEqual(scaleText(blocks, 0.5, false, false), ["weight 0", "0.50 (square-root scale)"]);
  assert.deepEqual(scaleText(blocks, 0.05, true, true), [
    "−0.05",
    "+0.050 (square-root scale; some rows do not sum to one)",
  ]);
});

test("a cell is told by its tokens and its weight", () => {
  const field = { ...map([0.25, 0.75, 0.5, 0.5], 2, 2), exact: true };
  const sides = { queries: ["a", "b"], keys: ["a", "b"] };
  assert.equal(cellText(field, { q: 0, k: 1 }, sides, false), "“a” (0) → “b” (1): 0.750");
  assert.equal(cellText(field, { q: 0, k: 1 }, sides, true), "“a” (0) → “b” (1): +0.750");
});

test("a block is told by its tokens, a single token by its name", () => {
  const tokens = ["a", "b", "c", "d"];
  assert.equal(blockName(tokens, 1, 0, 1), "“b” (1)");
  assert.equal(blockName(tokens, 1, 0, 2), "tokens 2–3 from “c”");
});

test("the search says how many it found, the hint what can be clicked", () => {
  assert.equal(hitsText("", [0, 0], true), "");
  assert.equal(hitsText("a", [2, 2], true), "2 found, Enter goes on");
  assert.equal(hitsText("a", [0, 3], false), "3 found");
  const s = { same: true, queries: ["a", "b"], part: { prompt: 1 } };
  assert.match(hintText(s), /^Click a token: Tokens with a line above them were written/);
  assert.equal(hintText({ ...s, part: {} }), "Click a token:");
  assert.match(hintText({ ...s, same: false }), /second row/);
});

test("a window is exact where Python answers, else a part of the whole head", async () => {
  const whole = { ...map([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], 4, 4), exact: false };
  const tile = { ...map([0, 1, 1, 0], 2, 2, [0, 2, 0, 2]), exact: true };
  const live = { map: async () => whole, tile: async () => tile };
  const alone = { map: async () => whole, tile: () => Promise.reject(new Error("no Python")) };
  assert.deepEqual(await windowOf(live, 0, 0, [0, 2, 0, 2]), [tile, tile]);
  const [part, all] = await windowOf(alone, 0, 0, [0, 2, 0, 2]);
  assert.deepEqual([...part.w], [1, 0, 1, 0]);
  assert.equal(all, whole);
  const [less] = await differenceOf([live, 0, 0], [alone, 0, 0], [0, 2, 0, 2]);
  assert.deepEqual([...less.w], [-1, 1, 0, 0]);
});
