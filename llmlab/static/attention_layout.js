// The attention figure's arithmetic: pure functions, tested in tests/js/attention.test.js
import { clampIndex } from "./dom.js";

// n maps of rows × cols: byte² / 255² times the largest of its row
export function unpack(bytes, n, rows, cols, at = 0) {
  const largest = new Float32Array(bytes.buffer, bytes.byteOffset + 4 * at * rows, rows);
  const coded = bytes.subarray(4 * n * rows + at * rows * cols);
  const out = new Float32Array(rows * cols);
  for (let q = 0, i = 0; q < rows; q++) {
    for (let k = 0; k < cols; k++, i++) out[i] = largest[q] * (coded[i] / 255) ** 2;
  }
  return out;
}

// a coarser map: the share that one block of queries gives to one block of keys, so rows still sum to one
export function coarse({ w, rows, cols, ...rest }, r, c) {
  if (r === rows && c === cols) return { w, rows, cols, ...rest };
  const blocks = (n, m) => Int32Array.from({ length: n }, (_, i) => Math.floor((i * m) / n));
  const down = blocks(rows, r);
  const across = blocks(cols, c);
  const out = new Float32Array(r * c);
  const size = new Float32Array(r);
  for (const at of down) size[at] += 1;
  for (let q = 0, i = 0; q < rows; q++) {
    for (let k = 0, first = down[q] * c, n = size[down[q]]; k < cols; k++, i++) {
      out[first + across[k]] += w[i] / n;
    }
  }
  return { ...rest, w: out, rows: r, cols: c };
}

// the part of a map that shows this window of tokens; its own window grows to whole cells
export function crop(map, [q0, q1, k0, k1]) {
  const {
    w,
    rows,
    cols,
    window: [a, b, c, d],
  } = map;
  const sq = (b - a) / rows;
  const sk = (d - c) / cols;
  const [r0, r1, c0, c1] = [
    Math.floor((q0 - a) / sq),
    Math.ceil((q1 - a) / sq),
    Math.floor((k0 - c) / sk),
    Math.ceil((k1 - c) / sk),
  ];
  const out = new Float32Array((r1 - r0) * (c1 - c0));
  for (let r = r0; r < r1; r++) {
    out.set(w.subarray(r * cols + c0, r * cols + c1), (r - r0) * (c1 - c0));
  }
  return {
    ...map,
    w: out,
    rows: r1 - r0,
    cols: c1 - c0,
    window: [a + r0 * sq, a + r1 * sq, c + c0 * sk, c + c1 * sk],
  };
}

// half as wide (or twice) around this token; null when all is in view again
export function zoom([q0, q1, k0, k1], token, nq, nk, factor) {
  const part = (from, to, n) => {
    const size = Math.min(n, Math.max(Math.min(n, 8), Math.round((to - from) * factor)));
    const middle = Math.min(token, n - 1);
    const start = Math.max(0, Math.min(n - size, middle - (size >> 1)));
    return [start, start + size];
  };
  const next = [...part(q0, q1, nq), ...part(k0, k1, nk)];
  return next[1] - next[0] === nq && next[3] - next[2] === nk ? null : next;
}
export const windowText = (window) => (window ? window.join("-") : "");
export function readWindow(text, nq, nk) {
  const [q0, q1, k0, k1] = text.split("-").map(Number);
  const fine = q0 >= 0 && q1 > q0 && q1 <= nq && k0 >= 0 && k1 > k0 && k1 <= nk;
  return fine ? [q0, q1, k0, k1] : [0, nq, 0, nk];
}

// where the matrix stands beside its labels; `labels` = longest label in characters
export function fit(width, rows, cols, labels) {
  const room = Math.min(labels, 14) * 7 + 10;
  const side = (margin) => Math.min(34, (width - margin - 4) / cols, 460 / rows);
  const named = labels > 0 && side(room) >= 9;
  const left = named ? room : 4;
  const cell = side(left) > 6 ? Math.floor(side(left)) : side(left);
  return {
    cell,
    named,
    left,
    top: named ? Math.min(room, 90) : 4,
    width: cell * cols,
    height: cell * rows,
  };
}
export function cellAt(x, y, box, rows, cols) {
  const k = Math.floor((x - box.left) / box.cell);
  const q = Math.floor((y - box.top) / box.cell);
  return q >= 0 && q < rows && k >= 0 && k < cols ? { q, k } : null;
}

// the lines between two columns of tokens: the n strongest, weakest first so that strong ones lie on top
export function lines({ w, cols }, n = 4000) {
  const least = Math.max(
    0.004,
    w.length > n ? Float32Array.from(w, Math.abs).sort()[w.length - n] : 0,
  );
  const all = [];
  for (let i = 0; i < w.length; i++) {
    if (Math.abs(w[i]) >= least) all.push([Math.floor(i / cols), i % cols, w[i]]);
  }
  return all.sort((a, b) => Math.abs(a[2]) - Math.abs(b[2]));
}

// one token's weights: its row, or (back) its column, each cell `step` tokens wide from `start` on
export function rowOf({ w, rows, cols, window: [q0, q1, k0, k1] }, token, back) {
  const at = back
    ? Math.floor(((token - k0) * cols) / (k1 - k0))
    : Math.floor(((token - q0) * rows) / (q1 - q0));
  if (back) {
    return {
      row: Float32Array.from({ length: rows }, (_, q) => w[q * cols + at]),
      start: q0,
      step: (q1 - q0) / rows,
    };
  }
  return { row: w.subarray(at * cols, (at + 1) * cols), start: k0, step: (k1 - k0) / cols };
}

