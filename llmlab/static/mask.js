// The mask figure: click a token to hide it, and see what each model may look at and what it would put there.
import { barRow, liveText } from "./controls.js";
import {
  chooser,
  clampIndex,
  counted,
  h,
  percent,
  press,
  rove,
  scrollHint,
  shown,
  tools,
  unseen,
} from "./dom.js";

// ---- layout: pure functions, tested in tests/js/mask.test.js

// "0110" → [false, true, true, false]
export const visibleFrom = (row) => [...row].map((c) => c === "1");

// the bars to draw: candidates, the true token (behind a break if it is not among them), all others together
export function bars(candidates, truth, p) {
  const found = candidates.findIndex(([token]) => token === truth);
  const listed = candidates.map(([token, share]) => ({ token, p: share, right: token === truth }));
  if (found < 0 && p !== null) listed.push({ token: truth, p, right: true, far: true });
  const rest = 1 - listed.reduce((sum, bar) => sum + bar.p, 0);
  return rest > 0.0005 ? [...listed, { token: null, p: rest, right: false }] : listed;
}

// what a position may look at, in words
export function describeVisible(row, at) {
  const sees = visibleFrom(row);
  const others = sees.filter((yes, i) => yes && i !== at).length;
  const all = sees.length - 1;
  const seesRight = sees.some((yes, i) => yes && i > at);
  const seesAllLeft = sees.slice(0, at).every((yes) => yes);
  const count = counted(others, "token");
  let which = `${count} of the other ${all}`;
  if (!others) which = "no other token";
  else if (others === all) which = "every other token";
  else if (seesAllLeft && !seesRight) which = `the ${count} on its left`;
  return `${which}${sees[at] ? ", and itself" : ""}`;
}

export function summary(tokens, at, models) {
  const parts = models.map(({ name, visible, predictions }) => {
    const best = predictions[at]?.[0][0];
    const look = `sees ${describeVisible(visible[at], at)}`;
    return best
      ? `${name} ${look}, and says “${shown(best[0])}” with ${percent(best[1])}`
      : `${name} ${look}`;
  });
  return `Position ${at}, “${shown(tokens[at])}”: ${parts.join("; ")}.`;
}

// ---- drawing

// one model: its tokens as buttons, and room for what it says about the chosen place
function modelPanel({ name, predictions }, tokens, askable, choose) {
  const chips = tokens.map((token, i) => {
    const props = {
      className: "tok",
      disabled: !askable[i],
      onclick: () => choose({ position: i }),
    };
    return h("button", props, shown(token));
  });
  const label = `${name}: choose a token`;
  const row = h("div", { className: "chips", role: "group", "aria-label": label }, ...chips);
  const list = h("div", { className: "bars", role: "list", "aria-label": `${name}: candidates` });
  const title = h("div", { className: "title" }, name);
  rove(row, () => 1);
  const cut = scrollHint(row);
  const node = h("section", {}, title, row, cut.line, ...(predictions.length ? [list] : []));
  return { chips, list, cut, node };
}

// the chosen token, and which of the others its position sees
function markTokens(chips, tokens, at, row, prediction) {
  chips.forEach((chip, i) => {
    const here = i === at;
    const word = shown(tokens[i]);
    press(chip, here);
    if (here) {
      chip.className = "tok asked";
      const told = prediction ? `in the place of ${word}, hidden` : "asked";
      chip.replaceChildren(prediction ? "[MASK]" : word, unseen(told));
    } else {
      chip.className = row[i] ? "tok" : "tok unseen";
      chip.replaceChildren(word, unseen(row[i] ? "seen" : "not seen"));
    }
  });
}

function candidateRow({ token, p, right, far }, widest) {
  const isRest = token === null;
  const marks = `${far ? "… " : ""}${right ? "✓ " : ""}`;
  const name = isRest ? "all other tokens" : `${marks}${shown(token)}`;
  const rest = isRest ? "rest" : "";
  const kind = right ? "right" : rest;
  return barRow(name, { now: p / widest }, percent(p), { kind, quiet: isRest });
}

function render({ model, el }) {
  const { tokens, models, askable } = model.get("data");
  const say = liveText();
  const choose = chooser(model);
  const panels = models.map((one) => modelPanel(one, tokens, askable, choose));
  el.classList.add("llmlab");
  el.append(h("div", { className: "maskpanels" }, ...panels.map((panel) => panel.node)), say);

  function update() {
    const at = clampIndex(model.get("position"), tokens.length);
    models.forEach(({ visible, predictions }, r) => {
      const { chips, list } = panels[r];
      const prediction = predictions[at];
      markTokens(chips, tokens, at, visibleFrom(visible[at]), prediction);
      if (!prediction) return list.replaceChildren();
      const lines = bars(prediction[0], tokens[at], prediction[1]);
      const widest = Math.max(...lines.map((line) => line.p));
      list.replaceChildren(...lines.map((line) => candidateRow(line, widest)));
    });
    say.textContent = summary(tokens, at, models);
  }
  tools(el, model, "mask");
  model.on("change:position", update);
  update();
  return () => panels.forEach(({ cut }) => cut.end());
}

export default { render };
