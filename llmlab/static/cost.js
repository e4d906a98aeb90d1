// The cost figure: a calculator for training and running a model, and the plane of sizes and tokens
// that a scaling law colours.
import { liveText } from "./controls.js";
import { chooser, clamp, clampIndex, h, svg, tint, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/cost.test.js

// everything that the figure reads out; s holds the state, the sizes as logarithms
export function compute({ models, gpus, overhead, grids, law }, s) {
  const m = models[s.model];
  const g = gpus[s.gpu];
  const tokens = 10 ** s.tokens;
  const t = Math.min(2 ** s.context, m.context);
  const flops = 3 * tokens * (m.flops + m.square * t);
  const hours = flops / (g.peak[0] * 1e12 * s.utilisation) / 3600;
  const kwh = overhead.map((x) => (hours * g.power[0] * x) / 1000);
  const carbon = Object.values(grids)[s.grid];
  const training = {
    weights: 2 * m.n,
    gradients: 2 * m.n,
    optimizer: 12 * m.n,
    activations: 2 * m.kept * t,
    logits: 4 * Math.min(t, 1024) * m.vocab,
  };
  const running = { weights: 2 * m.n, "key–value cache": 2 * m.cache * t };
  const need = (parts) =>
    Math.ceil(Object.values(parts).reduce((a, b) => a + b) / (0.9e9 * g.memory[0]));
  return {
    m,
    g,
    tokens,
    t,
    flops,
    hours,
    kwh,
    training,
    running,
    rule: flops / (6 * m.n * tokens),
    ratio: tokens / m.n,
    loss: loss(law, m.n, tokens),
    usd: g.price.map((x) => x * hours),
    kg: kwh.map((x) => (x * carbon) / 1e3),
    cards: [need(training), need(running)],
  };
}

export const loss = (l, n, tokens) => l.E + l.A / n ** l.alpha + l.B / tokens ** l.beta;

// the size and the tokens of the smallest loss for these FLOPs
export function optimum(l, flops) {
  const n =
    ((l.alpha * l.A) / (l.beta * l.B)) ** (1 / (l.alpha + l.beta)) *
    (flops / 6) ** (l.beta / (l.alpha + l.beta));
  return [n, flops / 6 / n];
}

const THOUSANDS = ["", "thousand", "million", "billion", "trillion"];

// 1234567 → 1.23 million; two or three digits, and no false precision
export function brief(x) {
  if (x < 10) return String(Number(x.toPrecision(2)));
  if (x < 1000) return x.toFixed(0);
  if (x >= 1e16) {
    const [a, b] = x.toExponential(1).split("e+");
    return `${a} · 10^${b}`;
  }
  const i = Math.min(4, Math.floor(Math.log10(Number(x.toPrecision(3))) / 3));
  return `${Number((x / 1000 ** i).toPrecision(3))} ${THOUSANDS[i]}`;
}
export const between = ([a, b]) =>
  brief(a) === brief(b) ? brief(a) : `${brief(a)} to ${brief(b)}`;
export const gb = (bytes) =>
  bytes >= 1e12 ? `${brief(bytes / 1e12)} TB` : `${brief(bytes / 1e9)} GB`;

// tokens at which a model of n parameters reaches this loss; NaN where none suffice
export const contour = (l, n, level) => (l.B / (level - l.E - l.A / n ** l.alpha)) ** (1 / l.beta);

// where names stand beside their points: the first free place of four, or none;
// boxes are [left, top, right, bottom]
export function place(points, width, taken = []) {
  return points.map(([name, x, y]) => {
    const long = 6.1 * name.length;
    const spots = [
      [7, 4, "start"],
      [-7, 4, "end"],
      [0, -10, "middle"],
      [0, 18, "middle"],
    ];
    for (const [dx, dy, anchor] of spots) {
      const left = x + dx - { start: 0, end: long, middle: long / 2 }[anchor];
      const box = [left, y + dy - 10, left + long, y + dy + 3];
      if (
        left < 54 ||
        box[2] > width ||
        taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])
      ) {
        continue;
      }
      taken.push(box);
      return { dx, dy, anchor };
    }
    return null;
  });
}

