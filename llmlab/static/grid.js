// A grid of cells: a number's colour, a short text, and on a click what stands behind it.
import { liveText } from "./controls.js";
import {
  chooser,
  clampIndex,
  h,
  press,
  reveal,
  rove,
  scrollHint,
  short,
  shown,
  tint,
  tools,
  unseen,
} from "./dom.js";

// ---- layout: pure functions, tested in tests/js/grid.test.js

// a number as a share of the largest number by size: 0 → 0, the largest → 1, below zero → negative
export function shares(values) {
  const most = Math.max(...values.flat().map(Math.abs));
  return values.map((row) => row.map((x) => (most > 0 ? x / most : 0)));
}

// 0.123456 → 0.12, 123.4 → 123, 0 → 0; a minus that is readable
export const number = (x) =>
  String(Number(x.toFixed(Math.abs(x) < 10 ? 2 : 0)) || 0).replace("-", "−");

// a share as a colour of the style sheet; below zero another one
export const shade = (share) => tint(share < 0 ? "--c1" : "--chip", 0.7 * Math.abs(share));

export function summary({ rows, columns, values, tips }, row, column) {
  const tip = tips?.[row]?.[column];
  const place = `${rows[row]}, “${shown(columns[column])}” (${column})`;
  const told = `${place}: ${number(values[row][column])}`;
  return tip ? `${told}. ${tip}` : told;
}

// ---- drawing

function render({ model, el }) {
  const data = model.get("data");
  const { rows, columns, values, labels, title } = data;
  const part = shares(values);
  const choose = chooser(model);
  const cells = rows.map((_, r) =>
    columns.map((_, c) => {
      const cell = h(
        "button",
        {
          className: "tok cell",
          title: summary(data, r, c),
          onclick: () => choose({ row: r, column: c }),
        },
        labels ? short(labels[r][c], 8) : number(values[r][c]),
        unseen(summary(data, r, c)),
      );
      cell.style.background = shade(part[r][c]);
      return cell;
    }),
  );
  const head = [
    h("span"),
    ...columns.map((name) =>
      h("span", { className: "tok head", title: shown(name) }, short(name, 8)),
    ),
  ];
  const grid = h(
    "div",
    { className: "cells", role: "group", "aria-label": title },
    ...head,
    ...rows.flatMap((name, r) => [h("span", { className: "side" }, name), ...cells[r]]),
  );
  const say = liveText();
  grid.style.gridTemplateColumns = `max-content repeat(${columns.length}, minmax(2.6rem, 1fr))`;
  rove(grid, () => columns.length);
  el.classList.add("llmlab");
  const box = h("div", { className: "scroll", tabIndex: -1 }, grid);
  const cut = scrollHint(box);
  el.append(h("div", { className: "title" }, title), box, cut.line, say);

  function update() {
    const row = clampIndex(model.get("row"), rows.length);
    const column = clampIndex(model.get("column"), columns.length);
    cells.forEach((line, r) => line.forEach((cell, c) => press(cell, r === row && c === column)));
    say.textContent = summary(data, row, column);
    reveal(cells[row][column], box);
  }
  tools(el, model, "grid");
  model.on("change:row", update);
  model.on("change:column", update);
  update();
  return cut.end;
}

export default { render };
