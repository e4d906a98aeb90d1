// The attention figure's left side: a small map of every head, with its entropy or distance if the reader asks.
import { check, h, rove, unseen } from "./dom.js";
import { headColumns, headSide, scaleEnd } from "./attention_layout.js";
import { headName } from "./attention_words.js";
import { pixels } from "./attention_draw.js";

const MEASURES = [
  ["no numbers", null, ""],
  ["entropy, bits", "entropy", "bits"],
  ["distance, tokens", "distance", "tokens"],
];
// the two columns that are no heads: a sign, a short name, a long one
const MARKS = { [-1]: ["x̄", "mean", "mean of the heads"], [-2]: ["↻", "rollout", "rollout"] };

// what stands over a column of the grid
function columnName(head, small) {
  if (head < 0) return MARKS[head][small ? 0 : 1];
  return small ? `${head}` : `head ${head}`;
}

function place(node, row, column) {
  node.style.gridArea = `${row + 1} / ${column + 1}`;
  return node;
}

function headButton(fig, at, layer, head) {
  const props = {
    role: "radio",
    value: fig.stores[at].index(layer, head),
    onclick: () => fig.choose({ layer, head }),
  };
  return h("button", props, unseen(""), h("small", { "aria-hidden": "true" }));
}

// one layer: its name, and a button for each head that it has
function layerRow(fig, at, layer, columns, name) {
  const present = columns.filter((head) => fig.stores[at].index(layer, head) >= 0);
  const buttons = present.map((head) =>
    place(headButton(fig, at, layer, head), layer + 1, columns.indexOf(head) + 1),
  );
  return [place(h("span", {}, name), layer + 1, 0), ...buttons];
}

// one canvas for all the small maps: a hundred canvases would take a hundred times as long
function paintMaps(sheet, fig, columns) {
  const { at, part } = fig.state();
  const maps = part.entries.map((_, i) => fig.stores[at].small(i, 48));
  const { rows, cols } = maps[0];
  Object.assign(sheet, { width: cols * columns.length, height: rows * part.heads.length });
  const pen = sheet.getContext("2d");
  part.entries.forEach(([layer, head], i) => {
    const image = pixels(maps[i], fig.colours.map, scaleEnd(maps[i].w));
    pen.putImageData(image, cols * columns.indexOf(head), rows * layer);
  });
}

// what the numbers under the heads may be, of those that the part carries
function fillMeasures(select, part) {
  const offered = MEASURES.filter(([, name]) => !name || part[name]);
  const options = offered.map(([text, name]) => h("option", { value: name ?? "" }, text));
  select.replaceChildren(...options);
  select.hidden = !part.entropy;
}

// the name of a head with all its numbers, for the mouse and for a screen reader; the asked number below it
function labelHead(button, part, measure) {
  const i = button.value;
  const told = MEASURES.filter(([, name]) => part[name])
    .map(([, name, unit]) => `, ${name} ${part[name][i]} ${unit}`)
    .join("");
  button.title = headName(...part.entries[i]) + told;
  button.firstChild.textContent = button.title;
  button.lastChild.textContent = part[measure] ? part[measure][i] : "";
}

export function headGrid(fig) {
  const grid = h("div", { className: "heads", role: "radiogroup", "aria-label": "layer and head" });
  const under = h("select", { "aria-label": "numbers under the heads", onchange: () => label() });
  const legend = h("span", { className: "quiet" });
  const bar = h("div", { className: "bar under" }, under, legend);
  const sheet = h("canvas", { "aria-hidden": "true" });
  const buttons = () => [...grid.querySelectorAll("button")];
  let columns = [];
  rove(grid, () => columns.length);

  function build() {
    const { part, at } = fig.state();
    const layers = part.heads.length;
    columns = headColumns(part);
    const small = columns.length > 8;
    const side = headSide(fig.el.clientWidth || 400, columns.length);
    const names = columns.map((head, i) => place(h("span", {}, columnName(head, small)), 0, i + 1));
    const rows = part.heads.flatMap((_, layer) =>
      layerRow(fig, at, layer, columns, layers > 8 ? `${layer}` : `layer ${layer}`),
    );
    grid.style.gridTemplate = `auto repeat(${layers}, ${side}px) / auto repeat(${columns.length}, ${side}px)`;
    grid.replaceChildren(sheet, ...names, ...rows);
    const marks = columns.filter((head) => head < 0).map((head) => MARKS[head]);
    const told = marks.map(([mark, , name]) => `${mark} ${name}`).join(", ");
    legend.textContent = told && small ? `rows are layers, columns heads; ${told}` : "";
    fillMeasures(under, part);
    paintMaps(sheet, fig, columns);
    label();
  }
  function label() {
    const { part } = fig.state();
    for (const button of buttons()) labelHead(button, part, under.value);
  }
  function mark() {
    const { at, part, layer, head } = fig.state();
    const chosen = fig.stores[at].index(layer, head);
    for (const button of buttons()) {
      const entry = part.entries[button.value];
      check(button, Number(button.value) === chosen);
      button.classList.toggle("kept", fig.get("pin") === `${at}/${entry.join("/")}`);
    }
  }
  const paintAll = () => paintMaps(sheet, fig, columns);
  return { node: h("div", {}, grid, bar), build, paintAll, mark };
}
