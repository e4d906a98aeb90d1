// The phrases figure: click a phrase of a summary, and its place in the source lights up.
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

function render({ model, el }) {
  const { source, summaries } = model.get("data");
  const say = h("p", { className: "say", "aria-live": "polite" });
  const choose = chooser(model);
  const text = h("p", { className: "text", role: "region", "aria-label": "source" });
  const buttons = [];
  const rows = summaries.map((row, who) => {
    buttons.push([]);
    const group = h(
      "p",
      { className: "text", role: "group", "aria-label": `${row.name}: choose a phrase` },
      ...parts(row.pieces, row.fragments).map((part) => {
        if (part.fragment === null) {
          return part.fresh
            ? h("del", { title: "stands nowhere in the source" }, part.text)
            : part.text;
        }
        const button = h(
          "button",
          { onclick: () => choose({ summary: who, phrase: part.fragment }) },
          part.text,
        );
        buttons[who].push(button);
        return button;
      }),
    );
    rove(group, () => 1);
    return h("section", {}, h("div", { className: "title" }, row.name), group);
  });
  el.classList.add("llmlab");
  el.append(
    h(
      "div",
      { className: "phrases" },
      ...rows,
      h("section", {}, h("div", { className: "title" }, "source"), text),
    ),
    say,
  );

  function update() {
    const who = clampIndex(model.get("summary"), summaries.length);
    const row = summaries[who];
    const at = clampIndex(model.get("phrase"), row.fragments.length);
    const [before, phrase, after] = splitAtPhrase(source, row.fragments[at]);
    buttons.forEach((some, w) =>
      some.forEach((button, i) => press(button, w === who && i === at, i === (w === who ? at : 0))),
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
