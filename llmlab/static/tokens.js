// The tokens figure: one text cut into tokens, step after step.
import { liveText, stepper } from "./controls.js";
import { chooser, clampIndex, h, shown, tools } from "./dom.js";

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

function tokenBoxes(tokens, added, colour) {
  return tokens.map((token) => {
    const className = `tok${added.has(token) ? " new" : ""}`;
    const box = h("span", { className, title: shown(token) }, shown(token));
    box.style.setProperty("--c", `var(--c${colour.get(token)})`);
    return box;
  });
}

function render({ model, el }) {
  const { labels, steps } = model.get("data");
  const choose = chooser(model);
  const now = () => model.get("step");
  const place = stepper("step", steps.length - 1, now, (step) => choose({ step }));
  const label = h("b", { className: "tok" });
  const boxes = h("div", { className: "boxes" });
  const say = liveText();
  const meter = h("i");
  const track = h("div", { className: "meter", "aria-hidden": "true" }, meter);
  const most = Math.max(...steps.map((tokens) => tokens.length));
  const colour = colours(steps, 6);
  el.classList.add("llmlab");
  el.append(h("div", { className: "bar" }, ...place.nodes, label), boxes, track, say);

  function update() {
    const step = clampIndex(model.get("step"), steps.length);
    const tokens = steps[step];
    const added = fresh(steps[step - 1], tokens);
    place.show(step, labels[step]);
    label.textContent = labels[step];
    boxes.replaceChildren(...tokenBoxes(tokens, added, colour));
    meter.style.width = `${(100 * tokens.length) / most}%`;
    say.textContent = summary(labels[step], tokens, added);
  }
  tools(el, model, "tokens");
  model.on("change:step", update);
  update();
}

export default { render };
