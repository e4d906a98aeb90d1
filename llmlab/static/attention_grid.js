// The attention figure's left side: a small map of every head, with its entropy or distance if the reader asks.
import { h, rove, unseen } from "./dom.js";
import { headName, scaleEnd } from "./attention_layout.js";
import { pixels } from "./attention_draw.js";

const MEASURES = [
  ["no numbers", null, ""],
  ["entropy, bits", "entropy", "bits"],
  ["distance, tokens", "distance", "tokens"],
];
const MARKS = { [-1]: ["x̄", "mean"], [-2]: ["↻", "rollout"] };

// what stands over a column of the grid
function columnName(head, small) {
  if (head < 0) return MARKS[head][small ? 0 : 1];
  return small ? `${head}` : `head ${head}`;
}

export function headGrid(fig) {
  const grid = h("div", { className: "heads", role: "radiogroup", "aria-label": "layer and head" });
  const under = h("select", { "aria-label": "numbers under the heads", onchange: () => numbers() });
  const legend = h("span", { className: "quiet" });
  const bar = h("div", { className: "bar under" }, under, legend);
  const buttons = () => [...grid.querySelectorAll("button")];
  const entry = (button) => fig.state().part.entries[button.value];
  const sheet = h("canvas", { "aria-hidden": "true" });
  let columns = 1;
  let places = [];
  rove(grid, () => columns);

  function build() {
    const { part, at } = fig.state();
    const most = Math.max(...part.heads);
    const extra = [-1, -2].filter((x) => part.entries.some(([, head]) => head === x));
    const order = [...Array(most).keys(), ...extra];
    const small = order.length > 8;
    const room = Math.min(330, (fig.el.clientWidth || 400) - 64 - 3 * order.length);
    const side = Math.max(14, Math.min(58, room / order.length));
    columns = order.length;
    const rows = `auto repeat(${part.heads.length}, ${side}px)`;
    grid.style.gridTemplate = `${rows} / auto repeat(${columns}, ${side}px)`;
    const put = (node, row, column) => {
      node.style.gridArea = `${row + 1} / ${column + 1}`;
      return node;
    };
    const button = (layer, head) =>
      h(
        "button",
        {
          role: "radio",
          value: fig.stores[at].index(layer, head),
          onclick: () => fig.choose({ layer, head }),
        },
        unseen(""),
        h("small", { "aria-hidden": "true" }),
      );
    grid.replaceChildren(
      sheet,
      ...order.map((head, i) => put(h("span", {}, columnName(head, small)), 0, i + 1)),
    );
    part.heads.forEach((_, layer) =>
      grid.append(
        put(h("span", {}, part.heads.length > 8 ? `${layer}` : `layer ${layer}`), layer + 1, 0),
        ...order.flatMap((head, i) =>
          fig.stores[at].index(layer, head) < 0 ? [] : [put(button(layer, head), layer + 1, i + 1)],
        ),
      ),
    );
    places = order;
    const marks = extra.map((x) => `${MARKS[x][0]} ${x === -1 ? "mean of the heads" : "rollout"}`);
    legend.textContent =
      marks.length && small ? `rows are layers, columns heads; ${marks.join(", ")}` : "";
    under.replaceChildren(
      ...MEASURES.filter(([, name]) => !name || part[name]).map(([text, name]) =>
        h("option", { value: name ?? "" }, text),
      ),
    );
    under.hidden = !part.entropy;
    paintAll();
    numbers();
  }
  // one canvas for all the small maps: a hundred canvases would take a hundred times as long
  function paintAll() {
    const { at, part } = fig.state();
    const maps = part.entries.map((_, i) => fig.stores[at].small(i, 48));
    const { rows, cols } = maps[0];
    Object.assign(sheet, { width: cols * columns, height: rows * part.heads.length });
    const pen = sheet.getContext("2d");
    part.entries.forEach(([layer, head], i) =>
      pen.putImageData(
        pixels(maps[i], fig.colours.map, scaleEnd(maps[i].w)),
        cols * places.indexOf(head),
        rows * layer,
      ),
    );
  }
  function numbers() {
    const { part } = fig.state();
    const chosen = part[under.value];
    for (const button of buttons()) {
      const told = MEASURES.filter(([, name]) => part[name])
        .map(([, name, unit]) => `, ${name} ${part[name][button.value]} ${unit}`)
        .join("");
      button.title = headName(...entry(button)) + told;
      button.firstChild.textContent = button.title;
      button.lastChild.textContent = chosen ? chosen[button.value] : "";
    }
  }
  function mark() {
    const { at, layer, head } = fig.state();
    const chosen = fig.stores[at].index(layer, head);
    for (const button of buttons()) {
      const is = Number(button.value) === chosen;
      button.setAttribute("aria-checked", is);
      button.tabIndex = is ? 0 : -1;
      button.classList.toggle("kept", fig.get("pin") === `${at}/${entry(button).join("/")}`);
    }
  }
  return { node: h("div", {}, grid, bar), build, paintAll, mark };
}
