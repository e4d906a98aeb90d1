// Controls that several figures share: groups of buttons, sliders with their numbers, rows of bars,
// the text that is told.
import { check, h, press, rove } from "./dom.js";

// the paragraph that says in words what the figure shows; a screen reader hears each change
export const liveText = () => h("p", { className: "say", "aria-live": "polite" });

// one of several, as buttons behind a label; arrows move among them, `mark` says which one is chosen
export function buttonGroup(label, names, choose, { radio = false, className = "" } = {}) {
  const props = radio ? { className, role: "radio" } : { className };
  const buttons = names.map((name, i) => h("button", { ...props, onclick: () => choose(i) }, name));
  const node = h(
    "div",
    { className: "bar", role: radio ? "radiogroup" : "group", "aria-label": label },
    h("span", { className: "quiet" }, label),
    ...buttons,
  );
  rove(node, () => (radio ? 8 : 1));
  const state = radio ? check : press;
  return { node, mark: (chosen) => buttons.forEach((button, i) => state(button, i === chosen)) };
}

// a slider behind a label with its number: `show` moves it to a value and writes the number
export function labelledSlider(label, { min, max, step, name = label }, move) {
  const output = h("output");
  const input = h("input", {
    type: "range",
    min,
    max,
    step,
    "aria-label": name,
    oninput: () => move(input.valueAsNumber),
  });
  function show(value, text) {
    input.value = value;
    input.setAttribute("aria-valuetext", text);
    output.textContent = text;
  }
  return { input, nodes: [h("label", {}, label, output), input], show };
}

// two buttons, a slider and a count that step through 0 … last: `now` says where, `go` goes there
export function stepper(name, last, now, go) {
  const move = (step) => go(Math.max(0, Math.min(last, step)));
  const button = (way, by, sign) =>
    h("button", { "aria-label": `${way} ${name}`, onclick: () => move(now() + by) }, sign);
  const back = button("previous", -1, "◀");
  const forth = button("next", 1, "▶");
  const { input, show: showValue } = labelledSlider("", { min: 0, max: last, step: 1, name }, move);
  const count = h("span", { className: "quiet" });
  return {
    nodes: [back, input, forth, count],
    show(step, text) {
      showValue(step, text);
      back.disabled = step === 0;
      forth.disabled = step === last;
      count.textContent = `${step + 1} of ${last + 1}`;
    },
  };
}

// a row of a bar chart: a name, bars by kind as shares of the whole track ({ now: 0.5, was: 0.2 }), and a text
export function barRow(name, bars, text, { kind = "", quiet = false } = {}) {
  const fills = Object.entries(bars).map(([className, share]) => {
    const fill = h("i", { className });
    fill.style.width = `${100 * Math.min(1, share)}%`;
    return fill;
  });
  return h(
    "div",
    { role: "listitem", className: kind },
    h("span", { className: quiet ? "quiet" : "tok" }, name),
    h("span", { className: "track", "aria-hidden": "true" }, ...fills),
    h("span", { className: "p" }, text),
  );
}
