// The attention figure's right side: one head as a matrix or as lines; mouse, keys and zoom.
import { h } from "./dom.js";
import {
  cellAfterKey,
  cellAt,
  cellOfToken,
  draggedWindow,
  queryAt,
  scaleEnd,
  sentenceWindow,
  tokenAtLine,
  windowText,
  zoom,
} from "./attention_layout.js";
import { cellText, mapTitle, scaleText } from "./attention_words.js";
import { drawLines, drawMatrix, paint } from "./attention_draw.js";

const SENTENCES = [
  "both sentences",
  "A looks at A",
  "A looks at B",
  "B looks at A",
  "B looks at B",
];
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// ---- the row of controls

function zoomButton(fig, text, factor, label) {
  const zoomBy = () => {
    const s = fig.state();
    const next = zoom(s.window, s.token, s.queries.length, s.keys.length, factor);
    fig.choose({ window: windowText(next) });
  };
  return h("button", { "aria-label": label, title: label, onclick: zoomBy }, text);
}

function compareButton(fig) {
  const toggle = () => {
    const s = fig.state();
    fig.choose({ pin: fig.get("pin") ? "" : `${s.at}/${s.layer}/${s.head}` });
  };
  return h("button", { onclick: toggle });
}

// which of two sentences looks at which; the chosen token moves into what is shown
function sentenceSelect(fig) {
  const options = SENTENCES.map((text) => h("option", {}, text));
  const select = h("select", { "aria-label": "sentences" }, ...options);
  select.onchange = () => {
    const s = fig.state();
    const window = sentenceWindow(select.selectedIndex, fig.split, s.queries.length);
    if (!window) return fig.choose({ window: "" });
    const token = Math.max(window[0], Math.min(window[1] - 1, s.token));
    fig.choose({ window: windowText(window), token, back: false });
  };
  return select;
}

function matrixControls(fig) {
  const matrix = h("button", { onclick: () => fig.choose({ lines: false }) }, "matrix");
  const lineButton = h("button", { onclick: () => fig.choose({ lines: true }) }, "lines");
  const zoomIn = zoomButton(fig, "+", 0.5, "zoom in");
  const zoomOut = zoomButton(fig, "−", 2, "zoom out");
  const sentences = sentenceSelect(fig);
  const compare = compareButton(fig);
  const shown = [matrix, lineButton, zoomIn, zoomOut, ...(fig.split ? [sentences] : []), compare];
  function mark() {
    matrix.setAttribute("aria-pressed", !fig.get("lines"));
    lineButton.setAttribute("aria-pressed", fig.get("lines"));
    compare.textContent = fig.get("pin") ? "end the comparison" : "compare with this head";
    zoomOut.disabled = !fig.get("window");
    if (!fig.get("window")) sentences.selectedIndex = 0;
  }
  return { node: h("div", { className: "bar" }, ...shown), zoomIn, zoomOut, mark };
}

// ---- the picture; `view` holds its parts and what the mouse is over

function drawHead({ fig, node, canvas, tile, over, top }) {
  const s = fig.state();
  const { field } = fig;
  const [q0, q1, k0, k1] = field.window;
  const look = {
    width: node.clientWidth || 400,
    names: field.exact ? [s.queries.slice(q0, q1), s.keys.slice(k0, k1)] : [[], []],
    colours: fig.colours,
    chosen: cellOfToken(field, s.token, s.back),
    back: s.back,
    over,
    split: fig.split,
    written: s.part.prompt,
    same: s.same,
    top,
  };
  return fig.get("lines") ? drawLines(canvas, field, look) : drawMatrix(canvas, tile, field, look);
}

function draw(view) {
  view.box = drawHead(view);
}

// the cell that the mouse or a key is at, told in the heading
function moveTo(view, cell) {
  const { fig, heading } = view;
  view.over = cell;
  heading.textContent = cell ? cellText(fig.field, cell, fig.state(), fig.other) : view.title;
  draw(view);
}

function chooseCell({ fig, over }) {
  fig.choose({ token: queryAt(fig.field, over.q), back: false });
}

// ---- mouse and keys

function cellUnder({ fig, box }, event) {
  if (!fig.field || !box || fig.get("lines")) return null;
  return cellAt(event.offsetX, event.offsetY, box, fig.field.rows, fig.field.cols);
}

// the button was let go: a token among the lines, a new window after a drag, or a cell
function release(view, event) {
  const { fig, box, dragged } = view;
  if (!fig.field || !box) return;
  if (fig.get("lines")) {
    return fig.choose(tokenAtLine(fig.field, box.at(event.offsetX, event.offsetY)));
  }
  view.over = cellUnder(view, event);
  if (!view.over || !dragged) return;
  const window = draggedWindow(dragged, view.over, fig.field);
  if (window) return fig.choose({ window: windowText(window) });
  moveTo(view, view.over);
  chooseCell(view);
}

function listenToMouse(view) {
  const { canvas } = view;
  canvas.onpointermove = (event) => {
    const cell = cellUnder(view, event);
    if (cell) moveTo(view, cell);
    else view.over = null;
  };
  canvas.onpointerleave = () => {
    if (view.over) moveTo(view, null);
  };
  canvas.onpointerdown = (event) => {
    view.dragged = cellUnder(view, event);
  };
  canvas.onpointerup = (event) => release(view, event);
}

function listenToKeys(view, { zoomIn, zoomOut }) {
  const { fig, canvas } = view;
  canvas.onkeydown = (event) => {
    const step = ARROWS[event.key];
    if (event.key === "+") zoomIn.click();
    else if (event.key === "-") zoomOut.click();
    else if (event.key === "Enter" && view.over) chooseCell(view);
    else if (step) moveTo(view, cellAfterKey(view.over, step, fig.state().token, fig.field));
    else return;
    event.preventDefault();
  };
}

// ---- all of it

export function headMatrix(fig) {
  const controls = matrixControls(fig);
  const heading = h("div", { className: "title", "aria-live": "polite" });
  const canvas = h("canvas", { role: "application", tabIndex: 0 });
  const legend = h("div", { className: "legend" }, h("span"), h("i"), h("span"));
  const node = h("div", { className: "matrix" }, controls.node, heading, canvas, legend);
  const view = { fig, node, canvas, heading, tile: h("canvas"), box: null, over: null };
  Object.assign(view, { dragged: null, title: "", top: 0 });
  listenToMouse(view);
  listenToKeys(view, controls);

  function describe(words) {
    const minus = Boolean(fig.other);
    const [low, high] = scaleText(fig.field, view.top, minus, fig.state().part.uneven);
    const kind = fig.get("lines")
      ? "lines between tokens"
      : "matrix of weights: arrows move, Enter chooses, plus and minus zoom";
    canvas.setAttribute("aria-label", words ?? "");
    canvas.setAttribute("aria-roledescription", kind);
    legend.firstChild.textContent = low;
    legend.lastChild.textContent = high;
    legend.classList.toggle("minus", minus);
  }
  function update(words) {
    const { field, other, colours } = fig;
    view.top = scaleEnd(field.w);
    view.title = mapTitle(fig.name(fig.state()), field, other, Boolean(fig.get("window")));
    paint(view.tile, field, other ? colours.minus : colours.map, view.top, Boolean(other));
    controls.mark();
    describe(words);
    moveTo(view, null);
  }
  return { node, update, draw: () => draw(view) };
}
