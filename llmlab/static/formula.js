// The formula figure: softmax(QKᵀ/√d)V on a few tokens, every number on the page and open to change.
import { chooser, h, svg, tools, within } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/formula.test.js

export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

export function softmax(row) {
  const top = Math.max(...row.filter((x) => x !== null));
  const powers = row.map((x) => (x === null ? 0 : Math.exp(x - top))),
    sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

// every step of attention; null stands for −∞, a key that the mask hides
export function compute(q, k, v, { scaled, causal }) {
  const scores = q.map((a) => k.map((b) => dot(a, b)));
  const divided = scores.map((row) => row.map((x) => (scaled ? x / Math.sqrt(q[0].length) : x)));
  const masked = divided.map((row, i) => row.map((x, j) => (causal && j > i ? null : x)));
  const weights = masked.map(softmax);
  const output = weights.map((row) =>
    v[0].map((_, c) => row.reduce((sum, w, j) => sum + w * v[j][c], 0)),
  );
  return { scores, divided, masked, weights, output };
}

export const number = (x) =>
  x === null
    ? "−∞"
    : x
        .toFixed(2)
        .replace(/^-0\.00$/, "0.00")
        .replace("-", "−");
const brief = (x) => String(Math.round(x * 1e4) / 1e4).replace("-", "−");
const inner = (x) => (x < 0 ? `(${brief(x)})` : brief(x));

// one score and one output row, written out
export function worked(q, k, v, steps, { query, key, scaled }, tokens) {
  const d = q[0].length,
    sum = q[query].map((x, c) => `${inner(x)}·${inner(k[key][c])}`).join(" + ");
  const value = steps.masked[query][key],
    weight = number(steps.weights[query][key]);
  const scale = scaled
    ? `, divided by √${d} = ${number(Math.sqrt(d))}: ${number(steps.divided[query][key])}`
    : "";
  const mask = value === null ? "; the mask hides this key: −∞" : "";
  const mix = steps.weights[query]
    .map((w, j) => `${number(w)}·[${v[j].map(brief).join(", ")}]`)
    .join(" + ");
  return [
    `score of “${tokens[query]}” for “${tokens[key]}” = ${sum} = ${number(steps.scores[query][key])}${scale}${mask}; softmax over the row gives the weight ${weight}.`,
    `output of “${tokens[query]}” = ${mix} = [${steps.output[query].map(number).join(", ")}].`,
  ];
}

// the plane of the first two numbers: 0 in the middle, `most` near the edge; and back, in steps of 0.1
export const toPlane = (x, most, side) => side / 2 + (x / most) * (side / 2 - 14);
export const fromPlane = (px, most, side) =>
  Math.round(10 * ((px - side / 2) / (side / 2 - 14)) * most) / 10 + 0;

// ---- drawing

const SIDE = 210,
  MOST = 1000;

function render({ model, el }) {
  const { tokens: first, ...given } = model.get("data"),
    tokens = [...first],
    d = given.q[0].length;
  let x = structuredClone(given);
  const state = () => ({
    scaled: model.get("scaled"),
    causal: model.get("causal"),
    query: within(model.get("query"), tokens.length),
    key: within(model.get("key"), tokens.length),
  });
  const choose = chooser(model);

  // a table of numbers; `cell` makes the content of one
  const table = (title, head, cell, kind) =>
    h(
      "div",
      { className: `step ${kind}` },
      h("div", { className: "title" }, title),
      h(
        "table",
        { "aria-label": title },
        ...(head
          ? [
              h(
                "tr",
                {},
                h("td"),
                ...head.map((name, i) =>
                  h("th", { className: "tok", ...(head === tokens ? { "data-t": i } : {}) }, name),
                ),
              ),
            ]
          : []),
        ...tokens.map((token, i) =>
          h("tr", {}, h("th", { className: "tok", "data-t": i }, token), ...cell(i)),
        ),
      ),
    );
  const inputs = ["q", "k", "v"].map((name) =>
    table(
      `${name.toUpperCase()} · one row a token`,
      null,
      (i) =>
        x[name][i].map((_, c) =>
          h(
            "td",
            {},
            h("input", {
              type: "number",
              step: 0.5,
              value: x[name][i][c],
              "aria-label": `${name} of ${tokens[i]}, number ${c + 1}`,
              oninput: ({ target }) => {
                const fine = Math.abs(target.valueAsNumber) <= MOST; // false for an empty field, too
                target.setAttribute("aria-invalid", !fine);
                if (fine) x[name][i][c] = target.valueAsNumber;
                update();
                if (!fine)
                  say.prepend(
                    h(
                      "p",
                      { className: "warning" },
                      `${name} of “${tokens[i]}”, number ${c + 1}: give a number from −1000 to 1000. Until then ${brief(x[name][i][c])} counts.`,
                    ),
                  );
              },
              onblur: ({ target }) => {
                target.value = x[name][i][c];
                target.removeAttribute("aria-invalid");
              },
            }),
          ),
        ),
      "given",
    ),
  );
  const result = (title, name, columns) =>
    table(
      title,
      columns ?? tokens,
      (i) =>
        (columns ?? tokens).map((_, j) =>
          h("td", {
            onclick: () => choose(columns ? { query: i } : { query: i, key: j }),
          }),
        ),
      `found ${name}`,
    );
  const results = {
    scores: result("1 · scores Q Kᵀ", "scores"),
    divided: result("2 · divided", "divided"),
    masked: result("3 · masked", "masked"),
    weights: result("4 · weights (softmax)", "weights"),
    output: result(
      "5 · output",
      "output",
      given.v[0].map((_, c) => `${c + 1}`),
    ),
  };

  const pick = (label, name) =>
    h(
      "div",
      { className: "bar", role: "radiogroup", "aria-label": label },
      h("span", { className: "quiet" }, label),
      ...tokens.map((token, i) =>
        h(
          "button",
          { className: "tok", role: "radio", "data-t": i, onclick: () => choose({ [name]: i }) },
          token,
        ),
      ),
    );
  const flag = (label, name) =>
    h(
      "label",
      {},
      h("input", {
        type: "checkbox",
        onchange: (event) => choose({ [name]: event.target.checked }),
      }),
      label,
    );
  const scaled = flag(`divide by √${d}`, "scaled"),
    causal = flag("causal mask", "causal");
  const rename = () =>
    el.querySelectorAll("[data-t]").forEach((node) => {
      node.textContent = tokens[node.dataset.t];
    });
  const names = h(
    "div",
    { className: "bar names" },
    h("span", { className: "quiet" }, "tokens"),
    ...tokens.map((token, i) =>
      h("input", {
        className: "tok",
        value: token,
        "aria-label": `name of token ${i + 1}`,
        oninput: (event) => {
          tokens[i] = event.target.value;
          rename();
          update();
        },
      }),
    ),
  );
  // q of the query and k of every key as arrows that can be dragged, or moved with the arrow keys
  const plane = svg("svg", { width: SIDE, height: SIDE, viewBox: `0 0 ${SIDE} ${SIDE}` }),
    most =
      Math.max(2, ...[...given.q, ...given.k].flatMap((row) => row.slice(0, 2)).map(Math.abs)) *
      1.15;
  const arrows = [["q", null], ...tokens.map((_, i) => ["k", i])].map(([name, i]) => {
    const row = () => x[name][i ?? state().query],
      set = (a, b) => {
        [row()[0], row()[1]] = [a, b].map((v) =>
          Math.max(-most, Math.min(most, Math.round(10 * v) / 10)),
        );
        fill();
        update();
      };
    const label = svg("text", { class: "mark" }),
      line = svg("line", { class: name }),
      knob = svg("circle", {
        r: i === null ? 11 : 7,
        tabindex: 0,
        role: "application",
        class: name,
      });
    knob.addEventListener("pointerdown", (event) => {
      knob.setPointerCapture(event.pointerId);
      event.preventDefault();
      knob.focus();
    });
    knob.addEventListener("pointermove", (event) => {
      if (!knob.hasPointerCapture(event.pointerId)) return;
      const box = plane.getBoundingClientRect(),
        scale = SIDE / box.width;
      set(
        fromPlane((event.clientX - box.left) * scale, most, SIDE),
        -fromPlane((event.clientY - box.top) * scale, most, SIDE),
      );
    });
    knob.addEventListener("keydown", (event) => {
      const step = {
        ArrowLeft: [-0.1, 0],
        ArrowRight: [0.1, 0],
        ArrowUp: [0, 0.1],
        ArrowDown: [0, -0.1],
      }[event.key];
      if (step) {
        event.preventDefault();
        set(row()[0] + step[0], row()[1] + step[1]);
      }
    });
    return {
      nodes: [line, knob, label],
      place() {
        const [px, py] = [toPlane(row()[0], most, SIDE), toPlane(-row()[1], most, SIDE)],
          token = tokens[i ?? state().query];
        for (const [node, values] of [
          [line, { x1: SIDE / 2, y1: SIDE / 2, x2: px, y2: py }],
          [
            knob,
            {
              cx: px,
              cy: py,
              "aria-label": `${name} of ${token}: ${brief(row()[0])}, ${brief(row()[1])}; arrows move it`,
            },
          ],
          [
            label,
            {
              x: px + (px > SIDE / 2 ? -13 : 13),
              y: py + (i === null ? -8 : 12),
              "text-anchor": px > SIDE / 2 ? "end" : "start",
            },
          ],
        ])
          for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
        label.textContent = `${name} ${[...token].slice(0, 8).join("")}`;
      },
    };
  });
  plane.append(
    svg("line", { class: "gridline", x1: 0, x2: SIDE, y1: SIDE / 2, y2: SIDE / 2 }),
    svg("line", { class: "gridline", y1: 0, y2: SIDE, x1: SIDE / 2, x2: SIDE / 2 }),
    ...arrows.map(({ nodes }) => nodes).flat(),
  );
  const fill = () =>
    el.querySelectorAll("td input").forEach((box, i) => {
      box.value = flat()[i];
    });
  const reset = h(
    "button",
    {
      onclick: () => {
        x = structuredClone(given);
        tokens.splice(0, tokens.length, ...first);
        rename();
        names.querySelectorAll("input").forEach((box, i) => {
          box.value = first[i];
        });
        fill();
        update();
      },
    },
    "start again",
  );
  const flat = () => [x.q, x.k, x.v].flat(2);
  const queries = pick("query", "query"),
    keys = pick("key", "key"),
    say = h("div", { className: "say worked", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar" }, scaled, causal, reset),
    h("div", { className: "bar" }, queries, keys),
    names,
    h(
      "div",
      { className: "steps" },
      ...inputs,
      ...(d < 2
        ? []
        : [
            h(
              "div",
              { className: "step" },
              h(
                "div",
                { className: "title" },
                `q of the query and all k${d > 2 ? ", first two numbers" : ""}: drag`,
              ),
              plane,
            ),
          ]),
    ),
    h("div", { className: "steps" }, ...Object.values(results)),
    say,
  );

  function update() {
    const s = state(),
      steps = compute(x.q, x.k, x.v, s);
    scaled.firstChild.checked = s.scaled;
    causal.firstChild.checked = s.causal;
    results.divided.querySelector(".title").textContent = s.scaled
      ? `2 · divided by √${d} = ${number(Math.sqrt(d))}`
      : "2 · not divided";
    results.masked.querySelector(".title").textContent = s.causal
      ? "3 · later keys hidden"
      : "3 · no mask";
    for (const [name, rows] of Object.entries(steps))
      results[name].querySelectorAll("th ~ td").forEach((cell, at) => {
        const width = rows[0].length,
          i = Math.floor(at / width),
          j = at % width;
        cell.textContent = number(rows[i][j]);
        cell.className = `${i === s.query ? "chosen" : ""} ${i === s.query && j === s.key && name !== "output" ? "here" : ""} ${rows[i][j] === null ? "unseen" : ""}`;
        if (name === "weights")
          cell.style.background = `color-mix(in srgb, var(--chip) ${Math.round(100 * rows[i][j])}%, var(--paper))`;
      });
    [
      [0, s.query],
      [1, s.key],
    ].forEach(([at, chosen]) =>
      inputs[at]
        .querySelectorAll("tr")
        .forEach((row, i) => row.classList.toggle("chosen", i === chosen)),
    );
    [
      [queries, s.query],
      [keys, s.key],
    ].forEach(([group, chosen]) =>
      group
        .querySelectorAll("button")
        .forEach((b, i) => b.setAttribute("aria-checked", i === chosen)),
    );
    if (d > 1) arrows.forEach(({ place }) => place());
    say.replaceChildren(...worked(x.q, x.k, x.v, steps, s, tokens).map((line) => h("p", {}, line)));
  }
  tools(el, model, "formula");
  ["scaled", "causal", "query", "key"].forEach((name) => model.on(`change:${name}`, update));
  update();
}

export default { render };
