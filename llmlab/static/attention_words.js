// What the attention figure says: names, numbers and sentences; pure functions, tested in tests/js/attention.test.js
import { short, shown } from "./dom.js";
import { keyAt, queryAt } from "./attention_layout.js";

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

// the heading of a matrix: whose weights these are, how fine, and of which tokens
export function mapTitle(name, field, other, zoomed) {
  const [q0, q1, k0, k1] = field.window;
  const parts = [`${capital(name)}${other ? ` minus ${other}` : ""}: rows look at columns`];
  if (!field.exact) {
    const size = Math.ceil((q1 - q0) / field.rows);
    const later = zoomed ? " (exact weights come where Python runs)" : "";
    parts.push(`, in blocks of ${size} tokens${later}`);
  }
  if (zoomed) parts.push(`; tokens ${q0}–${q1 - 1} at ${k0}–${k1 - 1}`);
  return parts.join("");
}

// the two ends of the colour scale
export function scaleText(field, top, minus, uneven) {
  const largestWeight = `${minus ? "+" : ""}${top.toFixed(top < 0.1 ? 3 : 2)}`;
  const beyond = field.w.length < 2500 ? "" : " and more";
  const sums = uneven ? "; some rows do not sum to one" : "";
  const low = minus ? `−${top.toFixed(2)}` : "weight 0";
  return [low, `${largestWeight}${beyond} (square-root scale${sums})`];
}

// one cell of the matrix: its two tokens and its weight
export function cellText(field, cell, { queries, keys }, minus) {
  const w = field.w[cell.q * field.cols + cell.k];
  const [q, k] = [queryAt(field, cell.q), keyAt(field, cell.k)];
  const pair = `“${short(queries[q])}” (${q}) → “${short(keys[k])}” (${k})`;
  const sign = minus && w > 0 ? "+" : "";
  return `${pair}: ${sign}${w.toFixed(3)}${field.exact ? "" : " for the block"}`;
}

// the name of the i-th cell of a row: a token, or a block of tokens
export function blockName(tokens, i, start, step) {
  const at = Math.round(start + i * step);
  if (step <= 1) return `“${shown(tokens[at])}” (${at})`;
  return `tokens ${at}–${Math.round(start + (i + 1) * step) - 1} from “${short(tokens[at])}”`;
}

// how many tokens the search found on each side
export function hitsText(text, [queries, keys], same) {
  if (!text) return "";
  return `${queries + (same ? 0 : keys)} found${queries ? ", Enter goes on" : ""}`;
}

// what the reader can do with the tokens; `prompt` = where tokens begin that the model wrote
export function hintText({ same, queries, part: { prompt } }) {
  const click = same
    ? "Click a token:"
    : "Click a token that looks (first row) or one that is looked at (second row):";
  const isWritten = prompt >= 0 && prompt !== null && prompt < queries.length;
  return `${click}${isWritten ? " Tokens with a line above them were written by the model." : ""}`;
}
