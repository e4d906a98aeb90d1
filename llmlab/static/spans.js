// The span figure: start and end scores over a passage, the grid of all spans, which are legal, which is best.
import {
  chooser,
  clampIndex,
  h,
  press,
  rove,
  scrollHint,
  shown,
  svg,
  tools,
  unseen,
} from "./dom.js";

// ---- layout: pure functions, tested in tests/js/spans.test.js

// why a pair of positions is no answer, or "" where it may be one
export function illegal(i, j, inside, longest) {
  if (!inside[i] || !inside[j]) return "an edge lies outside the passage";
  if (j < i) return "it ends before it starts";
  if (j - i >= longest) return `it is longer than ${longest} tokens`;
  return "";
}

// every legal span with its score, the best first
export function ranked(start, end, inside, longest) {
  const all = start.flatMap((s, i) =>
    end.slice(i, i + longest).map((e, k) => ({ i, j: i + k, score: s + e })),
  );
  return all
    .filter(({ i, j }) => !illegal(i, j, inside, longest))
    .sort((a, b) => b.score - a.score || a.i - b.i || a.j - b.j);
}

// scores → 0 to 1, for shades and bars: probabilities among those given, square roots so that small ones show
export function shades(scores) {
  const top = Math.max(...scores);
  return scores.map((x) => Math.sqrt(Math.exp(x - top)));
}

export const signed = (x) => x.toFixed(1).replace("-", "−");
const text = (tokens, i, j) =>
  tokens
    .slice(i, j + 1)
    .join("")
    .trim();

export function summary(data, spans, i, j) {
  const { tokens, start, end, inside, longest, none } = data;
  const why = illegal(i, j, inside, longest);
  const sum = `start ${signed(start[i])} + end ${signed(end[j])} = ${signed(start[i] + end[j])}`;
  if (why) {
    return `From “${shown(tokens[i])}” to “${shown(tokens[j])}”: ${sum}, but this is no legal span: ${why}.`;
  }
  const rank = 1 + spans.findIndex((span) => span.i === i && span.j === j);
  const best = spans[0];
  let verdict = `The best is “${text(tokens, best.i, best.j)}” with ${signed(best.score)}.`;
  if (rank === 1) {
    verdict =
      best.score > none
        ? "It beats no answer, so it is the answer."
        : "No answer beats it, so the answer is: none.";
  }
  const place = `rank ${rank} of ${spans.length} legal spans`;
  return `“${text(tokens, i, j)}”: ${sum}, ${place}. No answer scores ${signed(none)}. ${verdict}`;
}

// ---- drawing

const CELL = 14;

function render({ model, el }) {
  const data = model.get("data");
  const { tokens, start, end, inside, longest } = data;
  const n = tokens.length;
  const spans = ranked(start, end, inside, longest);
  const tints = shades(spans.map((span) => span.score));
  const say = h("p", { className: "say", "aria-live": "polite" });
  const choose = chooser(model);
  const rows = [
    ["start", start],
    ["end", end],
  ].map(([name, scores]) => {
    const heights = shades(scores);
    const buttons = tokens.map((token, at) => {
      const bar = h("i");
      const number = h("small", {}, signed(scores[at]));
      bar.style.height = `${Math.max(1, 26 * heights[at])}px`;
      return h(
        "button",
        { onclick: () => choose({ [name]: at }) },
        h("b", { "aria-hidden": "true" }, bar),
        h("span", {}, shown(token)),
        unseen(name),
        number,
      );
    });
    const group = h(
      "div",
      { className: "chips", role: "group", "aria-label": `${name}: choose a token` },
      ...buttons,
    );
    rove(group, () => 1);
    const cut = scrollHint(group);
    return {
      name,
      scores,
      buttons,
      cut,
      node: h("div", {}, h("div", { className: "title" }, `${name} scores`), group, cut.line),
    };
  });
  const side = n * CELL;
  const mark = svg("rect", { width: CELL, height: CELL, class: "here" });
  const cells = spans.map(({ i, j }, rank) => {
    const cell = svg("rect", {
      x: j * CELL + 1,
      y: i * CELL + 1,
      width: CELL - 2,
      height: CELL - 2,
      class: rank ? "span" : "span best",
    });
    cell.style.fillOpacity = 0.08 + 0.92 * tints[rank];
    return cell;
  });
  const rim = svg("line", { x1: 0, y1: 0, x2: side, y2: side, class: "rule" });
  const grid = svg(
    "svg",
    {
      viewBox: `0 0 ${side} ${side}`,
      role: "img",
      "aria-label": "grid of spans: start down, end across; click a cell",
    },
    svg("rect", { width: side, height: side, class: "void" }),
    rim,
    ...cells,
    mark,
  );
  grid.addEventListener("click", (event) => {
    const box = grid.getBoundingClientRect();
    const at = (x, size) => clampIndex(Math.floor((x / size) * n), n);
    choose({
      start: at(event.clientY - box.top, box.height),
      end: at(event.clientX - box.left, box.width),
    });
  });
  const best = h(
    "button",
    { onclick: () => choose({ start: spans[0].i, end: spans[0].j }) },
    "best span",
  );
  const caption = h(
    "div",
    { className: "quiet" },
    "start ↓, end →; coloured: legal; the fuller, the better",
  );
  el.classList.add("llmlab");
  el.append(
    h(
      "div",
      { className: "spans" },
      h("div", {}, ...rows.map((row) => row.node)),
      h("div", {}, grid, caption),
    ),
    h("div", { className: "bar" }, best),
    say,
  );

  function update() {
    const at = { start: clampIndex(model.get("start"), n), end: clampIndex(model.get("end"), n) };
    for (const { name, buttons } of rows) {
      buttons.forEach((button, i) => {
        const chosen = i === at[name];
        const covered = i >= Math.min(at.start, at.end) && i <= Math.max(at.start, at.end);
        button.className = "tok";
        button.classList.toggle("asked", chosen);
        button.classList.toggle("within", covered && !chosen);
        button.classList.toggle("unseen", !inside[i] && !covered && !chosen);
        press(button, chosen);
      });
    }
    mark.setAttribute("x", at.end * CELL);
    mark.setAttribute("y", at.start * CELL);
    say.textContent = summary(data, spans, at.start, at.end);
  }
  tools(el, model, "spans");
  ["start", "end"].forEach((name) => model.on(`change:${name}`, update));
  update();
  return () => rows.forEach(({ cut }) => cut.end());
}

export default { render };
