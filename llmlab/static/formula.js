// The formula figure: softmax(QKᵀ/√d)V on a few tokens, every number on the page and open to change.

// ---- layout: pure functions, tested in tests/js/formula.test.js

export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

export function softmax(row) {
  const top = Math.max(...row.filter((x) => x !== null));
  const powers = row.map((x) => (x === null ? 0 : Math.exp(x - top))), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

// every step of attention; null stands for −∞, a key that the mask hides
export function compute(q, k, v, { scaled, causal }) {
  const scores = q.map((a) => k.map((b) => dot(a, b)));
  const divided = scores.map((row) => row.map((x) => (scaled ? x / Math.sqrt(q[0].length) : x)));
  const masked = divided.map((row, i) => row.map((x, j) => (causal && j > i ? null : x)));
  const weights = masked.map(softmax);
  const output = weights.map((row) => v[0].map((_, c) => row.reduce((sum, w, j) => sum + w * v[j][c], 0)));
  return { scores, divided, masked, weights, output };
}

export const number = (x) => (x === null ? "−∞" : x.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−"));
const short = (x) => String(Math.round(x * 1e4) / 1e4).replace("-", "−");
const inner = (x) => (x < 0 ? `(${short(x)})` : short(x));

// one score and one output row, written out
export function worked(q, k, v, steps, { query, key, scaled }, tokens) {
  const d = q[0].length, sum = q[query].map((x, c) => `${inner(x)}·${inner(k[key][c])}`).join(" + ");
  const value = steps.masked[query][key], weight = number(steps.weights[query][key]);
  const scale = scaled ? `, divided by √${d} = ${number(Math.sqrt(d))}: ${number(steps.divided[query][key])}` : "";
  const mask = value === null ? "; the mask hides this key: −∞" : "";
  const mix = steps.weights[query].map((w, j) => `${number(w)}·[${v[j].map(short).join(", ")}]`).join(" + ");
  return [
    `score of “${tokens[query]}” for “${tokens[key]}” = ${sum} = ${number(steps.scores[query][key])}${scale}${mask}; softmax over the row gives the weight ${weight}.`,
    `output of “${tokens[query]}” = ${mix} = [${steps.output[query].map(number).join(", ")}].`,
  ];
}

// ---- drawing

function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) key.includes("-") || key === "role" ? node.setAttribute(key, value) : (node[key] = value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const { tokens, ...given } = model.get("data"), n = tokens.length, d = given.q[0].length;
  let x = structuredClone(given);
  const state = () => Object.fromEntries(["scaled", "causal", "query", "key"].map((name) => [name, model.get(name)]));
  const choose = (values) => { for (const [name, value] of Object.entries(values)) model.set(name, value); model.save_changes(); };

  // a table of numbers; `cell` makes the content of one
  const table = (title, head, cell, kind) => h("div", { className: `step ${kind}` }, h("div", { className: "title" }, title), h("table", { "aria-label": title },
    ...(head ? [h("tr", {}, h("td"), ...head.map((name) => h("th", { className: "tok" }, name)))] : []),
    ...tokens.map((token, i) => h("tr", {}, h("th", { className: "tok" }, token), ...cell(i)))));
  const inputs = ["q", "k", "v"].map((name) => table(`${name.toUpperCase()} · one row a token`, null, (i) => x[name][i].map((_, c) => h("td", {}, h("input", {
    type: "number", step: 0.5, value: x[name][i][c], "aria-label": `${name} of ${tokens[i]}, number ${c + 1}`,
    oninput: (event) => { if (Number.isFinite(event.target.valueAsNumber)) { x[name][i][c] = event.target.valueAsNumber; update(); } },
  }))), "given"));
  const result = (title, name, columns) => table(title, columns ?? tokens, (i) => (columns ?? tokens).map((_, j) => h("td", {
    onclick: () => choose(columns ? { query: i } : { query: i, key: j }),
  })), `found ${name}`);
  const results = {
    scores: result("1 · scores Q Kᵀ", "scores"), divided: result("2 · divided", "divided"), masked: result("3 · masked", "masked"),
    weights: result("4 · weights (softmax)", "weights"), output: result("5 · output", "output", given.v[0].map((_, c) => `${c + 1}`)),
  };

  const pick = (label, name) => h("div", { className: "bar", role: "radiogroup", "aria-label": label }, h("span", { className: "quiet" }, label),
    ...tokens.map((token, i) => h("button", { className: "tok", role: "radio", onclick: () => choose({ [name]: i }) }, token)));
  const flag = (label, name) => h("label", {}, h("input", { type: "checkbox", onchange: (event) => choose({ [name]: event.target.checked }) }), label);
  const scaled = flag(`divide by √${d}`, "scaled"), causal = flag("causal mask", "causal");
  const reset = h("button", { onclick: () => { x = structuredClone(given); el.querySelectorAll("td input").forEach((box, i) => { box.value = flat()[i]; }); update(); } }, "start again");
  const flat = () => [x.q, x.k, x.v].flat(2);
  const queries = pick("query", "query"), keys = pick("key", "key"), say = h("div", { className: "say worked", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar" }, scaled, causal, reset), h("div", { className: "bar" }, queries, keys),
    h("div", { className: "steps" }, ...inputs), h("div", { className: "steps" }, ...Object.values(results)), say);

  function update() {
    const s = state(), steps = compute(x.q, x.k, x.v, s);
    scaled.firstChild.checked = s.scaled;
    causal.firstChild.checked = s.causal;
    results.divided.querySelector(".title").textContent = s.scaled ? `2 · divided by √${d} = ${number(Math.sqrt(d))}` : "2 · not divided";
    results.masked.querySelector(".title").textContent = s.causal ? "3 · later keys hidden" : "3 · no mask";
    for (const [name, rows] of Object.entries(steps)) results[name].querySelectorAll("th ~ td").forEach((cell, at) => {
      const width = rows[0].length, i = Math.floor(at / width), j = at % width;
      cell.textContent = number(rows[i][j]);
      cell.className = `${i === s.query ? "chosen" : ""} ${i === s.query && j === s.key && name !== "output" ? "here" : ""} ${rows[i][j] === null ? "unseen" : ""}`;
      if (name === "weights") cell.style.background = `color-mix(in srgb, var(--chip) ${Math.round(100 * rows[i][j])}%, var(--paper))`;
    });
    [[0, s.query], [1, s.key]].forEach(([at, chosen]) => inputs[at].querySelectorAll("tr").forEach((row, i) => row.classList.toggle("chosen", i === chosen)));
    [[queries, s.query], [keys, s.key]].forEach(([group, chosen]) => group.querySelectorAll("button").forEach((b, i) => b.setAttribute("aria-checked", i === chosen)));
    say.replaceChildren(...worked(x.q, x.k, x.v, steps, s, tokens).map((line) => h("p", {}, line)));
  }
  ["scaled", "causal", "query", "key"].forEach((name) => model.on(`change:${name}`, update));
  update();
}

export default { render };
