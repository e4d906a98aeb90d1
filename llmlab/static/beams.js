// The beams figure: which beginnings a beam search followed, step by step, and which of them died.
import { liveText } from "./controls.js";
import { chooser, clampIndex, h, shown, svg, tools, unseen } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/beams.test.js

// steps of [tokens, log-probability] → nodes {id, parent, token, p, step, y}:
// every beginning once, parents before children
export function tree(steps) {
  const nodes = [{ id: "", parent: null, token: "", p: 0, step: 0 }];
  const seen = new Map([["", nodes[0]]]);
  steps.forEach((row, i) =>
    row.forEach(([tokens, p]) => {
      const id = JSON.stringify(tokens);
      const up = tokens.length > 1 ? JSON.stringify(tokens.slice(0, -1)) : "";
      if (seen.has(id) || !seen.has(up)) return;
      const node = { id, parent: up, token: tokens.at(-1), p, step: i + 1 };
      seen.set(id, node);
      nodes.push(node);
    }),
  );
  const kids = (id) => nodes.filter((node) => node.parent === id);
  let next = 0;
  const place = (node) => {
    const below = kids(node.id);
    below.forEach(place);
    node.y = below.length ? (below[0].y + below.at(-1).y) / 2 : next++;
  };
  place(nodes[0]);
  return {
    nodes,
    leaves: next,
    alive: new Set(steps.length ? steps.at(-1).map(([tokens]) => JSON.stringify(tokens)) : []),
  };
}

// a node and all before it, the root first
export function line(nodes, id) {
  const node = nodes.find((other) => other.id === id);
  return node.parent === null ? [node] : [...line(nodes, node.parent), node];
}

// what became of a beginning
function outcome(nodes, alive, id) {
  if (alive.has(id)) return "goes on";
  const grew = nodes.some((other) => other.parent === id);
  return grew ? "became part of longer ones" : "was dropped here";
}

export function summary(context, { nodes, alive }, id) {
  const way = line(nodes, id);
  const node = way.at(-1);
  const n = way.length - 1;
  if (!n) return `${nodes.length - 1} beginnings were followed, ${alive.size} go on.`;
  const text = way
    .slice(1)
    .map(({ token }) => shown(token))
    .join(" ");
  const score = `log-probability ${node.p.toFixed(2)}, ${(node.p / n).toFixed(2)} a token`;
  return `“${context}” + “${text}”: ${score}; ${outcome(nodes, alive, id)}.`;
}

const ROW = 30; // pixels a leaf

// where a node stands: percent from the left, pixels from the top
export const nodePlace = ({ step, y }, columns) => [(100 * (step - 1)) / columns, ROW * (y + 0.5)];

// whether a search gave up a node that nothing goes on from
export const isDropped = ({ id }, { nodes, alive }) =>
  !alive.has(id) && !nodes.some(({ parent }) => parent === id);

// ---- drawing

// lines from each node to the one it goes on from
function drawEdges(nodes, columns, way) {
  const edges = nodes
    .filter(({ step }) => step > 1)
    .map((node) => {
      const [x, y] = nodePlace(node, columns);
      const parent = nodes.find(({ id }) => id === node.parent);
      const [fromX, fromY] = nodePlace(parent, columns);
      const ends = { x1: `${fromX + 3}%`, y1: fromY, x2: `${x}%`, y2: y };
      return svg("line", { ...ends, class: way.has(node.id) ? "way" : "" });
    });
  return svg("svg", { "aria-hidden": "true" }, ...edges);
}

function nodeButton(node, columns, found, chosen, choose) {
  const [x, y] = nodePlace(node, columns);
  const dropped = isDropped(node, found);
  const button = h(
    "button",
    {
      className: `tok${dropped ? " dropped" : ""}`,
      title: node.p.toFixed(2),
      "aria-pressed": chosen,
      onclick: choose,
    },
    shown(node.token),
    unseen(`step ${node.step}${dropped ? ", dropped" : ""}`),
  );
  Object.assign(button.style, { left: `${x}%`, top: `${y}px`, maxWidth: `${70 / columns}%` });
  return button;
}

function render({ model, el }) {
  const { context, widths, searches } = model.get("data");
  const choose = chooser(model);
  const at = () => clampIndex(model.get("search"), widths.length);
  const tabs = widths.map((width, i) =>
    h("button", { onclick: () => choose({ search: i, node: "" }) }, `width ${width}`),
  );
  const plot = h("div", { className: "beams" });
  const say = liveText();
  const asked = h("span", { className: "tok" }, shown(context));
  el.classList.add("llmlab");
  el.append(
    h("div", { className: "bar", role: "group", "aria-label": "beams" }, asked, ...tabs),
    plot,
    say,
  );
  // the beginning that the reader chose; without a choice, or where this search has no such beginning, its best
  const chosenOf = ({ nodes }) =>
    nodes.find(({ id }) => id && id === model.get("node"))?.id ??
    JSON.stringify(searches[at()].at(-1)[0][0]);

  function update() {
    const found = tree(searches[at()]);
    const nodes = found.nodes.slice(1); // without the root
    const columns = searches[at()].length;
    const chosen = chosenOf(found);
    const way = new Set(line(found.nodes, chosen).map(({ id }) => id));
    tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === at()));
    plot.style.height = `${ROW * found.leaves}px`;
    plot.style.minWidth = `${columns * 92}px`;
    const buttons = nodes.map((node, i) => {
      const chooseNode = () => {
        choose({ node: node.id });
        plot.querySelectorAll("button")[i].focus(); // the buttons were drawn anew
      };
      return nodeButton(node, columns, found, way.has(node.id), chooseNode);
    });
    plot.replaceChildren(drawEdges(nodes, columns, way), ...buttons);
    say.textContent = summary(context, found, chosen);
  }
  tools(el, model, "beams");
  for (const name of ["search", "node"]) model.on(`change:${name}`, update);
  update();
}

export default { render };
