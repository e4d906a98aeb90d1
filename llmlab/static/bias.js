// The bias figure: for one model at a time, each measure with its interval and its single pairs, beside zero.
import { buttonGroup, liveText } from "./controls.js";
import { chooser, clampIndex, counted, h, svg, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/bias.test.js

// the ends of the axis: all marks of all models, and zero, with a little air,
// so that choosing a model moves the marks and not the axis
export function extent(marks) {
  const every = [0, ...marks.flat().flatMap((m) => [m.low, m.high, m.at, ...m.points])];
  const low = Math.min(...every);
  const high = Math.max(...every);
  const air = 0.05 * (high - low || 1);
  return [low - air, high + air];
}

// round numbers inside [low, high], about n of them
export function ticks(low, high, n = 6) {
  const raw = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= raw);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

export const fixed = (x) =>
  (Math.abs(x) < 5e-5 ? "0.00" : x.toFixed(Math.abs(x) < 0.05 ? 4 : 2)).replace("-", "−");
export const chance = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);
export const holdsZero = (m) => m.low <= 0 && m.high >= 0;

const TALL = 46; // pixels a measure

// where things stand in a picture this wide: a row a measure over the axis from `low` to `high`
export function chartLayout(width, measures, [low, high]) {
  const height = TALL * measures + 44;
  const [left, right] = [12, width - 12];
  return {
    width,
    height,
    left,
    right,
    floor: height - 34,
    x: (v) => left + ((v - low) / (high - low)) * (right - left),
    y: (i) => TALL * i + 30,
    ticks: ticks(low, high, width > 500 ? 8 : 4),
  };
}

export function summary(model, measure, m, unit) {
  const pairs = m.points.length ? ` over ${counted(m.points.length, "pair")}` : "";
  const mean = `${model}, ${measure}: ${fixed(m.at)} ${unit}${pairs}`;
  const zero = holdsZero(m) ? "with 0 inside" : "without 0 inside";
  const interval = `95 % interval ${fixed(m.low)} to ${fixed(m.high)}, ${zero}`;
  return `${mean}, ${interval}; ${chance(m.p)} (Holm).`;
}

// ---- drawing

function drawAxis({ x, height, right, floor, ticks: numbers }, name) {
  const nodes = [];
  for (const t of numbers) {
    const place = { x: x(t), y: floor + 14, "text-anchor": "middle" };
    nodes.push(svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: 4, y2: floor }));
    nodes.push(svg("text", place, String(t).replace("-", "−")));
  }
  nodes.push(svg("line", { class: "rule", x1: x(0), x2: x(0), y1: 4, y2: floor }));
  nodes.push(svg("text", { class: "axis", x: right, y: height - 4, "text-anchor": "end" }, name));
  return nodes;
}

// one measure: its name, a point a pair, the interval as a line, the mean as a diamond
function drawMeasure(m, name, y, { x, left, width }) {
  const colour = holdsZero(m) ? "var(--c5)" : "var(--c1)";
  const ground = { class: "ground", x: 1, y: y - 26, width: width - 2, height: TALL - 2, rx: 5 };
  const pairs = m.points.map((p) =>
    svg("circle", { class: "pair", cx: x(p), cy: y + 4, r: 3.5, style: `fill:${colour}` }),
  );
  const ends = { x1: x(m.low), x2: x(m.high), y1: y + 4, y2: y + 4 };
  const diamond = `M${x(m.at)} ${y - 3}l6 7l-6 7l-6 -7z`;
  return [
    svg("rect", ground),
    svg("text", { class: "name", x: left, y: y - 12 }, name),
    ...pairs,
    svg("line", { ...ends, style: `stroke:${colour};stroke-width:3` }),
    svg("path", { class: "mean", d: diamond, style: `fill:${colour}` }),
  ];
}

function render({ model, el }) {
  const { models, measures, marks, unit, zero } = model.get("data");
  const say = liveText();
  const choose = chooser(model);
  const corpora = buttonGroup("corpus", models, (i) => choose({ model: i }));
  const rows = buttonGroup("measure", measures, (i) => choose({ measure: i }));
  const chart = h("div", { className: "chart" });
  const ends = extent(marks);
  el.classList.add("llmlab");
  el.append(corpora.node, rows.node, chart, say);

  function draw() {
    const at = clampIndex(model.get("model"), models.length);
    const here = clampIndex(model.get("measure"), measures.length);
    const layout = chartLayout(Math.max(280, chart.clientWidth || 640), measures.length, ends);
    const { width, height } = layout;
    say.textContent = summary(models[at], measures[here], marks[at][here], unit);
    corpora.mark(at);
    rows.mark(here);
    const label = `Measures with intervals. ${say.textContent}`;
    const viewBox = `0 0 ${width} ${height}`;
    const drawing = svg("svg", { width, height, viewBox, role: "img", "aria-label": label });
    drawing.append(...drawAxis(layout, `${unit}; ${zero}`));
    marks[at].forEach((m, i) => {
      const nodes = drawMeasure(m, measures[i], layout.y(i), layout);
      const row = svg("g", { class: i === here ? "effect asked" : "effect" }, ...nodes);
      row.addEventListener("click", () => choose({ measure: i }));
      drawing.append(row);
    });
    chart.replaceChildren(drawing);
  }
  tools(el, model, "bias");
  for (const name of ["model", "measure"]) model.on(`change:${name}`, draw);
  const resized = new ResizeObserver(draw);
  resized.observe(chart);
  draw();
  return () => resized.disconnect();
}

export default { render };