export function summary(r) {
  const [training, running] = r.cards;
  const tokens = `${brief(r.tokens)} tokens (${brief(r.ratio)} a parameter)`;
  const time = `${brief(r.flops)} FLOPs, ${brief(r.hours)} hours of one ${r.g.name}`;
  const price = `${between(r.usd)} USD, ${between(r.kwh)} kWh`;
  const memory = `Training needs ${training} of them for its memory alone, running needs ${running}`;
  return `${r.m.name} on ${tokens}: ${time}, ${price}. ${memory}.`;
}

// ---- drawing: `figure` = { data, state, set, … } is what the parts of the figure share

const X = [7, 12.5]; // powers of ten of the parameters
const Y = [8, 14]; // powers of ten of the training tokens
const STATE = ["model", "gpu", "grid", "tokens", "context", "utilisation"];
const LEVELS = [4, 3, 2.6, 2.3, 2.1, 2, 1.9]; // losses that have a line
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

// the state, with what a link or Python set out of range put at its nearest end
function readState(model, data) {
  const lengths = {
    model: data.models.length,
    gpu: data.gpus.length,
    grid: Object.keys(data.grids).length,
  };
  const ranges = { tokens: Y, context: [7, 17], utilisation: [0.05, 0.6] };
  const state = {};
  for (const [name, n] of Object.entries(lengths)) state[name] = clampIndex(model.get(name), n);
  for (const [name, range] of Object.entries(ranges))
    state[name] = clamp(model.get(name), ...range);
  return state;
}

function choice({ set }, label, name, options) {
  const select = h("select", { "aria-label": label }, ...options.map((x) => h("option", {}, x)));
  select.onchange = () => set({ [name]: select.selectedIndex });
  return h("label", {}, label, select);
}

function slider({ set }, label, name, [min, max], step) {
  const input = h("input", { type: "range", min, max, step, "aria-label": label });
  input.oninput = () => set({ [name]: input.valueAsNumber });
  return h("label", {}, label, input, h("output"));
}

// one bar of memory, its parts side by side, and a mark at the GPU's end; `top` bytes fill it
function memoryBar(title, parts, top, gpu, cards) {
  const percentOf = (bytes) => `${(100 * bytes) / top}%`;
  const track = h("div", { className: "track" });
  const key = h("div", { className: "parts" });
  let from = 0;
  Object.entries(parts).forEach(([name, bytes], i) => {
    const colour = `var(--c${i})`;
    const part = h("i", { title: `${name}: ${gb(bytes)}` });
    const place = `left:${percentOf(from)};width:${percentOf(bytes)};right:auto`;
    part.style.cssText = `${place};border-radius:0;background:${colour}`;
    track.append(part);
    const dot = h("i");
    dot.style.background = colour;
    key.append(h("span", {}, dot, `${name} ${gb(bytes)}`));
    from += bytes;
  });
  const capacity = 1e9 * gpu.memory[0];
  if (capacity <= top) {
    const end = h("b", { className: "edge", title: `the end of one ${gpu.name}` });
    end.style.left = percentOf(capacity);
    track.append(end);
  }
  const total = gb(sum(Object.values(parts)));
  const heading = h("div", { className: "title" }, `${title}: ${total}, ${cards} × ${gpu.name}`);
  return h("div", {}, heading, track, key);
}

// where parameters and tokens stand on a plane of this width, and back
function planeScale(width) {
  const height = Math.min(360, 140 + width * 0.32);
  const box = { left: 64, right: width - 12, top: 10, bottom: height - 38 };
  const across = (box.right - box.left) / (X[1] - X[0]); // pixels a power of ten
  const upward = (box.bottom - box.top) / (Y[1] - Y[0]);
  return {
    width,
    height,
    box,
    x: (n) => box.left + (Math.log10(n) - X[0]) * across,
    y: (d) => box.bottom - (Math.log10(d) - Y[0]) * upward,
    powers: (px, py) => [X[0] + (px - box.left) / across, Y[0] + (box.bottom - py) / upward],
  };
}

