// The attention figure's right side: one head as a matrix or as lines; mouse, keys and zoom.
import { clampIndex, h, short } from "./dom.js";
import { cellAt, scaleEnd, windowText, zoom } from "./attention_layout.js";
import { drawLines, drawMatrix, paint } from "./attention_draw.js";

// the heading: whose weights these are, how fine, and of which tokens
function title(name, field, other, zoomed) {
  const [q0, q1, k0, k1] = field.window;
  const subject = `${name[0].toUpperCase()}${name.slice(1)}${other ? ` minus ${other}` : ""}`;
  const parts = [`${subject}: rows look at columns`];
  if (!field.exact) {
    const size = Math.ceil((q1 - q0) / field.rows);
    const later = zoomed ? " (exact weights come where Python runs)" : "";
    parts.push(`, in blocks of ${size} tokens${later}`);
  }
  if (zoomed) parts.push(`; tokens ${q0}–${q1 - 1} at ${k0}–${k1 - 1}`);
  return parts.join("");
}

export function headMatrix(fig) {
  const shapes = [
    ["matrix", false],
    ["lines", true],
  ].map(([text, lines]) => h("button", { onclick: () => fig.choose({ lines }) }, text));
  const zooms = [
    ["+", 0.5, "zoom in"],
    ["−", 2, "zoom out"],
  ].map(([text, factor, label]) =>
    h(
      "button",
      {
        "aria-label": label,
        title: label,
        onclick: () => {
          const s = fig.state();
          fig.choose({
            window: windowText(zoom(s.window, s.token, s.queries.length, s.keys.length, factor)),
          });
        },
      },
      text,
    ),
  );
  const keep = h("button", {
    onclick: () => {
      const s = fig.state();
      fig.choose({ pin: fig.get("pin") ? "" : `${s.at}/${s.layer}/${s.head}` });
    },
  });
  const sentences = h(
    "select",
    { "aria-label": "sentences", onchange: () => pickSentences(sentences.selectedIndex) },
    ...["both sentences", "A looks at A", "A looks at B", "B looks at A", "B looks at B"].map((x) =>
      h("option", {}, x),
    ),
  );
  const heading = h("div", { className: "title", "aria-live": "polite" });
  const canvas = h("canvas", { role: "application", tabIndex: 0 });
  const tile = h("canvas");
  const legend = h("div", { className: "legend" }, h("span"), h("i"), h("span"));
  const node = h(
    "div",
    { className: "matrix" },
    h("div", { className: "bar" }, ...shapes, ...zooms, ...(fig.split ? [sentences] : []), keep),
    heading,
    canvas,
    legend,
  );
  let box = null;
  let over = null;
  let dragged = null;
  let rest = "";
  let top = 0;

  function pickSentences(i) {
    const s = fig.state();
    const [a, b] = [
      [0, fig.split],
      [fig.split, s.queries.length],
    ];
    const pick = [null, [...a, ...a], [...a, ...b], [...b, ...a], [...b, ...b]][i];
    fig.choose({
      window: windowText(pick),
      ...(pick ? { token: Math.max(pick[0], Math.min(pick[1] - 1, s.token)), back: false } : {}),
    });
  }
  function update(words) {
    const s = fig.state();
    const { field, other } = fig;
    top = scaleEnd(field.w);
    paint(tile, field, other ? fig.colours.minus : fig.colours.map, top, !!other);
    rest = title(fig.name(s), field, other, !!fig.get("window"));
    heading.textContent = rest;
    shapes.forEach((b, i) => b.setAttribute("aria-pressed", fig.get("lines") === !!i));
    keep.textContent = fig.get("pin") ? "end the comparison" : "compare with this head";
    zooms[1].disabled = !fig.get("window");
    if (!fig.get("window")) sentences.selectedIndex = 0;
    canvas.setAttribute("aria-label", words ?? "");
    canvas.setAttribute(
      "aria-roledescription",
      fig.get("lines")
        ? "lines between tokens"
        : "matrix of weights: arrows move, Enter chooses, plus and minus zoom",
    );
    legend.firstChild.textContent = other ? `−${top.toFixed(2)}` : "weight 0";
    const largestWeight = `${other ? "+" : ""}${top.toFixed(top < 0.1 ? 3 : 2)}`;
    const beyond = field.w.length < 2500 ? "" : " and more";
    const uneven = s.part.uneven ? "; some rows do not sum to one" : "";
    legend.lastChild.textContent = `${largestWeight}${beyond} (square-root scale${uneven})`;
    legend.classList.toggle("minus", !!other);
    over = null;
    draw();
  }
  function draw() {
    const s = fig.state();
    const { field } = fig;
    const [q0, q1, k0, k1] = field.window;
    const [from, to, n] = s.back ? [k0, k1, field.cols] : [q0, q1, field.rows];
    const chosen =
      s.token >= from && s.token < to ? Math.floor(((s.token - from) * n) / (to - from)) : -1;
    const names = field.exact ? [s.queries.slice(q0, q1), s.keys.slice(k0, k1)] : [[], []];
    const view = {
      width: node.clientWidth || 400,
      names,
      colours: fig.colours,
      chosen,
      back: s.back,
      over,
      split: fig.split,
      written: s.part.prompt,
      same: s.same,
      top,
    };
    box = fig.get("lines") ? drawLines(canvas, field, view) : drawMatrix(canvas, tile, field, view);
  }
  // the tokens of the cell under the mouse, told in the heading
  function read() {
    const s = fig.state();
    const { field } = fig;
    const [q0, q1, k0, k1] = field.window;
    const w = field.w[over.q * field.cols + over.k];
    const q = Math.floor(q0 + (over.q * (q1 - q0)) / field.rows);
    const k = Math.floor(k0 + (over.k * (k1 - k0)) / field.cols);
    const pair = `“${short(s.queries[q])}” (${q}) → “${short(s.keys[k])}” (${k})`;
    const weight = `${fig.other && w > 0 ? "+" : ""}${w.toFixed(3)}`;
    heading.textContent = `${pair}: ${weight}${field.exact ? "" : " for the block"}`;
    return { token: q, back: false };
  }
  const place = (event) =>
    fig.field && box && !fig.get("lines")
      ? cellAt(event.offsetX, event.offsetY, box, fig.field.rows, fig.field.cols)
      : null;
  canvas.onpointermove = (event) => {
    over = place(event);
    if (over) {
      read();
      draw();
    }
  };
  canvas.onpointerleave = () => {
    if (over) {
      over = null;
      heading.textContent = rest;
      draw();
    }
  };
  canvas.onpointerdown = (event) => {
    dragged = place(event);
  };
  canvas.onpointerup = (event) => {
    if (!fig.field || !box) return;
    const {
      rows,
      cols,
      window: [q0, q1, k0, k1],
    } = fig.field;
    if (fig.get("lines")) {
      const { i, back } = box.at(event.offsetX, event.offsetY);
      return fig.choose({
        token: Math.floor(
          back
            ? k0 + (Math.min(i, cols - 1) * (k1 - k0)) / cols
            : q0 + (Math.min(i, rows - 1) * (q1 - q0)) / rows,
        ),
        back,
      });
    }
    over = place(event);
    if (!over || !dragged) return;
    const span = (a, b, low, high, n) => [
      Math.floor(low + (Math.min(a, b) * (high - low)) / n),
      Math.ceil(low + ((Math.max(a, b) + 1) * (high - low)) / n),
    ];
    if (Math.abs(over.q - dragged.q) > 2 && Math.abs(over.k - dragged.k) > 2) {
      return fig.choose({
        window: windowText([
          ...span(over.q, dragged.q, q0, q1, rows),
          ...span(over.k, dragged.k, k0, k1, cols),
        ]),
      });
    }
    fig.choose(read());
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[
      event.key
    ];
    const { token } = fig.state();
    const {
      rows,
      cols,
      window: [q0, q1],
    } = fig.field;
    if (event.key === "+" || event.key === "-") zooms[event.key === "+" ? 0 : 1].click();
    else if (event.key === "Enter" && over) fig.choose(read());
    else if (step) {
      over = over
        ? { q: clampIndex(over.q + step[0], rows), k: clampIndex(over.k + step[1], cols) }
        : { q: clampIndex(Math.floor(((token - q0) * rows) / (q1 - q0)), rows), k: 0 };
      read();
      draw();
    } else return;
    event.preventDefault();
  };
  return { node, update, draw };
}
