// The tokens figure: one text cut into tokens, step after step.
import { clampIndex, h, shown, stepper, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/tokens.test.js

// the same token has the same of `n` colours in every step, neighbours mostly differ
export function colours(steps, n) {
  const seen = new Map();
  for (const token of steps.flat()) if (!seen.has(token)) seen.set(token, seen.size % n);
  return seen;
}

// tokens that the step before did not have
export const fresh = (before, now) =>
  new Set(before ? now.filter((token) => !before.includes(token)) : []);

export function summary(label, now, added) {
  const letters = now.reduce((sum, token) => sum + [...token].length, 0);
  const kinds = new Set(now).size;
  const perToken = (letters / now.length).toFixed(2);
  const counts = `${label}: ${now.length} tokens, ${kinds} different, ${perToken} characters a token.`;
  const names = [...added]
    .slice(0, 8)
    .map((token) => `“${shown(token)}” × ${now.filter((other) => other === token).length}`);
  return added.size ? `${counts} New: ${names.join(", ")}${added.size > 8 ? " …" : ""}.` : counts;
}

// ---- drawing

function render({ model, el }) {
  const { labels, steps } = model.get("data");
  const last = steps.length - 1;
  const go = (step) => {
    model.set("step", Math.max(0, Math.min(last, step)));
    model.save_changes();
  };
  const { back, slider, forth } = stepper("step", last, () => model.get("step"), go);
  const label = h("b", { className: "tok" });
  const count = h("span", { className: "quiet" });
  const boxes = h("div", { className: "boxes" });
  const say = h("p", { className: "say", "aria-live": "polite" });
  const meter = h("i");
  const track = h("div", { className: "meter", "aria-hidden": "true" }, meter);
  el.classList.add("llmlab");
  el.append(h("div", { className: "bar" }, back, slider, forth, count, label), boxes, track, say);
  const most = Math.max(...steps.map((tokens) => tokens.length));
  const colour = colours(steps, 6);

  function update() {
    const step = clampIndex(model.get("step"), steps.length);
    const now = steps[step];
    const added = fresh(steps[step - 1], now);
    slider.value = step;
    slider.setAttribute("aria-valuetext", labels[step]);
    [back.disabled, forth.disabled] = [step === 0, step === last];
    count.textContent = `${step + 1} of ${last + 1}`;
    label.textContent = labels[step];
    boxes.replaceChildren(
      ...now.map((token) => {
        const box = h(
          "span",
          { className: `tok${added.has(token) ? " new" : ""}`, title: shown(token) },
          shown(token),
        );
        box.style.setProperty("--c", `var(--c${colour.get(token)})`);
        return box;
      }),
    );
    meter.style.width = `${(100 * now.length) / most}%`;
    say.textContent = summary(labels[step], now, added);
  }
  tools(el, model, "tokens");
  model.on("change:step", update);
  update();
}

export default { render };