// the ground of the plane: the lower the loss, the stronger the colour
function lossCells(law, { box, powers }) {
  const columns = 36;
  const rows = 24;
  const width = (box.right - box.left) / columns;
  const height = (box.bottom - box.top) / rows;
  const worst = loss(law, 10 ** X[0], 10 ** Y[0]) - law.E;
  const cells = [];
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < rows; j++) {
      const x = box.left + i * width;
      const y = box.top + j * height;
      const [n, d] = powers(x + width / 2, y + height / 2).map((power) => 10 ** power);
      const excess = (loss(law, n, d) - law.E) / worst;
      const share = 0.7 * (1 - Math.log(1 + 30 * excess) / Math.log(31));
      const style = `fill:${tint("--chip", share)}`;
      // a little larger than its place, so that no seam shows
      cells.push(svg("rect", { x, y, width: width + 0.6, height: height + 0.6, style }));
    }
  }
  return cells;
}

// the numbers and names on both axes
function axisLabels({ width, height, box, x, y }) {
  const labels = [];
  for (let power = X[0]; power <= X[1]; power += width > 500 ? 1 : 2) {
    const place = { x: x(10 ** power), y: box.bottom + 16, "text-anchor": "middle" };
    labels.push(svg("text", place, `10^${power}`));
  }
  for (let power = Y[0]; power <= Y[1]; power++) {
    const place = { x: box.left - 7, y: y(10 ** power) + 4, "text-anchor": "end" };
    labels.push(svg("text", place, `10^${power}`));
  }
  const middle = height / 2;
  const below = { class: "axis", x: box.right, y: height - 5, "text-anchor": "end" };
  const beside = { class: "axis", x: 13, y: middle, "text-anchor": "middle" };
  labels.push(svg("text", below, "parameters"));
  labels.push(svg("text", { ...beside, transform: `rotate(-90 13 ${middle})` }, "training tokens"));
  return labels;
}

const onPlane = ([n, d]) =>
  n >= 10 ** X[0] && n <= 10 ** X[1] && d >= 10 ** Y[0] && d <= 10 ** Y[1];

// a line through those of the points [n, d] that lie on the plane; none where there is only one
function planeLine(points, kind, { x, y }) {
  const kept = points.filter(onPlane);
  if (kept.length < 2) return [];
  const corners = kept.map(([n, d]) => `${x(n).toFixed(1)} ${y(d).toFixed(1)}`);
  return [svg("path", { class: kind, d: `M${corners.join("L")}` })];
}

// lines of equal loss with their numbers, the line of this budget, and the best sizes
function planeLines(law, budget, scale) {
  const { width, x, y } = scale;
  const sizes = Array.from({ length: 111 }, (_, i) => 10 ** (X[0] + (i / 110) * (X[1] - X[0])));
  const nodes = [];
  for (const level of LEVELS) {
    const points = sizes.map((n) => [n, contour(law, n, level)]);
    const line = planeLine(points, "level", scale);
    nodes.push(...line);
    if (line.length && width > 500) {
      const [n, d] = points.find(onPlane);
      const place = { class: "quiet", x: x(n) + 3, y: Math.max(y(d) + 11, 22) };
      nodes.push(svg("text", place, String(level)));
    }
  }
  const equalBudget = sizes.map((n) => [n, budget / n]);
  const flops = Array.from({ length: 60 }, (_, i) => 10 ** (15 + i * 0.25));
  const bestSizes = flops.map((x) => optimum(law, x));
  nodes.push(...planeLine(equalBudget, "budget", scale));
  nodes.push(...planeLine(bestSizes, "best", scale));
  return nodes;
}

// the published models as points, with their names where there is room
function publishedRuns({ runs, law }, { width, x, y }) {
  const points = Object.entries(runs).map(([name, [n, d]]) => [name, x(n), y(d), n, d]);
  points.sort((a, b) => a[1] - b[1]);
  const taken = points.map(([, px, py]) => [px - 4, py - 4, px + 4, py + 4]);
  const spots = place(points, width - 8, taken);
  const nodes = [];
  points.forEach(([name, px, py, n, d], i) => {
    const size = `${brief(n)} parameters, ${brief(d)} tokens`;
    const told = `${name}: ${size}, loss ${loss(law, n, d).toFixed(2)}`;
    nodes.push(svg("circle", { class: "run", cx: px, cy: py, r: 3.5 }, svg("title", {}, told)));
    const spot = spots[i];
    if (spot) {
      const at = { x: px + spot.dx, y: py + spot.dy, "text-anchor": spot.anchor };
      nodes.push(svg("text", { class: "name", ...at }, name));
    }
  });
  return nodes;
}

