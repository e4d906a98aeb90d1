// The next-token figure: context after context, a bar a token, and a temperature.
import { barRow, labelledSlider, liveText, stepper } from "./controls.js";
import { chooser, clamp, clampIndex, h, percent, shown, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/next_token.test.js

// p^(1/T), renormalised over the shown tokens and the rest (all other tokens, kept as one)
export function reshape(candidates, temperature) {
  const rest = Math.max(0, 1 - candidates.reduce((sum, [, p]) => sum + p, 0));
  const all = [...candidates.map(([, p]) => p), rest < 1e-6 ? 0 : rest];
  const logs = all.map((p) => Math.log(p) / temperature);
  const top = Math.max(...logs);
  const powers = logs.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

// top-k and top-p: which of the shown tokens stay, and their shares of what stays; k = 0 and p = 1 keep all.
// The last number is all other tokens: they stay only where nothing ends inside the shown ones.
export function cut(shares, k, p) {
  const order = shares
    .slice(0, -1)
    .map((x, i) => [x, i])
    .sort((a, b) => b[0] - a[0]);
  const kept = new Set();
  let sum = 0;
  for (const [x, i] of order) {
    if ((k && kept.size >= k) || (kept.size && sum >= p - 1e-9)) break;
    kept.add(i);
    sum += x;
  }
  const open = !k && (p >= 1 || sum < p - 1e-9);
  const all = sum + (open ? shares.at(-1) : 0);
  return shares.map((x, i) =>
    kept.has(i) || (open && i === shares.length - 1) ? x / (all || 1) : 0,
  );
}

export function summary(context, candidates, reshaped, temperature, k = 0, p = 1) {
  const parts = candidates
    .map(([token], i) => [token, reshaped[i]])
    .sort((a, b) => b[1] - a[1])
    .slice(0, 3)
    .filter(([, x]) => x > 0);
  const end = context.length > 60 ? `…${context.slice(-60)}` : context;
  const settings = [`temperature ${temperature.toFixed(2)}`];
  if (k) settings.push(`top-k ${k}`);
  if (p < 1) settings.push(`top-p ${p.toFixed(2)}`);
  const likeliest = parts.map(([token, share]) => `“${shown(token)}” ${percent(share)}`);
  return `After “${end}” at ${settings.join(", ")}: ${likeliest.join(", ")}.`;
}

// a row a token, with its share now and in the model's own distribution; a last row for all others, if any are left
export function rows(candidates, reshaped, plain) {
  const rest = candidates.length;
  const names = [...candidates.map(([token]) => shown(token)), "all other tokens"];
  const all = names.map((name, i) => ({
    name,
    now: reshaped[i],
    was: plain[i],
    quiet: i === rest,
    text: reshaped[i] || !plain[i] ? percent(reshaped[i]) : "cut",
  }));
  return plain[rest] ? all : all.slice(0, rest);
}

// the slider moves on a logarithmic scale from 1/8 to 4
export const toTemperature = (slider) => Math.round(100 * 2 ** slider) / 100;
export const toSlider = (temperature) => Math.log2(temperature);

// ---- drawing

const OUTLINE =
  " The outline is what the model said; all other tokens are reshaped as if they were one.";

const longest = (candidates) => Math.max(...candidates.map((all) => all.length));

// what the reader chose, inside what the figure can show
function readState(model, { contexts, candidates }) {
  return {
    step: clampIndex(model.get("step"), contexts.length),
    temperature: clamp(model.get("temperature"), 0.125, 4),
    k: clampIndex(model.get("k"), longest(candidates) + 1),
    p: clamp(model.get("p"), 0.05, 1),
  };
}

function sliders(candidates, choose) {
  const logarithmic = { min: -3, max: 2, step: 0.05 };
  const counts = { min: 0, max: longest(candidates), step: 1, name: "top-k, 0 keeps all" };
  const parts = { min: 0.05, max: 1, step: 0.05 };
  return {
    temperature: labelledSlider("temperature", logarithmic, (x) =>
      choose({ temperature: toTemperature(x) }),
    ),
    k: labelledSlider("top-k", counts, (k) => choose({ k })),
    p: labelledSlider("top-p", parts, (x) => choose({ p: Math.round(100 * x) / 100 })),
  };
}

function drawBars(bars, all, changed) {
  const widest = Math.max(...all.flatMap(({ now, was }) => [now, was]));
  const drawn = all.map(({ name, now, was, quiet, text }) => {
    const outline = changed ? { was: was / widest } : {};
    return barRow(name, { now: now / widest, ...outline }, text, {
      kind: quiet ? "rest" : "",
      quiet,
    });
  });
  bars.replaceChildren(...drawn);
}

function render({ model, el }) {
  const { contexts, candidates } = model.get("data");
  const last = contexts.length - 1;
  const choose = chooser(model);
  const now = () => model.get("step");
  const place = stepper("context", last, now, (step) => choose({ step }));
  const { temperature, k, p } = sliders(candidates, choose);
  const one = h("button", { onclick: () => choose({ temperature: 1 }) }, "back to 1");
  const context = h("p", { className: "context tok" });
  const bars = h("div", { className: "bars", role: "list" });
  const say = liveText();
  el.classList.add("llmlab");
  el.append(
    ...(last ? [h("div", { className: "bar" }, ...place.nodes)] : []),
    context,
    bars,
    h("div", { className: "bar heat" }, ...temperature.nodes, one),
    h("div", { className: "bar heat" }, ...k.nodes, ...p.nodes),
    say,
  );

  function update() {
    const s = readState(model, { contexts, candidates });
    const tokens = candidates[s.step];
    const reshaped = cut(reshape(tokens, s.temperature), s.k, s.p);
    const changed = s.temperature !== 1 || s.k > 0 || s.p < 1;
    place.show(s.step, contexts[s.step].slice(-80));
    temperature.show(toSlider(s.temperature), s.temperature.toFixed(2));
    k.show(s.k, s.k ? String(s.k) : "all");
    p.show(s.p, s.p.toFixed(2));
    one.disabled = s.temperature === 1;
    context.replaceChildren(contexts[s.step], h("span", { className: "caret" }, " ?"));
    drawBars(bars, rows(tokens, reshaped, reshape(tokens, 1)), changed);
    const told = summary(contexts[s.step], tokens, reshaped, s.temperature, s.k, s.p);
    say.textContent = `${told}${changed ? OUTLINE : ""}`;
  }
  tools(el, model, "next_token");
  for (const name of ["step", "temperature", "k", "p"]) model.on(`change:${name}`, update);
  update();
}

export default { render };
