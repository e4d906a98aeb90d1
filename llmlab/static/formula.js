// The formula figure: softmax(QKᵀ/√d)V on a few tokens, every number on the page and open to change.
import { chooser, clampIndex, h, svg, tint, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/formula.test.js

export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

export function softmax(row) {
  const top = Math.max(...row.filter((x) => x !== null));
  const powers = row.map((x) => (x === null ? 0 : Math.exp(x - top)));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

// the mean of the values, weighted
const mix = (weights, v) =>
  v[0].map((_, column) => weights.reduce((sum, w, j) => sum + w * v[j][column], 0));

// every step of attention; null stands for −∞, a key that the mask hides
export function compute(q, k, v, { scaled, causal }) {
  const divisor = scaled ? Math.sqrt(q[0].length) : 1;
  const scores = q.map((query) => k.map((key) => dot(query, key)));
  const divided = scores.map((row) => row.map((x) => x / divisor));
  const masked = divided.map((row, i) => row.map((x, j) => (causal && j > i ? null : x)));
  const weights = masked.map(softmax);
  const output = weights.map((row) => mix(row, v));
  return { scores, divided, masked, weights, output };
}

// two digits, for a table
export function number(x) {
  if (x === null) return "−∞";
  const digits = x.toFixed(2);
  return digits === "-0.00" ? "0.00" : digits.replace("-", "−");
}
// as many digits as were given, for a formula; a negative factor in brackets
const brief = (x) => String(Math.round(x * 1e4) / 1e4).replace("-", "−");
const factor = (x) => (x < 0 ? `(${brief(x)})` : brief(x));

// one score and one output row, written out
export function worked(q, k, v, steps, state, tokens) {
  return [workedScore(q, k, steps, state, tokens), workedOutput(v, steps, state, tokens)];
}

function workedScore(q, k, steps, { query, key, scaled }, tokens) {
  const products = q[query].map((x, i) => `${factor(x)}·${factor(k[key][i])}`);
  const score = `${products.join(" + ")} = ${number(steps.scores[query][key])}`;
  const d = q[0].length;
  const quotient = number(steps.divided[query][key]);
  const division = scaled ? `, divided by √${d} = ${number(Math.sqrt(d))}: ${quotient}` : "";
  const mask = steps.masked[query][key] === null ? "; the mask hides this key: −∞" : "";
  const weight = number(steps.weights[query][key]);
  const names = `score of “${tokens[query]}” for “${tokens[key]}”`;
  return `${names} = ${score}${division}${mask}; softmax over the row gives the weight ${weight}.`;
}

function workedOutput(v, steps, { query }, tokens) {
  const terms = steps.weights[query].map((weight, j) => {
    const value = v[j].map(brief).join(", ");
    return `${number(weight)}·[${value}]`;
  });
  const output = steps.output[query].map(number).join(", ");
  return `output of “${tokens[query]}” = ${terms.join(" + ")} = [${output}].`;
}

// the plane of the first two numbers: 0 in the middle, `most` near the edge;
// and back, in steps of 0.1
const MARGIN = 14;
export const toPlane = (x, most, side) => side / 2 + (x / most) * (side / 2 - MARGIN);
export function fromPlane(px, most, side) {
  const share = (px - side / 2) / (side / 2 - MARGIN);
  return Math.round(10 * share * most) / 10 + 0;
}

// the largest number that the plane shows: a little more than the largest given
export function planeEnd(q, k) {
  const drawn = [...q, ...k].flatMap((row) => row.slice(0, 2));
  return 1.15 * Math.max(2, ...drawn.map(Math.abs));
}

// ---- drawing: what the reader changes lives in `figure` = { model, tokens, x, update, … }

const SIDE = 210; // of the plane, in pixels
const MOST = 1000; // a number that a reader may type

// a table with a row for each token; `cells(i)` makes those of a row, `head` names the columns
function stepTable(title, tokens, head, cells, kind) {
  const named = head === tokens;
  const columns = (head ?? []).map((name, i) => {
    return h("th", { className: "tok", ...(named ? { "data-t": i } : {}) }, name);
  });
  const headRow = head ? [h("tr", {}, h("td"), ...columns)] : [];
  const rows = tokens.map((token, i) => {
    return h("tr", {}, h("th", { className: "tok", "data-t": i }, token), ...cells(i));
  });
  return h(
    "div",
    { className: `step ${kind}` },
    h("div", { className: "title" }, title),
    h("table", { "aria-label": title }, ...headRow, ...rows),
  );
}

// a field for one number of q, k or v
function numberField(figure, name, i, column) {
  const row = () => figure.x[name][i];
  const place = () => `${figure.tokens[i]}, number ${column + 1}`;
  const input = h("input", {
    type: "number",
    step: 0.5,
    value: row()[column],
    "aria-label": `${name} of ${place()}`,
  });
  input.oninput = () => {
    const fine = Math.abs(input.valueAsNumber) <= MOST; // false for an empty field, too
    input.setAttribute("aria-invalid", !fine);
    if (fine) row()[column] = input.valueAsNumber;
    figure.update();
    if (!fine) {
      const field = `${name} of “${figure.tokens[i]}”, number ${column + 1}`;
      const todo = `give a number from −${MOST} to ${MOST}`;
      figure.warn(`${field}: ${todo}. Until then ${brief(row()[column])} counts.`);
    }
  };
  input.onblur = () => {
    input.value = row()[column];
    input.removeAttribute("aria-invalid");
  };
  return input;
}

// q, k and v as tables to type in
function inputTables(figure) {
  return ["q", "k", "v"].map((name) => {
    const cells = (i) =>
      figure.x[name][i].map((_, column) => h("td", {}, numberField(figure, name, i, column)));
    const title = `${name.toUpperCase()} · one row a token`;
    return stepTable(title, figure.tokens, null, cells, "given");
  });
}

// the tables of what follows; a click chooses the query and the key of a cell
function resultTables({ tokens, choose, x }) {
  const pairs = (title, name) => {
    const cells = (i) =>
      tokens.map((_, j) => h("td", { onclick: () => choose({ query: i, key: j }) }));
    return stepTable(title, tokens, tokens, cells, `found ${name}`);
  };
  const columns = x.v[0].map((_, column) => `${column + 1}`);
  const outputCells = (i) => columns.map(() => h("td", { onclick: () => choose({ query: i }) }));
  return {
    scores: pairs("1 · scores Q Kᵀ", "scores"),
    divided: pairs("2 · divided", "divided"),
    masked: pairs("3 · masked", "masked"),
    weights: pairs("4 · weights (softmax)", "weights"),
    output: stepTable("5 · output", tokens, columns, outputCells, "found output"),
  };
}

// a group of buttons, one a token
function tokenPicker({ tokens, choose }, label) {
  const buttons = tokens.map((token, i) => {
    const props = { className: "tok", role: "radio", "data-t": i };
    return h("button", { ...props, onclick: () => choose({ [label]: i }) }, token);
  });
  return h(
    "div",
    { className: "bar", role: "radiogroup", "aria-label": label },
    h("span", { className: "quiet" }, label),
    ...buttons,
  );
}

function checkbox({ choose }, label, name) {
  const box = h("input", { type: "checkbox" });
  box.onchange = () => choose({ [name]: box.checked });
  return h("label", {}, box, label);
}

// fields for the names of the tokens
function nameFields(figure) {
  const fields = figure.tokens.map((token, i) => {
    const field = h("input", {
      className: "tok",
      value: token,
      "aria-label": `name of token ${i + 1}`,
    });
    field.oninput = () => {
      figure.tokens[i] = field.value;
      figure.rename();
      figure.update();
    };
    return field;
  });
  const label = h("span", { className: "quiet" }, "tokens");
  return h("div", { className: "bar names" }, label, ...fields);
}

// which way an arrow key moves the end of a vector
const MOVES = {
  ArrowLeft: [-0.1, 0],
  ArrowRight: [0.1, 0],
  ArrowUp: [0, 0.1],
  ArrowDown: [0, -0.1],
};

function setAttributes(node, values) {
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
}

// one vector as an arrow that can be dragged, or moved with the arrow keys:
// q of the chosen query (`i` is null), or k of one token
function vectorArrow(figure, plane, most, name, i) {
  const token = () => i ?? figure.state().query;
  const row = () => figure.x[name][token()];
  const isQuery = i === null;
  const line = svg("line", { class: name });
  const label = svg("text", { class: "mark" });
  const knob = svg("circle", {
    r: isQuery ? 11 : 7,
    tabindex: 0,
    role: "application",
    class: name,
  });
  const rounded = (x) => Math.max(-most, Math.min(most, Math.round(10 * x) / 10));
  const move = (first, second) => {
    row()[0] = rounded(first);
    row()[1] = rounded(second);
    figure.fill();
    figure.update();
  };
  knob.addEventListener("pointerdown", (event) => {
    knob.setPointerCapture(event.pointerId);
    event.preventDefault();
    knob.focus();
  });
  knob.addEventListener("pointermove", (event) => {
    if (!knob.hasPointerCapture(event.pointerId)) return;
    const box = plane.getBoundingClientRect();
    const scale = SIDE / box.width;
    const across = fromPlane((event.clientX - box.left) * scale, most, SIDE);
    const down = fromPlane((event.clientY - box.top) * scale, most, SIDE);
    move(across, -down);
  });
  knob.addEventListener("keydown", (event) => {
    const step = MOVES[event.key];
    if (!step) return;
    event.preventDefault();
    move(row()[0] + step[0], row()[1] + step[1]);
  });
  function place() {
    const [first, second] = row();
    const px = toPlane(first, most, SIDE);
    const py = toPlane(-second, most, SIDE);
    const onTheRight = px > SIDE / 2;
    const word = figure.tokens[token()];
    const where = `${brief(first)}, ${brief(second)}`;
    setAttributes(line, { x1: SIDE / 2, y1: SIDE / 2, x2: px, y2: py });
    setAttributes(knob, {
      cx: px,
      cy: py,
      "aria-label": `${name} of ${word}: ${where}; arrows move it`,
    });
    setAttributes(label, {
      x: px + (onTheRight ? -13 : 13),
      y: py + (isQuery ? -8 : 12),
      "text-anchor": onTheRight ? "end" : "start",
    });
    label.textContent = `${name} ${[...word].slice(0, 8).join("")}`;
  }
  return { nodes: [line, knob, label], place };
}

// the plane with q of the query and k of every key; empty where vectors have one number only
function vectorPlane(figure) {
  const { q, k } = figure.x;
  const d = q[0].length;
  if (d < 2) return { nodes: [], place: () => {} };
  const most = planeEnd(q, k);
  const plane = svg("svg", { width: SIDE, height: SIDE, viewBox: `0 0 ${SIDE} ${SIDE}` });
  const arrows = [
    vectorArrow(figure, plane, most, "q", null),
    ...figure.tokens.map((_, i) => vectorArrow(figure, plane, most, "k", i)),
  ];
  const middle = SIDE / 2;
  plane.append(
    svg("line", { class: "gridline", x1: 0, x2: SIDE, y1: middle, y2: middle }),
    svg("line", { class: "gridline", y1: 0, y2: SIDE, x1: middle, x2: middle }),
    ...arrows.flatMap(({ nodes }) => nodes),
  );
  const title = `q of the query and all k${d > 2 ? ", first two numbers" : ""}: drag`;
  const step = h("div", { className: "step" }, h("div", { className: "title" }, title), plane);
  return { nodes: [step], place: () => arrows.forEach((arrow) => arrow.place()) };
}

// writes the numbers of one step into its table, and marks the chosen query and key
function fillResults(table, name, rows, { query, key }) {
  const width = rows[0].length;
  table.querySelectorAll("th ~ td").forEach((cell, at) => {
    const i = Math.floor(at / width);
    const j = at % width;
    const x = rows[i][j];
    cell.textContent = number(x);
    cell.classList.toggle("chosen", i === query);
    cell.classList.toggle("here", i === query && j === key && name !== "output");
    cell.classList.toggle("unseen", x === null);
    if (name === "weights") cell.style.background = tint("--chip", x);
  });
}

function markRow(table, chosen) {
  table.querySelectorAll("tr").forEach((row, i) => row.classList.toggle("chosen", i === chosen));
}

function markButton(group, chosen) {
  group
    .querySelectorAll("button")
    .forEach((button, i) => button.setAttribute("aria-checked", i === chosen));
}

function render({ model, el }) {
  const { tokens: givenTokens, ...given } = model.get("data");
  const d = given.q[0].length;
  const say = h("div", { className: "say worked", "aria-live": "polite" });
  const figure = {
    tokens: [...givenTokens],
    x: structuredClone(given), // q, k and v as the reader has changed them
    choose: chooser(model),
    state: () => ({
      scaled: model.get("scaled"),
      causal: model.get("causal"),
      query: clampIndex(model.get("query"), givenTokens.length),
      key: clampIndex(model.get("key"), givenTokens.length),
    }),
    update,
    warn: (text) => say.prepend(h("p", { className: "warning" }, text)),
    rename() {
      for (const node of el.querySelectorAll("[data-t]")) {
        node.textContent = figure.tokens[node.dataset.t];
      }
    },
    fill() {
      const numbers = [figure.x.q, figure.x.k, figure.x.v].flat(2);
      el.querySelectorAll("td input").forEach((field, i) => (field.value = numbers[i]));
    },
  };
  const scaled = checkbox(figure, `divide by √${d}`, "scaled");
  const causal = checkbox(figure, "causal mask", "causal");
  const queries = tokenPicker(figure, "query");
  const keys = tokenPicker(figure, "key");
  const names = nameFields(figure);
  const inputs = inputTables(figure);
  const results = resultTables(figure);
  const plane = vectorPlane(figure);
  const reset = h("button", { onclick: startAgain }, "start again");

  function startAgain() {
    figure.x = structuredClone(given);
    figure.tokens.splice(0, figure.tokens.length, ...givenTokens);
    names.querySelectorAll("input").forEach((field, i) => (field.value = givenTokens[i]));
    figure.rename();
    figure.fill();
    update();
  }

  function update() {
    const { x, tokens } = figure;
    const state = figure.state();
    const steps = compute(x.q, x.k, x.v, state);
    scaled.firstChild.checked = state.scaled;
    causal.firstChild.checked = state.causal;
    const divided = `2 · divided by √${d} = ${number(Math.sqrt(d))}`;
    const title = (table) => table.querySelector(".title");
    title(results.divided).textContent = state.scaled ? divided : "2 · not divided";
    title(results.masked).textContent = state.causal ? "3 · later keys hidden" : "3 · no mask";
    for (const [name, rows] of Object.entries(steps)) {
      fillResults(results[name], name, rows, state);
    }
    const [qTable, kTable] = inputs;
    markRow(qTable, state.query);
    markRow(kTable, state.key);
    markButton(queries, state.query);
    markButton(keys, state.key);
    plane.place();
    const sentences = worked(x.q, x.k, x.v, steps, state, tokens);
    say.replaceChildren(...sentences.map((sentence) => h("p", {}, sentence)));
  }

  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar" }, scaled, causal, reset),
    h("div", { className: "bar" }, queries, keys),
    names,
    h("div", { className: "steps" }, ...inputs, ...plane.nodes),
    h("div", { className: "steps" }, ...Object.values(results)),
    say,
  );
  tools(el, model, "formula");
  for (const name of ["scaled", "causal", "query", "key"]) model.on(`change:${name}`, update);
  update();
}

export default { render };