// the plane of parameters and training tokens; a click chooses the nearest model and its tokens
function drawPlane({ data, set, chart, say }, r) {
  const scale = planeScale(Math.max(280, chart.clientWidth || 600));
  const { width, height } = scale;
  const drawing = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `The plane of parameters and training tokens. ${say.textContent}`,
  });
  drawing.append(
    ...lossCells(data.law, scale),
    ...axisLabels(scale),
    ...planeLines(data.law, r.m.n * r.tokens, scale),
    ...publishedRuns(data, scale),
    svg("circle", { class: "here", cx: scale.x(r.m.n), cy: scale.y(r.tokens), r: 7 }),
  );
  drawing.addEventListener("click", (event) => {
    const at = drawing.getBoundingClientRect();
    const [x, y] = scale.powers(event.clientX - at.left, event.clientY - at.top);
    const far = data.models.map((m) => Math.abs(Math.log10(m.n) - x));
    const tokens = clamp(Math.round(10 * y) / 10, ...Y);
    set({ model: far.indexOf(Math.min(...far)), tokens });
  });
  chart.replaceChildren(drawing);
}

// what was computed, as [name, value]
function facts(r) {
  return [
    ["parameters", brief(r.m.n)],
    ["tokens a parameter", brief(r.ratio)],
    ["FLOPs", brief(r.flops)],
    ["against 6ND", `× ${r.rule.toFixed(2)}`],
    ["loss by the law", `${r.loss.toFixed(2)} nats`],
    ["GPU hours", brief(r.hours)],
    ["USD", between(r.usd)],
    ["kWh", between(r.kwh)],
    ["kg CO₂", between(r.kg)],
  ];
}

function showSlider(node, value, text) {
  const [input, output] = node.children;
  input.value = value;
  input.setAttribute("aria-valuetext", text);
  output.textContent = text;
}

function render({ model, el }) {
  const data = model.get("data");
  const chart = h("div", { className: "chart" });
  const say = liveText();
  const figure = { data, set: chooser(model), chart, say };
  const names = (rows) => rows.map(({ name }) => name);
  const choices = {
    model: choice(figure, "model", "model", names(data.models)),
    gpu: choice(figure, "GPU", "gpu", names(data.gpus)),
    grid: choice(figure, "electricity of", "grid", Object.keys(data.grids)),
  };
  const sliders = {
    tokens: slider(figure, "training tokens", "tokens", Y, 0.1),
    context: slider(figure, "tokens in a sequence", "context", [7, 17], 1),
    utilisation: slider(figure, "utilisation", "utilisation", [0.05, 0.6], 0.05),
  };
  const found = h("div", { className: "found-cost" });
  const memory = h("div", { className: "memory" });
  const lines = "the best size for each budget (full), this budget (dashed)";
  const caption = `loss by the law; ${lines}, published models (points)`;
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar" }, ...Object.values(choices)),
    h("div", { className: "bar slides" }, ...Object.values(sliders)),
    found,
    memory,
    h("div", { className: "title" }, caption),
    chart,
    say,
  );

  function update() {
    const state = readState(model, data);
    const r = compute(data, state);
    for (const [name, node] of Object.entries(choices)) node.lastChild.selectedIndex = state[name];
    showSlider(sliders.tokens, state.tokens, brief(r.tokens));
    showSlider(sliders.context, state.context, String(r.t));
    showSlider(sliders.utilisation, state.utilisation, `${Math.round(100 * state.utilisation)} %`);
    const rows = facts(r).map(([name, value]) =>
      h("div", {}, h("span", {}, name), h("b", {}, value)),
    );
    found.replaceChildren(...rows);
    const totals = [r.training, r.running].map((parts) => sum(Object.values(parts)));
    const top = Math.max(...totals);
    memory.replaceChildren(
      memoryBar("to train, one sequence", r.training, top, r.g, r.cards[0]),
      memoryBar("to run, one sequence", r.running, top, r.g, r.cards[1]),
    );
    say.textContent = summary(r);
    drawPlane(figure, r);
  }
  tools(el, model, "cost");
  STATE.forEach((name) => model.on(`change:${name}`, update));
  update();
  const resized = new ResizeObserver(() =>
    drawPlane(figure, compute(data, readState(model, data))),
  );
  resized.observe(el);
  return () => resized.disconnect();
}

export default { render };
