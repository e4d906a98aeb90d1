// The curves figure: lines on common axes, with a legend, a scrubber and snapshots.
import { h, svg, tint, tools } from "./dom.js";

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

function render({ model, el }) {
  const { series, x, y, log_x, log_y, snapshots } = model.get("data");
  const names = Object.keys(series);
  const off = new Set();
  const xs = [
    ...new Set(
      Object.values(series)
        .flat()
        .map(([a]) => a)
        .concat(snapshots.map(([a]) => a)),
    ),
  ].sort((a, b) => a - b);
  const at = () =>
    xs.reduce((best, a) =>
      Math.abs(a - model.get("at")) < Math.abs(best - model.get("at")) ? a : best,
    );
  const go = (value) => {
    model.set("at", value);
    model.save_changes();
  };
  const chart = h("div", { className: "chart" });
  const say = h("p", { className: "say", "aria-live": "polite" });
  const shot = h("div", { className: "shot" });
  const slider = h("input", {
    type: "range",
    min: 0,
    max: xs.length - 1,
    step: 1,
    "aria-label": x,
    oninput: () => go(xs[slider.valueAsNumber]),
  });
  const where = h("output");
  const keys = names.map((name, i) => {
    const sample = svg(
      "svg",
      { width: 26, height: 10, "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, ...stroke(i) }),
    );
    return h(
      "button",
      {
        "aria-pressed": "true",
        onclick: () => {
          off.has(name) ? off.delete(name) : off.size < names.length - 1 && off.add(name);
          update();
        },
      },
      sample,
      h("span", {}, name),
      h("b"),
    );
  });
  function stroke(i) {
    return {
      style: `stroke:var(--c${i % 6})`,
      "stroke-width": 2.2,
      "stroke-dasharray": DASHES[i % 6],
      fill: "none",
    };
  }
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar keys" }, ...keys),
    chart,
    h("div", { className: "bar" }, h("label", {}, x, where), slider),
    ...(snapshots.length ? [shot] : []),
    say,
  );
  let sx;

  function draw() {
    const width = Math.max(260, chart.clientWidth || 600);
    const height = Math.min(330, 120 + width * 0.33);
    const seen = names.filter((name) => !off.has(name));
    const points = seen.flatMap((name) => series[name]).filter(([, b]) => b !== null);
    const [lowX, highX] = range(xs);
    const [lowY, highY] = points.length
      ? range(
          points.map(([, b]) => b),
          log_y ? 0 : 0.06,
        )
      : [0, 1];
    const marks = ticks(lowY, highY, log_y, height / 55);
    const wide = Math.max(...marks.map((v) => tick(v).length), 0);
    const box = {
      left: Math.max(52, 31 + 6.5 * wide),
      right: width - 12,
      top: 10,
      bottom: height - 38,
    };
    sx = scale(lowX, highX, box.left, box.right, log_x);
    const sy = scale(lowY, highY, box.bottom, box.top, log_y);
    const picture = svg("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": say.textContent,
    });
    for (const v of ticks(lowX, highX, log_x, width / 90)) {
      picture.append(
        svg("line", { class: "gridline", x1: sx(v), x2: sx(v), y1: box.top, y2: box.bottom }),
        svg("text", { x: sx(v), y: box.bottom + 16, "text-anchor": "middle" }, tick(v)),
      );
    }
    for (const v of marks) {
      picture.append(
        svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: sy(v), y2: sy(v) }),
        svg("text", { x: box.left - 7, y: sy(v) + 4, "text-anchor": "end" }, tick(v)),
      );
    }
    picture.append(
      svg(
        "text",
        { class: "axis", x: box.right, y: height - 5, "text-anchor": "end" },
        x + (log_x ? " (logarithmic)" : ""),
      ),
      svg(
        "text",
        {
          class: "axis",
          x: 13,
          y: (box.top + box.bottom) / 2,
          "text-anchor": "middle",
          transform: `rotate(-90 13 ${(box.top + box.bottom) / 2})`,
        },
        y + (log_y ? " (logarithmic)" : ""),
      ),
    );
    for (const [a] of snapshots) {
      picture.append(svg("circle", { class: "taken", cx: sx(a), cy: box.bottom, r: 3.5 }));
    }
    for (const name of seen) {
      picture.append(
        svg("path", { d: path(series[name], sx, sy), ...stroke(names.indexOf(name)) }),
      );
    }
    picture.append(
      svg("line", { class: "rule", x1: sx(at()), x2: sx(at()), y1: box.top, y2: box.bottom }),
    );
    for (const name of seen) {
      const [a, b] = pointAt(series[name], at());
      if (b !== null) {
        picture.append(
          svg("circle", {
            cx: sx(a),
            cy: sy(b),
            r: 4.5,
            style: `fill:var(--c${names.indexOf(name) % 6})`,
          }),
        );
      }
    }
    const follow = (event) => {
      const px = event.clientX - picture.getBoundingClientRect().left;
      go(xs.reduce((best, a) => (Math.abs(sx(a) - px) < Math.abs(sx(best) - px) ? a : best)));
    };
    picture.addEventListener("pointermove", follow);
    picture.addEventListener("pointerdown", follow);
    chart.replaceChildren(picture);
  }
  function update() {
    say.textContent =
      summary(
        Object.fromEntries(
          names.filter((name) => !off.has(name)).map((name) => [name, series[name]]),
        ),
        at(),
        x,
        y,
      ) +
      (off.size
        ? ` The vertical axis fits the ${names.length - off.size} of ${names.length} curves that are shown.`
        : "");
    slider.value = xs.indexOf(at());
    slider.setAttribute("aria-valuetext", format(at()));
    where.textContent = format(at());
    keys.forEach((key, i) => {
      key.setAttribute("aria-pressed", !off.has(names[i]));
      key.lastChild.textContent = format(pointAt(series[names[i]], at())[1]);
    });
    if (snapshots.length) {
      const [a, content] = pointAt(snapshots, at());
      shot.replaceChildren(
        h("div", { className: "title" }, `at ${x} ${format(a)}`),
        ...content.map((part) =>
          typeof part === "string" ? h("p", { className: "tok" }, part) : grid(part),
        ),
      );
    }
    draw();
  }
  function grid(rows) {
    const top = Math.max(...rows.flat(), 1e-9);
    const table = h("div", {
      className: "tiles",
      role: "img",
      "aria-label": `a matrix, ${rows.length} by ${rows[0].length}`,
    });
    table.style.gridTemplateColumns = `repeat(${rows[0].length}, minmax(4px, 18px))`;
    table.append(
      ...rows.flat().map((w) => {
        const tile = h("i", {
          title: w === null ? "no number" : format(w),
          className: w === null ? "none" : "",
        });
        if (w !== null) {
          tile.style.background = tint("--map2", Math.max(0, w) / top, "--map0");
        }
        return tile;
      }),
    );
    return table;
  }
  tools(el, model, "curves");
  model.on("change:at", update);
  update();
  const resized = new ResizeObserver(draw);
  resized.observe(el);
  return () => resized.disconnect();
}

export default { render };
