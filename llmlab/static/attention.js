// The attention figure: small maps of all heads, one head as a matrix or as lines, one token's weights as text.
import { check, chooser, clampIndex, h, onTheme, rove, tools } from "./dom.js";
import { readWindow } from "./attention_layout.js";
import { headName } from "./attention_words.js";
import { differenceOf, line, store, windowOf } from "./attention_data.js";
import { palette } from "./attention_draw.js";
import { headGrid } from "./attention_grid.js";
import { headMatrix } from "./attention_matrix.js";
import { tokenText } from "./attention_text.js";

// what the reader chose, inside what the figure can show
function readState(model, parts, stores) {
  const at = clampIndex(model.get("part"), parts.length);
  const part = parts[at];
  const { queries, keys } = part;
  const back = model.get("back");
  const layer = clampIndex(model.get("layer"), part.heads.length);
  return {
    at,
    part,
    layer,
    head: stores[at].index(layer, model.get("head")) < 0 ? 0 : model.get("head"),
    queries,
    keys,
    same: queries.length === keys.length && queries.every((x, i) => x === keys[i]),
    back,
    token: clampIndex(model.get("token"), (back ? keys : queries).length),
    window: readWindow(model.get("window"), queries.length, keys.length),
  };
}

// what the parts of the figure share; `field` is the window that is shown, `whole` the head it belongs to
async function openFigure(model, el) {
  const { parts, split } = model.get("data");
  const ask = line(model);
  const stores = await Promise.all(parts.map((part, i) => store(part, i, ask)));
  const partName = (at) => (parts.length > 1 ? `${parts[at].name}, ` : "");
  return {
    el,
    parts,
    split,
    stores,
    colours: palette(el),
    field: null,
    whole: null,
    other: "",
    get: (name) => model.get(name),
    choose: chooser(model),
    name: ({ at, layer, head }) => partName(at) + headName(layer, head),
    state: () => readState(model, parts, stores),
  };
}

// the head that the reader keeps for comparison, if its tokens are as many as those that are shown
function pinnedHead(fig, s) {
  const [at, layer, head] = fig.get("pin").split("/").map(Number);
  const part = fig.parts[at];
  if (!fig.get("pin") || !part || fig.stores[at].index(layer, head) < 0) return null;
  const fits = part.queries.length === s.queries.length && part.keys.length === s.keys.length;
  return fits ? { at, layer, head } : null;
}

// a button a part, such as a second model; nothing where there is only one
function partButtons(fig) {
  const several = fig.parts.length > 1;
  const start = { layer: 0, head: 0, back: false, window: "" };
  const buttons = (several ? fig.parts : []).map((part, i) => {
    const open = () => fig.choose({ part: i, ...start, token: part.queries.length - 1 });
    return h("button", { role: "radio", onclick: open }, part.name);
  });
  const props = { className: "bar", role: "radiogroup", "aria-label": "part", hidden: !several };
  const node = h("div", props, ...buttons);
  rove(node, () => 1);
  return { node, mark: (at) => buttons.forEach((button, i) => check(button, i === at)) };
}

async function render({ model, el }) {
  el.classList.add("llmlab");
  const fig = await openFigure(model, el);
  const parts = partButtons(fig);
  const grid = headGrid(fig);
  const matrix = headMatrix(fig);
  const text = tokenText(fig);
  const body = h("div", { className: "attention" }, grid.node, matrix.node, text.node);
  el.append(parts.node, body);
  tools(el, model, "attention");

  let turn = 0;
  async function update() {
    const s = fig.state();
    const mine = ++turn;
    const pinned = pinnedHead(fig, s);
    const shown = [fig.stores[s.at], s.layer, s.head];
    matrix.node.setAttribute("aria-busy", "true");
    const found = pinned
      ? await differenceOf(shown, [fig.stores[pinned.at], pinned.layer, pinned.head], s.window)
      : await windowOf(...shown, s.window);
    if (mine !== turn) return; // the reader went on while this head was on its way
    [fig.field, fig.whole] = found;
    fig.other = pinned ? fig.name(pinned) : "";
    matrix.node.removeAttribute("aria-busy");
    redraw();
  }
  function redraw() {
    if (!fig.field) return;
    parts.mark(fig.state().at);
    grid.mark();
    matrix.update(text.update());
  }
  function changePart() {
    grid.build();
    update();
  }
  function changeTheme() {
    fig.colours = palette(el);
    grid.paintAll();
    redraw();
  }

  grid.build();
  for (const name of ["layer", "head", "pin", "window"]) model.on(`change:${name}`, update);
  for (const name of ["token", "back", "lines"]) model.on(`change:${name}`, redraw);
  model.on("change:part", changePart);
  const resized = new ResizeObserver(() => fig.field && matrix.draw());
  const endTheme = onTheme(changeTheme);
  await update();
  resized.observe(matrix.node);
  return () => {
    resized.disconnect();
    endTheme();
    text.end();
  };
}

export default { render };
