// The curves figure: lines on common axes, with a legend, a scrubber and snapshots.
import { liveText } from "./controls.js";
import { chooser, h, svg, tint, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/curves.test.js

// which numbers of each power of ten have a tick, on an axis over so many of them
function tickFactors(powers) {
  if (powers > 2.5) return [1];
  return powers > 1 ? [1, 3] : [1, 2, 3, 5, 7];
}

// at most about `n` round numbers between low and high
export function ticks(low, high, log, n = 5) {
  if (log) {
    const decades = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of tickFactors(Math.log10(high / low))) decades.push(m * 10 ** e);
    }
    const inside = decades.filter((x) => x >= low * 0.9999 && x <= high * 1.0001);
    if (inside.length > 1) return inside;
  }
  const raw = (high - low || 1) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    out.push(i * step + 0);
  }
  return out;
}

// data → pixels
export function scale(low, high, from, to, log) {
  const f = log ? Math.log : (x) => x;
  const [a, b] = [f(low), f(high)];
  return (x) => from + (b === a ? 0.5 : (f(x) - a) / (b - a)) * (to - from);
}

// an SVG path with a gap wherever y is null
export function path(points, sx, sy) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (y === null) {
        pen = "M";
        return "";
      }
      const part = `${pen}${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

export const range = (values, pad = 0) => {
  const [a, b] = [Math.min(...values), Math.max(...values)];
  const p = (b - a) * pad || 0;
  return [a - p, b + p];
};
// a reading with three digits, and a tick without needless zeros
export function format(x) {
  if (x === null || x === undefined) return "–";
  if (Math.abs(x) >= 1e6 || (x && Math.abs(x) < 1e-3)) return x.toExponential(1);
  return Number.isInteger(x) ? String(x) : x.toPrecision(Math.abs(x) >= 1000 ? 5 : 3);
}
export const tick = (x) => (format(x).includes("e") ? format(x) : String(Number(x.toPrecision(6))));

// the last point at or before x, else the first
export const pointAt = (points, x) => points.filter(([a]) => a <= x).at(-1) ?? points[0];

export function summary(series, at, x, y) {
  const parts = Object.entries(series).map(
    ([name, points]) => `${name} ${format(pointAt(points, at)[1])}`,
  );
  return `${y} at ${x} ${format(at)}: ${parts.join(", ")}.`;
}

// ---- drawing

const DASHES = ["", "7 4", "2 3", "9 3 2 3", "12 4", "4 2"];
const COLOURS = 6; // of the style sheet: --c0 to --c5

const colourOf = (i) => `var(--c${i % COLOURS})`;
const axisName = (name, logarithmic) => `${name}${logarithmic ? " (logarithmic)" : ""}`;

// how the i-th curve is drawn: colour is not its only sign
function stroke(i) {
  return {
    style: `stroke:${colourOf(i)}`,
    "stroke-width": 2.2,
    "stroke-dasharray": DASHES[i % DASHES.length],
    fill: "none",
  };
}

// every x that a curve or a snapshot has, in order, each once
function places(series, snapshots) {
  const points = [...Object.values(series).flat(), ...snapshots];
  const xs = new Set(points.map(([x]) => x));
  return [...xs].sort((a, b) => a - b);
}

const nearest = (xs, distance) => xs.reduce((best, x) => (distance(x) < distance(best) ? x : best));

// the numbers of the axes and the lines across the chart, at these places
function gridLines({ box, sx, sy, xTicks, yTicks }) {
  const { left, right, top, bottom } = box;
  const nodes = [];
  for (const value of xTicks) {
    const x = sx(value);
    nodes.push(svg("line", { class: "gridline", x1: x, x2: x, y1: top, y2: bottom }));
    nodes.push(svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, tick(value)));
  }
  for (const value of yTicks) {
    const y = sy(value);
    nodes.push(svg("line", { class: "gridline", x1: left, x2: right, y1: y, y2: y }));
    nodes.push(svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, tick(value)));
  }
  return nodes;
}

function axisNames({ box, height }, { x, y, log_x, log_y }) {
  const middle = (box.top + box.bottom) / 2;
  const below = { class: "axis", x: box.right, y: height - 5, "text-anchor": "end" };
  const beside = { class: "axis", x: 13, y: middle, "text-anchor": "middle" };
  const turned = { ...beside, transform: `rotate(-90 13 ${middle})` };
  return [svg("text", below, axisName(x, log_x)), svg("text", turned, axisName(y, log_y))];
}

// where the chart lies in a figure of this width, and the scales of the curves that are shown
function chartLayout(width, xs, points, { log_x, log_y }) {
  const height = Math.min(330, 120 + width * 0.33);
  const ys = points.map(([, y]) => y).filter((y) => y !== null);
  const [lowX, highX] = range(xs);
  const [lowY, highY] = ys.length ? range(ys, log_y ? 0 : 0.06) : [0, 1];
  const xTicks = ticks(lowX, highX, log_x, width / 90);
  const yTicks = ticks(lowY, highY, log_y, height / 55);
  const longest = Math.max(...yTicks.map((value) => tick(value).length), 0);
  const left = Math.max(52, 31 + 6.5 * longest);
  const box = { left, right: width - 12, top: 10, bottom: height - 38 };
  const sx = scale(lowX, highX, box.left, box.right, log_x);
  const sy = scale(lowY, highY, box.bottom, box.top, log_y);
  return { width, height, box, sx, sy, xTicks, yTicks };
}

// the curves, their snapshots on the axis, and a rule with a point on each curve at `at`
function drawCurves({ series, snapshots }, shownNames, at, { box, sx, sy }) {
  const names = Object.keys(series);
  const nodes = [];
  for (const [x] of snapshots) {
    nodes.push(svg("circle", { class: "taken", cx: sx(x), cy: box.bottom, r: 3.5 }));
  }
  for (const name of shownNames) {
    nodes.push(svg("path", { d: path(series[name], sx, sy), ...stroke(names.indexOf(name)) }));
  }
  const x = sx(at);
  nodes.push(svg("line", { class: "rule", x1: x, x2: x, y1: box.top, y2: box.bottom }));
  for (const name of shownNames) {
    const [a, b] = pointAt(series[name], at);
    if (b === null) continue;
    const style = `fill:${colourOf(names.indexOf(name))}`;
    nodes.push(svg("circle", { cx: sx(a), cy: sy(b), r: 4.5, style }));
  }
  return nodes;
}

// a small matrix of a snapshot as tiles
function matrixTiles(rows) {
  const columns = rows[0].length;
  const top = Math.max(...rows.flat(), 1e-9);
  const tiles = rows.flat().map((w) => {
    if (w === null) return h("i", { title: "no number", className: "none" });
    const tile = h("i", { title: format(w), className: "" });
    tile.style.background = tint("--map2", Math.max(0, w) / top, "--map0");
    return tile;
  });
  const table = h(
    "div",
    { className: "tiles", role: "img", "aria-label": `a matrix, ${rows.length} by ${columns}` },
    ...tiles,
  );
  table.style.gridTemplateColumns = `repeat(${columns}, minmax(4px, 18px))`;
  return table;
}

function snapshotNodes(x, [at, content]) {
  const parts = content.map((part) =>
    typeof part === "string" ? h("p", { className: "tok" }, part) : matrixTiles(part),
  );
  return [h("div", { className: "title" }, `at ${x} ${format(at)}`), ...parts];
}

// a button of the legend: a sample of the line, the name, the reading
function legendKey(name, i, toggle) {
  const line = svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, ...stroke(i) });
  const sample = svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, line);
  const props = { "aria-pressed": "true", onclick: () => toggle(name) };
  return h("button", props, sample, h("span", {}, name), h("b"));
}

function render({ model, el }) {
  const data = model.get("data");
  const { series, snapshots, x, y } = data;
  const names = Object.keys(series);
  const xs = places(series, snapshots);
  const off = new Set(); // the curves that the reader took away
  const shownNames = () => names.filter((name) => !off.has(name));
  const at = () => nearest(xs, (a) => Math.abs(a - model.get("x")));
  const choose = chooser(model);

  const chart = h("div", { className: "chart" });
  const say = liveText();
  const shot = h("div", { className: "shot" });
  const where = h("output");
  const slider = h("input", {
    type: "range",
    min: 0,
    max: xs.length - 1,
    step: 1,
    "aria-label": x,
  });
  slider.oninput = () => choose({ x: xs[slider.valueAsNumber] });
  const keys = names.map((name, i) => legendKey(name, i, toggle));

  function toggle(name) {
    if (off.has(name)) off.delete(name);
    else if (off.size < names.length - 1) off.add(name);
    update();
  }

  function draw() {
    const width = Math.max(260, chart.clientWidth || 600);
    const points = shownNames().flatMap((name) => series[name]);
    const layout = chartLayout(width, xs, points, data);
    const { height, sx } = layout;
    const drawing = svg("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": say.textContent,
    });
    drawing.append(
      ...gridLines(layout),
      ...axisNames(layout, data),
      ...drawCurves(data, shownNames(), at(), layout),
    );
    const follow = (event) => {
      const px = event.clientX - drawing.getBoundingClientRect().left;
      choose({ x: nearest(xs, (a) => Math.abs(sx(a) - px)) });
    };
    drawing.addEventListener("pointermove", follow);
    drawing.addEventListener("pointerdown", follow);
    chart.replaceChildren(drawing);
  }

  function update() {
    const now = at();
    const seen = Object.fromEntries(shownNames().map((name) => [name, series[name]]));
    const part = `${names.length - off.size} of ${names.length} curves that are shown`;
    const fitted = off.size ? ` The vertical axis fits the ${part}.` : "";
    say.textContent = `${summary(seen, now, x, y)}${fitted}`;
    slider.value = xs.indexOf(now);
    slider.setAttribute("aria-valuetext", format(now));
    where.textContent = format(now);
    keys.forEach((key, i) => {
      key.setAttribute("aria-pressed", !off.has(names[i]));
      key.lastChild.textContent = format(pointAt(series[names[i]], now)[1]);
    });
    if (snapshots.length) shot.replaceChildren(...snapshotNodes(x, pointAt(snapshots, now)));
    draw();
  }

  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar keys" }, ...keys),
    chart,
    h("div", { className: "bar" }, h("label", {}, x, where), slider),
    ...(snapshots.length ? [shot] : []),
    say,
  );
  tools(el, model, "curves");
  model.on("change:x", update);
  update();
  const resized = new ResizeObserver(draw);
  resized.observe(el);
  return () => resized.disconnect();
}

export default { render };