// where the colours end: the largest weight, in a large map the one that only 2 cells in 1,000 exceed
export function scaleEnd(w) {
  let most = 0;
  for (let i = 0; i < w.length; i++) most = Math.max(most, Math.abs(w[i]));
  return w.length < 2500
    ? most
    : Float32Array.from(w).map(Math.abs).sort()[Math.floor(0.998 * w.length)] || most;
}

// 256 colours between three stops
export function ramp(stops) {
  const [low, middle, high] = stops;
  const mix = (a, b, f) => a.map((x, i) => Math.round(x + (b[i] - x) * f));
  return Array.from({ length: 256 }, (_, i) =>
    i < 128 ? mix(low, middle, i / 127) : mix(middle, high, (i - 128) / 127),
  );
}

// a colour ramp's place of a weight: the square root keeps small weights apart, `top` is the last colour
export function rampIndex(w, top, minus) {
  const root = Math.sqrt(Math.min(1, Math.abs(w) * (1 / (top || 1))));
  return minus ? Math.round(127.5 + 127 * Math.sign(w) * root) : Math.round(255 * root);
}

// ---- cells of a map and the tokens that they stand for

export const queryAt = ({ rows, window: [q0, q1] }, row) =>
  Math.floor(q0 + (row * (q1 - q0)) / rows);
export const keyAt = ({ cols, window: [, , k0, k1] }, column) =>
  Math.floor(k0 + (column * (k1 - k0)) / cols);

// the row of a query, or (back) the column of a key; -1 outside the window
export function cellOfToken({ rows, cols, window: [q0, q1, k0, k1] }, token, back) {
  const [from, to, n] = back ? [k0, k1, cols] : [q0, q1, rows];
  return token >= from && token < to ? Math.floor(((token - from) * n) / (to - from)) : -1;
}

export function isInWindow([q0, q1, k0, k1], token, back) {
  return back ? k0 <= token && token < k1 : q0 <= token && token < q1;
}

// the token that a click among the lines chose: the i-th on the left, or (back) on the right
export function tokenAtLine(field, { i, back }) {
  const token = back
    ? keyAt(field, Math.min(i, field.cols - 1))
    : queryAt(field, Math.min(i, field.rows - 1));
  return { token, back };
}

// the window between two cells that the mouse was dragged over; null where they are too near each other
export function draggedWindow(from, to, { rows, cols, window: [q0, q1, k0, k1] }) {
  if (Math.abs(to.q - from.q) <= 2 || Math.abs(to.k - from.k) <= 2) return null;
  const stretch = (a, b, low, high, n) => [
    Math.floor(low + (Math.min(a, b) * (high - low)) / n),
    Math.ceil(low + ((Math.max(a, b) + 1) * (high - low)) / n),
  ];
  return [...stretch(to.q, from.q, q0, q1, rows), ...stretch(to.k, from.k, k0, k1, cols)];
}

// the cell that an arrow key goes to; the first one goes to the row of the chosen token
export function cellAfterKey(over, [down, right], token, { rows, cols, window: [q0, q1] }) {
  if (!over) return { q: clampIndex(Math.floor(((token - q0) * rows) / (q1 - q0)), rows), k: 0 };
  return { q: clampIndex(over.q + down, rows), k: clampIndex(over.k + right, cols) };
}

// of two sentences A and B, the second of which begins at `split`: both, or who looks at whom
export function sentenceWindow(which, split, n) {
  const [a, b] = [
    [0, split],
    [split, n],
  ];
  return [null, [...a, ...a], [...a, ...b], [...b, ...a], [...b, ...b]][which];
}

// one head minus another, as fine as the coarser of the two
export function subtract(a, b) {
  const [rows, cols] = [Math.min(a.rows, b.rows), Math.min(a.cols, b.cols)];
  const [x, y] = [coarse(a, rows, cols), coarse(b, rows, cols)];
  return { ...x, w: x.w.map((w, i) => w - y.w[i]), exact: a.exact && b.exact };
}

// which tokens a strip of text shows: those in the window, `most` around the chosen one where they are many
export function stripRange([q0, q1, k0, k1], side, { same, back, token }, most) {
  const ofSide = side ? [k0, k1] : [q0, q1];
  const [a, b] = same ? [Math.min(q0, k0), Math.max(q1, k1)] : ofSide;
  const middle = same || side === Number(back) ? token : a;
  const first = Math.max(Math.floor(a), Math.min(middle - (most >> 1), Math.ceil(b) - most));
  return [first, Math.min(Math.ceil(b), first + most)];
}

// ---- the grid of heads

// its columns: the heads of the largest layer, then the mean (-1) and the rollout (-2) where the part has them
export function headColumns({ heads, entries }) {
  const extra = [-1, -2].filter((x) => entries.some(([, head]) => head === x));
  return [...Array(Math.max(...heads)).keys(), ...extra];
}

// pixels of one small map in a grid with this many columns
export const headSide = (width, columns) =>
  Math.max(14, Math.min(58, Math.min(330, width - 64 - 3 * columns) / columns));
