// The attention figure: small maps of all heads, one head as a matrix or as lines, one token's weights as text.
import { chooser, clampIndex, h, onTheme, tools } from "./dom.js";
import { coarse, crop, headName, readWindow } from "./attention_layout.js";
import { line, store } from "./attention_data.js";
import { palette } from "./attention_draw.js";
import { headGrid } from "./attention_grid.js";
import { headMatrix } from "./attention_matrix.js";
import { tokenText } from "./attention_text.js";

const DEEP = 256; // a window this small is shown in exact weights

async function render({ model, el }) {
  const { parts, split } = model.get("data");
  const ask = line(model);
  el.classList.add("llmlab");
  const fig = {
    el,
    parts,
    split,
    colours: palette(el),
    field: null,
    whole: null,
    other: "",
    stores: await Promise.all(parts.map((part, i) => store(part, i, ask))),
    get: (name) => model.get(name),
    choose: chooser(model),
    name: ({ at, layer, head }) =>
      (parts.length > 1 ? `${parts[at].name}, ` : "") + headName(layer, head),
    state() {
      const at = clampIndex(model.get("part"), parts.length);
      const part = parts[at];
      const { queries, keys } = part;
      const back = model.get("back");
      const layer = clampIndex(model.get("layer"), part.heads.length);
      const head = fig.stores[at].index(layer, model.get("head")) < 0 ? 0 : model.get("head");
      const same = queries.length === keys.length && queries.every((x, i) => x === keys[i]);
      return {
        at,
        part,
        layer,
        head,
        queries,
        keys,
        same,
        back,
        token: clampIndex(model.get("token"), (back ? keys : queries).length),
        window: readWindow(model.get("window"), queries.length, keys.length),
      };
    },
  };

  const choices = h(
    "div",
    { className: "bar", role: "radiogroup", "aria-label": "part", hidden: parts.length < 2 },
    ...(parts.length < 2 ? [] : parts).map((part, i) =>
      h(
        "button",
        {
          role: "radio",
          onclick: () =>
            fig.choose({
              part: i,
              layer: 0,
              head: 0,
              token: part.queries.length - 1,
              back: false,
              window: "",
            }),
        },
        part.name,
      ),
    ),
  );
  const grid = headGrid(fig);
  const matrix = headMatrix(fig);
  const text = tokenText(fig);
  el.append(choices, h("div", { className: "attention" }, grid.node, matrix.node, text.node));
  tools(el, model, "attention");

  // the window of one head, exact where it can be; and the most that is known of the whole head
  async function look(at, layer, head, window) {
    const whole = await fig.stores[at].map(layer, head);
    const small = window[1] - window[0] <= DEEP && window[3] - window[2] <= DEEP;
    const exact =
      !whole.exact && small && (await fig.stores[at].tile(layer, head, window).catch(() => null));
    return exact ? [exact, exact] : [crop(whole, window), whole];
  }
  function minus(a, b) {
    const [rows, cols] = [Math.min(a.rows, b.rows), Math.min(a.cols, b.cols)];
    const [x, y] = [coarse(a, rows, cols), coarse(b, rows, cols)];
    return { ...x, w: x.w.map((w, i) => w - y.w[i]), exact: a.exact && b.exact };
  }
  let turn = 0;
  async function update() {
    const s = fig.state();
    const mine = ++turn;
    const [p, layer, head] = fig.get("pin").split("/").map(Number);
    const size = (part) => `${part.queries.length} ${part.keys.length}`;
    const pinned =
      fig.get("pin") &&
      parts[p] &&
      fig.stores[p].index(layer, head) >= 0 &&
      size(parts[p]) === size(s.part);
    matrix.node.setAttribute("aria-busy", "true");
    const found = await Promise.all([
      look(s.at, s.layer, s.head, s.window),
      ...(pinned ? [look(p, layer, head, s.window)] : []),
    ]);
    if (mine !== turn) return; // the reader went on while this head was on its way
    [fig.field, fig.whole] = pinned ? [0, 1].map((i) => minus(found[0][i], found[1][i])) : found[0];
    fig.other = pinned ? fig.name({ at: p, layer, head }) : "";
    matrix.node.removeAttribute("aria-busy");
    redraw();
  }
  function redraw() {
    if (!fig.field) return;
    [...choices.children].forEach((button, i) =>
      button.setAttribute("aria-checked", i === fig.state().at),
    );
    grid.mark();
    matrix.update(text.update());
  }

  grid.build();
  for (const name of ["layer", "head", "pin", "window"]) model.on(`change:${name}`, update);
  for (const name of ["token", "back", "lines"]) model.on(`change:${name}`, redraw);
  model.on("change:part", () => {
    grid.build();
    update();
  });
  const resized = new ResizeObserver(() => fig.field && matrix.draw());
  const ended = onTheme(() => {
    fig.colours = palette(el);
    grid.paintAll();
    redraw();
  });
  await update();
  resized.observe(matrix.node);
  return () => {
    resized.disconnect();
    ended();
    text.end();
  };
}

export default { render };
