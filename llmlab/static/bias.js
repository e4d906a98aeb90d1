// The bias figure: for one model at a time, each measure with its interval and its single pairs, beside zero.
import { chooser, clampIndex, counted, h, press, rove, svg, tools } from "./dom.js";

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

export function summary(model, measure, m, unit) {
  const pairs = m.points.length ? ` over ${counted(m.points.length, "pair")}` : "";
  const mean = `${model}, ${measure}: ${fixed(m.at)} ${unit}${pairs}`;
  const zero = holdsZero(m) ? "with 0 inside" : "without 0 inside";
  const interval = `95 % interval ${fixed(m.low)} to ${fixed(m.high)}, ${zero}`;
  return `${mean}, ${interval}; ${chance(m.p)} (Holm).`;
}

// ---- drawing

function render({ model, el }) {
  const { models, measures, marks, unit, zero } = model.get("data");
  const say = h("p", { className: "say", "aria-live": "polite" });
  const choose = chooser(model);
  const group = (label, names, trait) => {
    const buttons = names.map((name, i) =>
      h("button", { onclick: () => choose({ [trait]: i }) }, name),
    );
    const row = h(
      "div",
      { className: "bar", role: "group", "aria-label": label },
      h("span", { className: "quiet" }, label),
      ...buttons,
    );
    rove(row, () => 1);
    return { buttons, row };
  };
  const chosen = group("corpus", models, "model");
  const asked = group("measure", measures, "row");
  const chart = h("div", { className: "chart" });
  const [low, high] = extent(marks);
  el.classList.add("llmlab");
  el.append(chosen.row, asked.row, chart, say);

  function draw() {
    const at = clampIndex(model.get("model"), models.length);
    const here = clampIndex(model.get("row"), measures.length);
    const width = Math.max(280, chart.clientWidth || 640);
    const tall = 46;
    const height = tall * measures.length + 44;
    const left = 12;
    const right = width - 12;
    const x = (v) => left + ((v - low) / (high - low)) * (right - left);
    const floor = height - 34;
    say.textContent = summary(models[at], measures[here], marks[at][here], unit);
    for (const [{ buttons }, now] of [
      [chosen, at],
      [asked, here],
    ]) {
      buttons.forEach((b, i) => press(b, i === now));
    }
    const image = svg("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Measures with intervals. ${say.textContent}`,
    });
    for (const t of ticks(low, high, width > 500 ? 8 : 4)) {
      image.append(
        svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: 4, y2: floor }),
        svg(
          "text",
          { x: x(t), y: floor + 14, "text-anchor": "middle" },
          String(t).replace("-", "−"),
        ),
      );
    }
    image.append(
      svg("line", { class: "rule", x1: x(0), x2: x(0), y1: 4, y2: floor }),
      svg(
        "text",
        { class: "axis", x: right, y: height - 4, "text-anchor": "end" },
        `${unit}; ${zero}`,
      ),
    );
    marks[at].forEach((m, i) => {
      const y = tall * i + 30;
      const colour = holdsZero(m) ? "var(--c5)" : "var(--c1)";
      const row = svg("g", { class: i === here ? "effect asked" : "effect" });
      row.append(
        svg("rect", {
          class: "ground",
          x: 1,
          y: y - 26,
          width: width - 2,
          height: tall - 2,
          rx: 5,
        }),
        svg("text", { class: "name", x: left, y: y - 12 }, measures[i]),
      );
      for (const p of m.points) {
        row.append(
          svg("circle", { class: "pair", cx: x(p), cy: y + 4, r: 3.5, style: `fill:${colour}` }),
        );
      }
      row.append(
        svg("line", {
          x1: x(m.low),
          x2: x(m.high),
          y1: y + 4,
          y2: y + 4,
          style: `stroke:${colour};stroke-width:3`,
        }),
        svg("path", {
          class: "mean",
          d: `M${x(m.at)} ${y - 3}l6 7l-6 7l-6 -7z`,
          style: `fill:${colour}`,
        }),
      );
      row.addEventListener("click", () => choose({ row: i }));
      image.append(row);
    });
    chart.replaceChildren(image);
  }
  tools(el, model, "bias");
  model.on("change:model", draw);
  model.on("change:row", draw);
  const resized = new ResizeObserver(draw);
  resized.observe(chart);
  draw();
  return () => resized.disconnect();
}

export default { render };
