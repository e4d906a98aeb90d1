// The cost figure: a calculator for training and running a model, and the plane of sizes and tokens
// that a scaling law colours.
import { chooser, h, held, tools, within } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/cost.test.js

// everything that the figure reads out; s holds the state, the sizes as logarithms
export function compute({ models, gpus, overhead, grids, law }, s) {
  const m = models[s.chosen];
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

// ---- drawing

function s(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const X = [7, 12.5];
const Y = [8, 14];
const STATE = ["chosen", "gpu", "grid", "tokens", "context", "utilisation"];

function render({ model, el }) {
  const data = model.get("data");
  const limits = {
    chosen: data.models.length,
    gpu: data.gpus.length,
    grid: Object.keys(data.grids).length,
  };
  const ranges = { tokens: Y, context: [7, 17], utilisation: [0.05, 0.6] };
  const state = () =>
    Object.fromEntries(
      STATE.map((name) => [
        name,
        name in limits
          ? within(model.get(name), limits[name])
          : held(model.get(name), ...ranges[name]),
      ]),
    );
  const set = chooser(model);
  const pick = (label, name, options) =>
    h(
      "label",
      {},
      label,
      h(
        "select",
        { "aria-label": label, onchange: (event) => set({ [name]: event.target.selectedIndex }) },
        ...options.map((x) => h("option", {}, x)),
      ),
    );
  const slide = (label, name, min, max, step) => {
    const input = h("input", {
      type: "range",
      min,
      max,
      step,
      "aria-label": label,
      oninput: () => set({ [name]: input.valueAsNumber }),
    });
    return h("label", {}, label, input, h("output"));
  };
  const picks = {
    chosen: pick(
      "model",
      "chosen",
      data.models.map((m) => m.name),
    ),
    gpu: pick(
      "GPU",
      "gpu",
      data.gpus.map((g) => g.name),
    ),
    grid: pick("electricity of", "grid", Object.keys(data.grids)),
  };
  const slides = {
    tokens: slide("training tokens", "tokens", Y[0], Y[1], 0.1),
    context: slide("tokens in a sequence", "context", 7, 17, 1),
    utilisation: slide("utilisation", "utilisation", 0.05, 0.6, 0.05),
  };
  const bars = h("div", { className: "memory" });
  const found = h("div", { className: "found-cost" });
  const chart = h("div", { className: "chart" });
  const say = h("p", { className: "say", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar" }, ...Object.values(picks)),
    h("div", { className: "bar slides" }, ...Object.values(slides)),
    found,
    bars,
    h(
      "div",
      { className: "title" },
      "loss by the law; the best size for each budget (full), this budget (dashed), published models (points)",
    ),
    chart,
    say,
  );

  // one bar of memory, its parts side by side, and a mark at each GPU's end
  function bar(title, parts, top, r, cards) {
    const total = Object.values(parts).reduce((a, b) => a + b);
    const track = h("div", { className: "track" });
    let from = 0;
    Object.entries(parts).forEach(([name, bytes], i) => {
      const part = h("i", { title: `${name}: ${gb(bytes)}` });
      const place = `left:${(100 * from) / top}%;width:${(100 * bytes) / top}%;right:auto`;
      part.style.cssText = `${place};border-radius:0;background:var(--c${i})`;
      from += bytes;
      track.append(part);
    });
    const mark = h("b", { className: "edge", title: `the end of one ${r.g.name}` });
    mark.style.left = `${Math.min(100, (1e11 * r.g.memory[0]) / top)}%`;
    if (1e9 * r.g.memory[0] <= top) track.append(mark);
    const key = h(
      "div",
      { className: "parts" },
      ...Object.entries(parts).map(([name, bytes], i) => {
        const dot = h("i");
        dot.style.background = `var(--c${i})`;
        return h("span", {}, dot, `${name} ${gb(bytes)}`);
      }),
    );
    return h(
      "div",
      {},
      h("div", { className: "title" }, `${title}: ${gb(total)}, ${cards} × ${r.g.name}`),
      track,
      key,
    );
  }

  function plane(r) {
    const width = Math.max(280, chart.clientWidth || 600);
    const height = Math.min(360, 140 + width * 0.32);
    const box = { left: 64, right: width - 12, top: 10, bottom: height - 38 };
    const sx = (n) => box.left + ((Math.log10(n) - X[0]) / (X[1] - X[0])) * (box.right - box.left);
    const sy = (d) =>
      box.bottom - ((Math.log10(d) - Y[0]) / (Y[1] - Y[0])) * (box.bottom - box.top);
    const svg = s("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `The plane of parameters and training tokens. ${say.textContent}`,
    });
    const [columns, rows] = [36, 24];
    const w = (box.right - box.left) / columns;
    const tall = (box.bottom - box.top) / rows;
    const worst = loss(data.law, 10 ** X[0], 10 ** Y[0]) - data.law.E;
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < rows; j++) {
        const l = loss(
          data.law,
          10 ** (X[0] + ((i + 0.5) / columns) * (X[1] - X[0])),
          10 ** (Y[1] - ((j + 0.5) / rows) * (Y[1] - Y[0])),
        );
        const share = Math.round(
          70 * (1 - Math.log(1 + (30 * (l - data.law.E)) / worst) / Math.log(31)),
        );
        svg.append(
          s("rect", {
            x: box.left + i * w,
            y: box.top + j * tall,
            width: w + 0.6,
            height: tall + 0.6,
            style: `fill:color-mix(in srgb, var(--chip) ${share}%, var(--paper))`,
          }),
        );
      }
    }
    for (let e = X[0]; e <= X[1]; e += width > 500 ? 1 : 2) {
      svg.append(
        s("text", { x: sx(10 ** e), y: box.bottom + 16, "text-anchor": "middle" }, `10^${e}`),
      );
    }
    for (let e = Y[0]; e <= Y[1]; e++) {
      svg.append(
        s("text", { x: box.left - 7, y: sy(10 ** e) + 4, "text-anchor": "end" }, `10^${e}`),
      );
    }
    svg.append(
      s("text", { class: "axis", x: box.right, y: height - 5, "text-anchor": "end" }, "parameters"),
      s(
        "text",
        {
          class: "axis",
          x: 13,
          y: height / 2,
          "text-anchor": "middle",
          transform: `rotate(-90 13 ${height / 2})`,
        },
        "training tokens",
      ),
    );
    const inside = ([n, d]) =>
      n >= 10 ** X[0] && n <= 10 ** X[1] && d >= 10 ** Y[0] && d <= 10 ** Y[1];
    const trace = (points, kind) => {
      const kept = points.filter(inside);
      if (kept.length > 1) {
        svg.append(
          s("path", {
            class: kind,
            d: "M" + kept.map(([n, d]) => `${sx(n).toFixed(1)} ${sy(d).toFixed(1)}`).join("L"),
          }),
        );
      }
      return kept;
    };
    const along = Array.from({ length: 111 }, (_, i) => 10 ** (X[0] + (i / 110) * (X[1] - X[0])));
    const taken = [];
    for (const level of [4, 3, 2.6, 2.3, 2.1, 2, 1.9]) {
      const kept = trace(
        along.map((n) => [n, contour(data.law, n, level)]),
        "level",
      );
      const [n, d] = kept[0] ?? [];
      if (kept.length > 1 && width > 500) {
        svg.append(
          s("text", { class: "quiet", x: sx(n) + 3, y: Math.max(sy(d) + 11, 22) }, String(level)),
        );
      }
    }
    trace(
      along.map((n) => [n, (r.m.n * r.tokens) / n]),
      "budget",
    );
    trace(
      Array.from({ length: 60 }, (_, i) => optimum(data.law, 10 ** (15 + i * 0.25))),
      "best",
    );
    const runs = Object.entries(data.runs)
      .map(([name, [n, d]]) => [name, sx(n), sy(d), n, d])
      .sort((a, b) => a[1] - b[1]);
    runs.forEach(([, x, y]) => taken.push([x - 4, y - 4, x + 4, y + 4]));
    place(runs, width - 8, taken).forEach((spot, i) => {
      const [name, x, y, n, d] = runs[i];
      svg.append(
        s(
          "circle",
          { class: "run", cx: x, cy: y, r: 3.5 },
          s(
            "title",
            {},
            `${name}: ${brief(n)} parameters, ${brief(d)} tokens, loss ${loss(data.law, n, d).toFixed(2)}`,
          ),
        ),
      );
      if (spot) {
        svg.append(
          s(
            "text",
            { class: "name", x: x + spot.dx, y: y + spot.dy, "text-anchor": spot.anchor },
            name,
          ),
        );
      }
    });
    svg.append(s("circle", { class: "here", cx: sx(r.m.n), cy: sy(r.tokens), r: 7 }));
    svg.addEventListener("click", (event) => {
      const at = svg.getBoundingClientRect();
      const x =
        X[0] + ((event.clientX - at.left - box.left) / (box.right - box.left)) * (X[1] - X[0]);
      const y =
        Y[0] + ((box.bottom - event.clientY + at.top) / (box.bottom - box.top)) * (Y[1] - Y[0]);
      const far = data.models.map((m) => Math.abs(Math.log10(m.n) - x));
      set({
        chosen: far.indexOf(Math.min(...far)),
        tokens: Math.min(Y[1], Math.max(Y[0], Math.round(10 * y) / 10)),
      });
    });
    chart.replaceChildren(svg);
  }

  function update() {
    const now = state();
    const r = compute(data, now);
    const top = Math.max(
      ...[r.training, r.running].map((x) => Object.values(x).reduce((a, b) => a + b)),
    );
    for (const [name, node] of Object.entries(picks)) node.lastChild.selectedIndex = now[name];
    for (const [name, node] of Object.entries(slides)) {
      const text = {
        tokens: brief(r.tokens),
        context: String(r.t),
        utilisation: `${Math.round(100 * now.utilisation)} %`,
      }[name];
      node.children[0].value = now[name];
      node.children[0].setAttribute("aria-valuetext", text);
      node.lastChild.textContent = text;
    }
    const facts = {
      parameters: brief(r.m.n),
      "tokens a parameter": brief(r.ratio),
      FLOPs: brief(r.flops),
      "against 6ND": `× ${r.rule.toFixed(2)}`,
      "loss by the law": `${r.loss.toFixed(2)} nats`,
      "GPU hours": brief(r.hours),
      USD: between(r.usd),
      kWh: between(r.kwh),
      "kg CO₂": between(r.kg),
    };
    found.replaceChildren(
      ...Object.entries(facts).map(([name, value]) =>
        h("div", {}, h("span", {}, name), h("b", {}, value)),
      ),
    );
    bars.replaceChildren(
      bar("to train, one sequence", r.training, top, r, r.cards[0]),
      bar("to run, one sequence", r.running, top, r, r.cards[1]),
    );
    say.textContent = summary(r);
    plane(r);
  }
  tools(el, model, "cost");
  STATE.forEach((name) => model.on(`change:${name}`, update));
  update();
  const resized = new ResizeObserver(() => plane(compute(data, state())));
  resized.observe(el);
  return () => resized.disconnect();
}

export default { render };
