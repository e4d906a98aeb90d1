// The span figure: start and end scores over a passage, the grid of all spans, which are legal, which is best.
import { liveText } from "./controls.js";
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

// a token with its score: as a bar above it and as a number below
function tokenButton(token, name, score, share, choose) {
  const bar = h("i");
  bar.style.height = `${Math.max(1, 26 * share)}px`;
  return h(
    "button",
    { onclick: choose },
    h("b", { "aria-hidden": "true" }, bar),
    h("span", {}, shown(token)),
    unseen(name),
    h("small", {}, signed(score)),
  );
}

// all tokens with their scores as a start, or as an end
function scoreRow(name, tokens, scores, choose) {
  const heights = shades(scores);
  const buttons = tokens.map((token, i) =>
    tokenButton(token, name, scores[i], heights[i], () => choose({ [name]: i })),
  );
  const label = `${name}: choose a token`;
  const group = h("div", { className: "chips", role: "group", "aria-label": label }, ...buttons);
  rove(group, () => 1);
  const cut = scrollHint(group);
  const title = h("div", { className: "title" }, `${name} scores`);
  return { name, buttons, cut, node: h("div", {}, title, group, cut.line) };
}

// a square a legal span, the fuller the better
function spanCells(spans) {
  const fullness = shades(spans.map((span) => span.score));
  return spans.map(({ i, j }, rank) => {
    const cell = svg("rect", {
      x: j * CELL + 1,
      y: i * CELL + 1,
      width: CELL - 2,
      height: CELL - 2,
      class: rank ? "span" : "span best",
    });
    cell.style.fillOpacity = 0.08 + 0.92 * fullness[rank];
    return cell;
  });
}

// starts down, ends across; a click chooses a pair
function spanGrid(n, spans, choose) {
  const side = n * CELL;
  const mark = svg("rect", { width: CELL, height: CELL, class: "here" });
  const grid = svg(
    "svg",
    {
      viewBox: `0 0 ${side} ${side}`,
      role: "img",
      "aria-label": "grid of spans: start down, end across; click a cell",
    },
    svg("rect", { width: side, height: side, class: "void" }),
    svg("line", { x1: 0, y1: 0, x2: side, y2: side, class: "rule" }),
    ...spanCells(spans),
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
  return { grid, mark };
}

// which token is chosen, which lie in the span, which are outside the passage
function markRow({ name, buttons }, chosen, inside) {
  const first = Math.min(chosen.start, chosen.end);
  const last = Math.max(chosen.start, chosen.end);
  buttons.forEach((button, i) => {
    const here = i === chosen[name];
    const covered = i >= first && i <= last;
    button.className = "tok";
    button.classList.toggle("asked", here);
    button.classList.toggle("within", covered && !here);
    button.classList.toggle("unseen", !inside[i] && !covered && !here);
    press(button, here);
  });
}

function render({ model, el }) {
  const data = model.get("data");
  const { tokens, start, end, inside, longest } = data;
  const spans = ranked(start, end, inside, longest);
  const choose = chooser(model);
  const rows = [scoreRow("start", tokens, start, choose), scoreRow("end", tokens, end, choose)];
  const { grid, mark } = spanGrid(tokens.length, spans, choose);
  const chooseBest = () => choose({ start: spans[0].i, end: spans[0].j });
  const best = h("button", { onclick: chooseBest }, "best span");
  const legend = "start ↓, end →; coloured: legal; the fuller, the better";
  const caption = h("div", { className: "quiet" }, legend);
  const say = liveText();
  const scoreRows = h("div", {}, ...rows.map((row) => row.node));
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "spans" }, scoreRows, h("div", {}, grid, caption)),
    h("div", { className: "bar" }, best),
    say,
  );

  function update() {
    const chosen = {
      start: clampIndex(model.get("start"), tokens.length),
      end: clampIndex(model.get("end"), tokens.length),
    };
    for (const row of rows) markRow(row, chosen, inside);
    mark.setAttribute("x", chosen.end * CELL);
    mark.setAttribute("y", chosen.start * CELL);
    say.textContent = summary(data, spans, chosen.start, chosen.end);
  }
  tools(el, model, "spans");
  for (const name of ["start", "end"]) model.on(`change:${name}`, update);
  update();
  return () => rows.forEach(({ cut }) => cut.end());
}

export default { render };
