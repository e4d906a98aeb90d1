// The neuron figure: the products that make one score. Query times key, number by number, then their sum.
import { buttonGroup, liveText } from "./controls.js";
import {
  check,
  chooser,
  clampIndex,
  h,
  onTheme,
  rove,
  short,
  shown,
  themeColours,
  tools,
} from "./dom.js";

// ---- layout: pure functions, tested in tests/js/neuron.test.js

// one query against all keys: products, scores divided by √d, weights; keys after the query are hidden if causal
export function against(q, keys, query, causal) {
  const products = keys.map((k) => k.map((x, c) => x * q[c]));
  const scores = products.map((row) => row.reduce((a, b) => a + b, 0) / Math.sqrt(q.length));
  const seen = scores.map((_, i) => !causal || i <= query);
  const top = Math.max(...scores.filter((_, i) => seen[i]));
  const powers = scores.map((s, i) => (seen[i] ? Math.exp(s - top) : 0));
  const sum = powers.reduce((a, b) => a + b, 0);
  return { products, scores, seen, weights: powers.map((x) => x / sum) };
}

export const number = (x) =>
  x
    .toFixed(2)
    .replace(/^-0\.00$/, "0.00")
    .replace("-", "−");

// the strongest numbers of one product, in words
export function summary(name, from, to, q, k, { products, scores, seen, weights }, key) {
  const row = products[key];
  const strongest = row
    .map((x, c) => [x, c])
    .sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]))
    .slice(0, 3);
  const parts = strongest
    .map(([x, c]) => `number ${c}: ${number(q[c])} × ${number(k[c])} = ${number(x)}`)
    .join("; ");
  const end = seen[key]
    ? `The score, the sum divided by √${row.length}, is ${number(scores[key])}; its weight ${number(weights[key])}.`
    : "The mask hides this key.";
  return `${name}“${shown(from)}” for “${shown(to)}”. Strongest ${parts}. ${end}`;
}

// the largest number by size, of rows of numbers; never zero, for others are divided by it
export const largestOf = (rows) => Math.max(1e-9, ...rows.flat().map(Math.abs));

// a number as a colour between three: below zero towards `low`, above towards `high`, a square root apart
export function blend(x, top, [low, middle, high]) {
  const end = x < 0 ? low : high;
  const share = Math.sqrt(Math.abs(x) / top);
  return middle.map((from, i) => from + (end[i] - from) * share);
}

// ---- drawing

const HEADINGS = ["key", "k", "q × k, number by number", "score", "weight"];

// a vector as a strip, a pixel a number
function paintStrip(canvas, row, top, colours) {
  Object.assign(canvas, { width: row.length, height: 1 });
  const image = new ImageData(row.length, 1);
  row.forEach((x, i) => image.data.set([...blend(x, top, colours), 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const strip = (label) => h("canvas", { role: "img", "aria-label": label });

// a row of the table, for one key; `point` is told which number the mouse is at
function keyRow(token, d, choose, point) {
  const props = { className: "tok", role: "radio", onclick: choose };
  const row = {
    name: h("button", props, short(token, 12)),
    k: strip(`k of ${token}`),
    product: strip(`q times k of ${token}`),
    score: h("span", { className: "p" }),
    weight: h("span", { className: "track" }, h("i", { className: "now" }), h("b")),
  };
  for (const canvas of [row.k, row.product]) {
    canvas.onpointermove = (event) =>
      point(Math.min(d - 1, Math.floor((event.offsetX / canvas.clientWidth) * d)));
  }
  return row;
}

function keyTable(asked, rows) {
  const table = h(
    "div",
    { className: "neurons", role: "radiogroup", "aria-label": "key" },
    h("span", { className: "tok" }),
    asked,
    ...Array.from({ length: 3 }, () => h("span")),
    ...HEADINGS.map((x) => h("span", { className: "quiet" }, x)),
    ...rows.flatMap((row) => Object.values(row)),
  );
  rove(table, () => 1);
  return table;
}

// writes the numbers of one key into its row
function fillRow(row, i, { scores, seen, weights }, chosen) {
  row.score.textContent = seen[i] ? number(scores[i]) : "hidden";
  row.weight.firstChild.style.width = `${100 * weights[i]}%`;
  row.weight.lastChild.textContent = number(weights[i]);
  check(row.name, i === chosen);
}

// two numbers of a query and a key, and their product
function describeProduct(c, a, b, words) {
  const pair = `“${short(words[0])}” and “${short(words[1])}”`;
  return `number ${c} of ${pair}: ${number(a)} × ${number(b)} = ${number(a * b)}`;
}

function render({ model, el }) {
  const { q, k, tokens, causal } = model.get("data");
  const state = () => ({
    head: clampIndex(model.get("head"), q.length),
    query: clampIndex(model.get("query"), tokens.length),
    key: clampIndex(model.get("key"), tokens.length),
  });
  const choose = chooser(model);
  const radios = (name, texts) =>
    buttonGroup(name, texts, (i) => choose({ [name]: i }), { radio: true, className: "tok" });
  const headNumbers = q.map((_, i) => `${i}`);
  const words = tokens.map((token) => shown(token));
  const heads = radios("head", headNumbers);
  const queries = radios("query", words);
  const told = h("div", { className: "title" }, "Point at a number to read it.");
  const asked = strip("numbers of the query");
  const rows = tokens.map((token, i) => {
    const point = (c) => {
      const { head, query } = state();
      const pair = [tokens[query], token];
      told.textContent = describeProduct(c, q[head][query][c], k[head][i][c], pair);
    };
    return keyRow(token, q[0][0].length, () => choose({ key: i }), point);
  });
  const table = keyTable(asked, rows);
  const say = liveText();
  el.classList.add("llmlab");
  el.append(...(q.length > 1 ? [heads.node] : []), queries.node, told, table, say);
  tools(el, model, "neuron");

  function update() {
    const { head, query, key } = state();
    const colours = themeColours(el, ["--c1", "--map0", "--c0"]);
    const vector = q[head][query];
    const now = against(vector, k[head], query, causal);
    const top = largestOf([vector, ...k[head]]);
    const topProduct = largestOf(now.products);
    paintStrip(asked, vector, top, colours);
    table.firstChild.textContent = `q ${short(tokens[query], 12)}`;
    rows.forEach((row, i) => {
      paintStrip(row.k, k[head][i], top, colours);
      paintStrip(row.product, now.products[i], topProduct, colours);
      fillRow(row, i, now, key);
    });
    heads.mark(head);
    queries.mark(query);
    const name = q.length > 1 ? `Head ${head}: ` : "";
    say.textContent = summary(name, tokens[query], tokens[key], vector, k[head][key], now, key);
  }
  for (const name of ["head", "query", "key"]) model.on(`change:${name}`, update);
  update();
  return onTheme(update);
}

export default { render };
