// The phrases figure: click a phrase of a summary, and its place in the source lights up.
import { liveText } from "./controls.js";
import { chooser, clampIndex, h, press, rove, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/phrases.test.js

// gap, word, gap, … and fragments [at, source, length] → parts { text, fragment, fresh }:
// fragment is null between phrases, fresh where a word is copied from nowhere
export function parts(pieces, fragments) {
  const found = [];
  const word = (i) => 2 * i + 1;
  let at = 0;
  const gap = (text) => text && found.push({ text, fragment: null, fresh: false });
  fragments.forEach(([start, , length], n) => {
    for (; at < start; at++) {
      gap(pieces[2 * at]);
      found.push({ text: pieces[word(at)], fragment: null, fresh: true });
    }
    gap(pieces[2 * at]);
    found.push({
      text: pieces.slice(word(start), word(start + length - 1) + 1).join(""),
      fragment: n,
      fresh: false,
    });
    at = start + length;
  });
  for (; word(at) < pieces.length; at++) {
    gap(pieces[2 * at]);
    found.push({ text: pieces[word(at)], fragment: null, fresh: true });
  }
  gap(pieces.at(-1));
  return found;
}

// the source as [before, phrase, after]
export function splitAtPhrase(pieces, fragment) {
  if (!fragment) return [pieces.join(""), "", ""];
  const [, start, length] = fragment;
  const from = 2 * start + 1;
  const to = from + 2 * length - 1;
  return [pieces.slice(0, from), pieces.slice(from, to), pieces.slice(to)].map((some) =>
    some.join(""),
  );
}

// coverage, density, and what is new
export function measures({ pieces, fragments }) {
  const words = (pieces.length - 1) / 2;
  const sum = (f) => fragments.reduce((total, [, , n]) => total + f(n), 0);
  return words
    ? { words, coverage: sum((n) => n) / words, density: sum((n) => n * n) / words }
    : { words, coverage: 0, density: 0 };
}

export function summary(source, row, at) {
  const { words, coverage, density } = measures(row);
  const fragment = row.fragments[at];
  const copied = `${Math.round(100 * coverage)} % of ${words} words are copied`;
  const told = `${row.name}: ${copied}, density ${density.toFixed(1)}.`;
  if (!fragment) return `${told} No phrase stands in the source.`;
  return `${told} “${splitAtPhrase(source, fragment)[1]}” stands in the source from word ${fragment[1] + 1} on.`;
}

// ---- drawing

// one summary: its copied phrases as buttons, its new words marked
function summaryText(row, choose) {
  const nodes = parts(row.pieces, row.fragments).map(({ text, fragment, fresh }) => {
    if (fragment !== null) return h("button", { onclick: () => choose(fragment) }, text);
    return fresh ? h("del", { title: "stands nowhere in the source" }, text) : text;
  });
  const label = `${row.name}: choose a phrase`;
  const group = h("p", { className: "text", role: "group", "aria-label": label }, ...nodes);
  rove(group, () => 1);
  const node = h("section", {}, h("div", { className: "title" }, row.name), group);
  return { node, buttons: [...group.querySelectorAll("button")] };
}

function render({ model, el }) {
  const { source, summaries } = model.get("data");
  const say = liveText();
  const choose = chooser(model);
  const text = h("p", { className: "text", role: "region", "aria-label": "source" });
  const rows = summaries.map((row, who) =>
    summaryText(row, (phrase) => choose({ summary: who, phrase })),
  );
  el.classList.add("llmlab");
  el.append(
    h(
      "div",
      { className: "phrases" },
      ...rows.map(({ node }) => node),
      h("section", {}, h("div", { className: "title" }, "source"), text),
    ),
    say,
  );

  function update() {
    const who = clampIndex(model.get("summary"), summaries.length);
    const row = summaries[who];
    const at = clampIndex(model.get("phrase"), row.fragments.length);
    const [before, phrase, after] = splitAtPhrase(source, row.fragments[at]);
    rows.forEach(({ buttons }, w) =>
      buttons.forEach((button, i) =>
        press(button, w === who && i === at, i === (w === who ? at : 0)),
      ),
    );
    text.replaceChildren(before, ...(phrase ? [h("mark", {}, phrase)] : []), after);
    say.textContent = summary(source, row, at);
  }
  tools(el, model, "phrases");
  model.on("change:summary", update);
  model.on("change:phrase", update);
  update();
}

export default { render };
