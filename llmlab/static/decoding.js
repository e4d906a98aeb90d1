// The decoding figure: one distribution, four ways to reshape and cut it, what stays and what goes.
import { barRow, labelledSlider, liveText } from "./controls.js";
import { chooser, clamp, clampIndex, h, percent, shown, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/decoding.test.js

// p, likeliest first → what is left after temperature, top-k, top-p and min-p, in this order, and who cut each token
export function decode(p, { temperature, k, top_p, min_p }) {
  const logs = p.map((x) => Math.log(x) / temperature);
  const top = Math.max(...logs);
  const soft = share(logs.map((x) => Math.exp(x - top)));
  const out = p.map(() => "");
  soft.forEach((_, i) => {
    if (i >= k) out[i] = "top-k";
  });
  let left = share(soft.map((x, i) => (out[i] ? 0 : x)));
  let before = 0;
  left.forEach((x, i) => {
    if (!out[i] && top_p < 1 && before >= top_p) out[i] = "top-p";
    before += x;
  });
  left = share(soft.map((x, i) => (out[i] ? 0 : x)));
  left.forEach((x, i) => {
    if (!out[i] && x < min_p * left[0]) out[i] = "min-p";
  });
  return { soft, out, left: share(soft.map((x, i) => (out[i] ? 0 : x))) };
}
const sum = (all) => all.reduce((a, b) => a + b, 0);
const share = (all) => {
  const total = sum(all);
  return all.map((x) => x / total);
};

// sliders → settings; the logarithmic ones give fine steps where they matter
export const settings = (raw, n) => ({
  temperature: raw.temperature,
  k: Math.min(raw.k, n),
  top_p: raw.p,
  min_p: raw.min_p,
});
export const toK = (slider, n) => Math.round(n ** slider);
export const toSlider = (k, n) => Math.log(k) / Math.log(n);

export function summary(context, tokens, { soft, out, left }) {
  const kept = out.filter((x) => !x).length;
  const mass = soft.reduce((sum, x, i) => sum + (out[i] ? 0 : x), 0);
  const by = ["top-k", "top-p", "min-p"]
    .map((name) => [name, out.filter((x) => x === name).length])
    .filter(([, n]) => n);
  const cut = by.length
    ? `cut: ${by.map(([name, n]) => `${n} by ${name}`).join(", ")}`
    : "nothing is cut";
  const stay = `${kept} of ${out.length} tokens stay, which held ${percent(mass)}; ${cut}`;
  const likeliest = `The likeliest, “${shown(tokens[0])}”, now has ${percent(left[0])}`;
  return `After “${context.slice(-60)}”: ${stay}. ${likeliest}.`;
}

// a row for each of the first tokens, with its probability now and before and who cut it; then one for all others
export function rows(candidates, { left, out }) {
  const probabilities = candidates.map(([, p]) => p);
  const first = candidates.slice(0, ROWS).map(([token, was], i) => ({
    name: shown(token),
    now: left[i],
    was,
    why: out[i],
    quiet: false,
  }));
  const others = out.slice(ROWS);
  if (!others.length) return first;
  const staying = others.filter((why) => !why).length;
  const rest = {
    name: `${staying} of ${others.length} others stay`,
    now: sum(left.slice(ROWS)),
    was: sum(probabilities.slice(ROWS)),
    why: staying ? "" : "all cut",
    quiet: true,
  };
  return [...first, rest];
}

// ---- drawing

const ROWS = 14;

// what the reader chose, inside what the figure can show
function readState(model, { contexts, candidates }) {
  const step = clampIndex(model.get("step"), contexts.length);
  return {
    step,
    temperature: clamp(model.get("temperature"), 0.125, 4),
    k: clampIndex(model.get("k") - 1, candidates[step].length) + 1,
    p: clamp(model.get("p"), 0.05, 1),
    min_p: clamp(model.get("min_p"), 0, 0.5),
  };
}

// a slider a setting; `n` says how many tokens there are to keep
function sliders(choose, n) {
  const rounded = (x) => Math.round(100 * x) / 100;
  const make = (label, min, max, step, move) => labelledSlider(label, { min, max, step }, move);
  return {
    temperature: make("temperature", -3, 2, 0.05, (x) => choose({ temperature: rounded(2 ** x) })),
    k: make("top-k", 0, 1, 0.01, (x) => choose({ k: toK(x, n()) })),
    p: make("top-p", 0.05, 1, 0.01, (x) => choose({ p: rounded(x) })),
    min_p: make("min-p", 0, 0.5, 0.005, (x) => choose({ min_p: x })),
  };
}

function showSettings({ temperature, k, p, min_p }, s, n) {
  temperature.show(Math.log2(s.temperature), s.temperature.toFixed(2));
  k.show(toSlider(s.k, n), String(s.k));
  p.show(s.p, s.p.toFixed(2));
  min_p.show(s.min_p, s.min_p.toFixed(3));
}

function drawBars(bars, all) {
  const widest = Math.max(...all.flatMap(({ now, was }) => [now, was]));
  const drawn = all.map(({ name, now, was, why, quiet }) => {
    const rest = quiet ? "rest" : "";
    const text = why ? `✕ ${why}` : percent(now);
    const kind = why ? "gone" : rest;
    return barRow(name, { now: now / widest, was: was / widest }, text, { kind, quiet });
  });
  bars.replaceChildren(...drawn);
}

function render({ model, el }) {
  const { contexts, candidates } = model.get("data");
  const state = () => readState(model, { contexts, candidates });
  const n = () => candidates[state().step].length;
  const choose = chooser(model);
  const tabs = contexts.map((context, step) =>
    h("button", { className: "tok", onclick: () => choose({ step }) }, shown(context.slice(-24))),
  );
  const settingSliders = sliders(choose, n);
  const knobs = Object.values(settingSliders).map(({ nodes }) =>
    h("div", { className: "bar" }, ...nodes),
  );
  const untouched = () => choose({ temperature: 1, k: n(), p: 1, min_p: 0 });
  const reset = h("button", { onclick: untouched }, "as it is");
  const bars = h("div", { className: "bars", role: "list" });
  const say = liveText();
  const group = h("div", { className: "bar", role: "group", "aria-label": "contexts" }, ...tabs);
  el.classList.add("llmlab");
  el.append(
    ...(contexts.length > 1 ? [group] : []),
    h("div", { className: "knobs" }, ...knobs, reset),
    bars,
    say,
  );

  function update() {
    const s = state();
    const tokens = candidates[s.step];
    const probabilities = tokens.map(([, p]) => p);
    const found = decode(probabilities, settings(s, tokens.length));
    tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === s.step));
    showSettings(settingSliders, s, tokens.length);
    drawBars(bars, rows(tokens, found));
    const names = tokens.map(([token]) => token);
    const told = summary(contexts[s.step], names, found);
    say.textContent = `${told} The outline is the model's own probability.`;
  }
  tools(el, model, "decoding");
  for (const name of ["step", "temperature", "k", "p", "min_p"]) {
    model.on(`change:${name}`, update);
  }
  update();
}

export default { render };
