// The next-token figure: context after context, a bar a token, and a temperature.
import { clamp, clampIndex, h, percent, shown, stepper, tools } from "./dom.js";

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

// the slider moves on a logarithmic scale from 1/8 to 4
export const toTemperature = (slider) => Math.round(100 * 2 ** slider) / 100;
export const toSlider = (temperature) => Math.log2(temperature);

// ---- drawing

function render({ model, el }) {
  const { contexts, candidates } = model.get("data");
  const last = contexts.length - 1;
  const choose = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const go = (step) => choose("step", Math.max(0, Math.min(last, step)));
  const { back, slider, forth } = stepper("context", last, () => model.get("step"), go);
  const count = h("span", { className: "quiet" });
  const context = h("p", { className: "context tok" });
  const heat = h("input", {
    type: "range",
    min: -3,
    max: 2,
    step: 0.05,
    "aria-label": "temperature",
    oninput: () => choose("temperature", toTemperature(heat.valueAsNumber)),
  });
  const most = Math.max(...candidates.map((all) => all.length));
  const top = h("input", {
    type: "range",
    min: 0,
    max: most,
    step: 1,
    "aria-label": "top-k, 0 keeps all",
    oninput: () => choose("k", top.valueAsNumber),
  });
  const mass = h("input", {
    type: "range",
    min: 0.05,
    max: 1,
    step: 0.05,
    "aria-label": "top-p",
    oninput: () => choose("p", Math.round(100 * mass.valueAsNumber) / 100),
  });
  const kept = h("output");
  const share = h("output");
  const degrees = h("output");
  const one = h("button", { onclick: () => choose("temperature", 1) }, "back to 1");
  const bars = h("div", { className: "bars", role: "list" });
  const say = h("p", { className: "say", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(
    ...(last ? [h("div", { className: "bar" }, back, slider, forth, count)] : []),
    context,
    bars,
    h("div", { className: "bar heat" }, h("label", {}, "temperature", degrees), heat, one),
    h(
      "div",
      { className: "bar heat" },
      h("label", {}, "top-k", kept),
      top,
      h("label", {}, "top-p", share),
      mass,
    ),
    say,
  );

  function update() {
    const step = clampIndex(model.get("step"), contexts.length);
    const temperature = clamp(model.get("temperature"), 0.125, 4);
    const now = candidates[step];
    const [k, p] = [clampIndex(model.get("k"), most + 1), clamp(model.get("p"), 0.05, 1)];
    const reshaped = cut(reshape(now, temperature), k, p);
    const plain = reshape(now, 1);
    const changed = temperature !== 1 || k || p < 1;
    const widest = Math.max(...reshaped, ...plain);
    slider.value = step;
    slider.setAttribute("aria-valuetext", contexts[step].slice(-80));
    heat.value = toSlider(temperature);
    heat.setAttribute("aria-valuetext", temperature.toFixed(2));
    [back.disabled, forth.disabled, one.disabled] = [step === 0, step === last, temperature === 1];
    count.textContent = `${step + 1} of ${last + 1}`;
    context.replaceChildren(contexts[step], h("span", { className: "caret" }, " ?"));
    [top.value, mass.value, kept.textContent, share.textContent] = [k, p, k || "all", p.toFixed(2)];
    degrees.textContent = temperature.toFixed(2);
    const names = [...now.map(([token]) => shown(token)), "all other tokens"];
    bars.replaceChildren(
      ...names.flatMap((name, i) =>
        i === now.length && !plain[i]
          ? []
          : [
              h(
                "div",
                { role: "listitem", className: i === now.length ? "rest" : "" },
                h("span", { className: i === now.length ? "quiet" : "tok" }, name),
                h(
                  "span",
                  { className: "track", "aria-hidden": "true" },
                  bar("now", reshaped[i] / widest),
                  ...(changed ? [bar("was", plain[i] / widest)] : []),
                ),
                h(
                  "span",
                  { className: "p" },
                  reshaped[i] || !plain[i] ? percent(reshaped[i]) : "cut",
                ),
              ),
            ],
      ),
    );
    say.textContent =
      summary(contexts[step], now, reshaped, temperature, k, p) +
      (changed
        ? " The outline is what the model said; all other tokens are reshaped as if they were one."
        : "");
  }
  const bar = (kind, share) => {
    const i = h("i", { className: kind });
    i.style.width = `${100 * share}%`;
    return i;
  };
  tools(el, model, "next_token");
  ["step", "temperature", "k", "p"].forEach((name) => model.on(`change:${name}`, update));
  update();
}

export default { render };
