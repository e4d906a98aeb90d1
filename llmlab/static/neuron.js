// The neuron figure: the products that make one score. Query times key, number by number, then their sum.
import { chooser, clampIndex, h, onTheme, rove, short, shown, themeColours, tools } from "./dom.js";

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

// ---- drawing

function render({ model, el }) {
  const { q, k, tokens, causal } = model.get("data");
  const heads = q.length;
  const d = q[0][0].length;
  const state = () => ({
    head: clampIndex(model.get("head"), heads),
    query: clampIndex(model.get("query"), tokens.length),
    key: clampIndex(model.get("key"), tokens.length),
  });
  const choose = chooser(model);
  const pick = (label, names, name) =>
    h(
      "div",
      { className: "bar", role: "radiogroup", "aria-label": label },
      h("span", { className: "quiet" }, label),
      ...names.map((text, i) =>
        h(
          "button",
          { className: "tok", role: "radio", onclick: () => choose({ [name]: i }) },
          text,
        ),
      ),
    );
  const which = pick(
    "head",
    q.map((_, i) => `${i}`),
    "head",
  );
  const queries = pick(
    "query",
    tokens.map((x) => shown(x)),
    "query",
  );
  const strip = (label) => h("canvas", { role: "img", "aria-label": label });
  const say = h("p", { className: "say", "aria-live": "polite" });
  const told = h("div", { className: "title" }, "Point at a number to read it.");
  const asked = strip("numbers of the query");
  const head = ["key", "k", "q × k, number by number", "score", "weight"].map((x) =>
    h("span", { className: "quiet" }, x),
  );
  const rows = tokens.map((token, i) => {
    const parts = {
      name: h(
        "button",
        { className: "tok", role: "radio", onclick: () => choose({ key: i }) },
        short(token, 12),
      ),
      k: strip(`k of ${token}`),
      product: strip(`q times k of ${token}`),
      score: h("span", { className: "p" }),
      weight: h("span", { className: "track" }, h("i", { className: "now" }), h("b")),
    };
    for (const [name, canvas] of [
      ["k", parts.k],
      ["product", parts.product],
    ]) {
      canvas.onpointermove = (event) =>
        point(i, Math.min(d - 1, Math.floor((event.offsetX / canvas.clientWidth) * d)), name);
    }
    return parts;
  });
  const table = h(
    "div",
    { className: "neurons", role: "radiogroup", "aria-label": "key" },
    h("span", { className: "tok" }),
    asked,
    ...Array.from({ length: 3 }, () => h("span")),
    ...head,
    ...rows.flatMap((row) => Object.values(row)),
  );
  let now = null;
  el.classList.add("llmlab");
  el.append(...(heads > 1 ? [which] : []), queries, told, table, say);
  [which, queries].forEach((group) => rove(group, () => 8));
  rove(table, () => 1);
  tools(el, model, "neuron");

  function point(i, c) {
    const s = state();
    const a = q[s.head][s.query][c];
    const b = k[s.head][i][c];
    const pair = `“${short(tokens[s.query])}” and “${short(tokens[i])}”`;
    told.textContent = `number ${c} of ${pair}: ${number(a)} × ${number(b)} = ${number(a * b)}`;
  }
  function update() {
    const s = state();
    const [low, middle, high] = themeColours(el, ["--c1", "--map0", "--c0"]);
    now = against(q[s.head][s.query], k[s.head], s.query, causal);
    const most = (all) => Math.max(1e-9, ...all.flat().map(Math.abs));
    const vectors = most([q[s.head][s.query], ...k[s.head]]);
    const products = most(now.products);
    const paint = (canvas, row, top) => {
      Object.assign(canvas, { width: row.length, height: 1 });
      const image = new ImageData(row.length, 1);
      row.forEach((x, c) =>
        image.data.set(
          [
            ...middle.map(
              (m, j) => m + ((x < 0 ? low : high)[j] - m) * Math.sqrt(Math.abs(x) / top),
            ),
            255,
          ],
          4 * c,
        ),
      );
      canvas.getContext("2d").putImageData(image, 0, 0);
    };
    paint(asked, q[s.head][s.query], vectors);
    table.firstChild.textContent = `q ${short(tokens[s.query], 12)}`;
    rows.forEach((row, i) => {
      paint(row.k, k[s.head][i], vectors);
      paint(row.product, now.products[i], products);
      row.score.textContent = now.seen[i] ? number(now.scores[i]) : "hidden";
      row.weight.firstChild.style.width = `${100 * now.weights[i]}%`;
      row.weight.lastChild.textContent = number(now.weights[i]);
      row.name.setAttribute("aria-checked", i === s.key);
      row.name.tabIndex = i === s.key ? 0 : -1;
    });
    [
      [which, s.head],
      [queries, s.query],
    ].forEach(([group, chosen]) =>
      group.querySelectorAll("button").forEach((b, i) => {
        b.setAttribute("aria-checked", i === chosen);
        b.tabIndex = i === chosen ? 0 : -1;
      }),
    );
    say.textContent = summary(
      heads > 1 ? `Head ${s.head}: ` : "",
      tokens[s.query],
      tokens[s.key],
      q[s.head][s.query],
      k[s.head][s.key],
      now,
      s.key,
    );
  }
  ["head", "query", "key"].forEach((name) => model.on(`change:${name}`, update));
  update();
  return onTheme(update);
}

export default { render };
