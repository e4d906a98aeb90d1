// The attention figure's arithmetic: pure functions, tested in tests/js/attention.test.js

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

export function number(w) {
  if (w === 0 || Number.isNaN(w)) return "0";
  return w > 0 ? w.toFixed(2) : w.toFixed(2).replace("-", "−");
}
export const signed = (w) => (w > 0 ? `+${w.toFixed(2)}` : number(w));
export function headName(layer, head) {
  const names = { [-1]: "mean of its heads", [-2]: "rollout" };
  return `layer ${layer}, ${names[head] ?? `head ${head}`}`;
}
const capital = (text) => text[0].toUpperCase() + text.slice(1);

// where the colours end: the largest weight, in a large map the one that only 2 cells in 1,000 exceed
export function scaleEnd(w) {
  let most = 0;
  for (let i = 0; i < w.length; i++) most = Math.max(most, Math.abs(w[i]));
  return w.length < 2500
    ? most
    : Float32Array.from(w).map(Math.abs).sort()[Math.floor(0.998 * w.length)] || most;
}

// [index, weight] of the n largest
export const largest = (row, n) =>
  [...row]
    .map((w, i) => [i, w])
    .sort((a, b) => b[1] - a[1])
    .slice(0, n);

// where one of two compared heads looks more, and where less, in words
function difference(back, row, to) {
  const negated = row.map((w) => -w);
  const preposition = back ? "from" : "to";
  const sides = [
    ["more", largest(row, 2)],
    ["less", largest(negated, 2)],
  ];
  const told = [];
  for (const [word, found] of sides) {
    const clear = found.filter(([, w]) => w >= 0.005);
    const names = clear.map(([i]) => `${to(i)} ${signed(row[i])}`);
    if (names.length) told.push(`${word} ${preposition} ${names.join(", ")}`);
  }
  return told.join("; ") || "looks the same in both";
}

// what the figure shows now, in words; `from` and `to` name a token
export function summary({ name, other, back }, from, row, to) {
  if (other) return `${capital(name)} minus ${other}: ${from} ${difference(back, row, to)}.`;
  const who = `${capital(name)}: ${from}`;
  const most = largest(row, 3);
  const parts = most.filter(([, w]) => w > 0).map(([i, w]) => `${to(i)} ${number(w)}`);
  return `${who} ${back ? "is looked at most by" : "looks most at"} ${parts.join(", ") || "nothing"}.`;
}

// the places of tokens that contain a text, spaces and case aside
export const found = (tokens, text) => {
  const wanted = text.trim().toLowerCase();
  return wanted
    ? tokens.flatMap((token, i) => (token.toLowerCase().includes(wanted) ? [i] : []))
    : [];
};

// 256 colours between three stops
export function ramp(stops) {
  const [low, middle, high] = stops;
  const mix = (a, b, f) => a.map((x, i) => Math.round(x + (b[i] - x) * f));
  return Array.from({ length: 256 }, (_, i) =>
    i < 128 ? mix(low, middle, i / 127) : mix(middle, high, (i - 128) / 127),
  );
}
