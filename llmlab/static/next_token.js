// The next-token figure: context after context, a bar a token, and a temperature.

// ---- layout: pure functions, tested in tests/js/next_token.test.js

// p^(1/T), renormalised over the shown tokens and the rest (all other tokens, kept as one)
export function reshape(candidates, temperature) {
  const rest = Math.max(0, 1 - candidates.reduce((sum, [, p]) => sum + p, 0));
  const all = [...candidates.map(([, p]) => p), rest < 1e-6 ? 0 : rest];
  const logs = all.map((p) => Math.log(p) / temperature), top = Math.max(...logs);
  const powers = logs.map((x) => Math.exp(x - top)), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

export const percent = (p) => (p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : p > 0 ? "< 0.1 %" : "0 %");
export const shown = (token) => token.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "·") || "∅";

export function summary(context, candidates, reshaped, temperature) {
  const parts = candidates.map(([token], i) => [token, reshaped[i]]).sort((a, b) => b[1] - a[1]).slice(0, 3);
  const end = context.length > 60 ? `…${context.slice(-60)}` : context;
  return `After “${end}” at temperature ${temperature.toFixed(2)}: ${parts.map(([token, p]) => `“${shown(token)}” ${percent(p)}`).join(", ")}.`;
}

// the slider moves on a logarithmic scale from 1/8 to 4
export const toTemperature = (slider) => Math.round(100 * 2 ** slider) / 100;
export const toSlider = (temperature) => Math.log2(temperature);

// ---- drawing

function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) key.includes("-") || key === "role" ? node.setAttribute(key, value) : (node[key] = value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const { contexts, candidates } = model.get("data"), last = contexts.length - 1;
  const choose = (name, value) => { model.set(name, value); model.save_changes(); };
  const go = (step) => choose("step", Math.max(0, Math.min(last, step)));
  const back = h("button", { "aria-label": "previous context", onclick: () => go(model.get("step") - 1) }, "◀");
  const forth = h("button", { "aria-label": "next context", onclick: () => go(model.get("step") + 1) }, "▶");
  const slider = h("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "context", oninput: () => go(slider.valueAsNumber) });
  const count = h("span", { className: "quiet" }), context = h("p", { className: "context tok" });
  const heat = h("input", { type: "range", min: -3, max: 2, step: 0.05, "aria-label": "temperature", oninput: () => choose("temperature", toTemperature(heat.valueAsNumber)) });
  const degrees = h("output"), one = h("button", { onclick: () => choose("temperature", 1) }, "back to 1");
  const bars = h("div", { className: "bars", role: "list" }), say = h("p", { className: "say", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(...(last ? [h("div", { className: "bar" }, back, slider, forth, count)] : []), context, bars,
    h("div", { className: "bar heat" }, h("label", {}, "temperature", degrees), heat, one), say);

  function update() {
    const step = model.get("step"), temperature = model.get("temperature"), now = candidates[step];
    const reshaped = reshape(now, temperature), plain = reshape(now, 1), widest = Math.max(...reshaped, ...plain);
    slider.value = step;
    slider.setAttribute("aria-valuetext", contexts[step].slice(-80));
    heat.value = toSlider(temperature);
    heat.setAttribute("aria-valuetext", temperature.toFixed(2));
    [back.disabled, forth.disabled, one.disabled] = [step === 0, step === last, temperature === 1];
    count.textContent = `${step + 1} of ${last + 1}`;
    context.replaceChildren(contexts[step], h("span", { className: "caret" }, " ?"));
    degrees.textContent = temperature.toFixed(2);
    const names = [...now.map(([token]) => shown(token)), "all other tokens"];
    bars.replaceChildren(...names.flatMap((name, i) => (i === now.length && !plain[i] ? [] : [h("div", { role: "listitem", className: i === now.length ? "rest" : "" },
      h("span", { className: i === now.length ? "quiet" : "tok" }, name),
      h("span", { className: "track", "aria-hidden": "true" }, bar("now", reshaped[i] / widest), ...(temperature === 1 ? [] : [bar("was", plain[i] / widest)])),
      h("span", { className: "p" }, percent(reshaped[i])))])));
    say.textContent = summary(contexts[step], now, reshaped, temperature) + (temperature === 1 ? "" : " The outline is temperature 1; all other tokens are reshaped as if they were one.");
  }
  const bar = (kind, share) => { const i = h("i", { className: kind }); i.style.width = `${100 * share}%`; return i; };
  ["step", "temperature"].forEach((name) => model.on(`change:${name}`, update));
  update();
}

export default { render };
