// The patches figure: choose a word, and see which patches of the picture its position looked at.
import { liveText } from "./controls.js";
import { chooser, clampIndex, h, press, rove, shown, svg, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/patches.test.js

// where the patches are, row by row, in pixels
export function squares(n, wide, side) {
  const columns = wide / side;
  return Array.from({ length: n }, (_, i) => ({
    x: side * (i % columns),
    y: side * Math.floor(i / columns),
  }));
}

// how dark each patch is veiled: the one with the most weight not at all
export function veil(weights) {
  const most = Math.max(...weights, 1e-9);
  return weights.map((w) => 0.82 * (1 - w / most));
}

export const strongest = (weights) => weights.indexOf(Math.max(...weights));
export const rounded = (w) => `${(100 * w).toFixed(0)} %`;

export function summary(word, weights, columns) {
  const i = strongest(weights);
  const place = `row ${Math.floor(i / columns) + 1}, column ${(i % columns) + 1}`;
  const share = `${rounded(weights[i])} of its attention`;
  return `Before it wrote “${word}”, the model looked most at the patch in ${place}: ${share}.`;
}

// ---- drawing

function render({ model, el }) {
  const { words, weights, pixels, wide, side } = model.get("data");
  const say = liveText();
  const high = pixels.length / wide;
  const at = squares(weights[0].length, wide, side);
  const choose = chooser(model);
  const chips = words.map((word, i) =>
    h("button", { className: "tok", onclick: () => choose({ word: i }) }, shown(word)),
  );
  const row = h(
    "div",
    { className: "chips", role: "group", "aria-label": "choose a word" },
    ...chips,
  );
  const image = svg("svg", {
    viewBox: `0 0 ${wide} ${high}`,
    role: "img",
    "shape-rendering": "crispEdges",
  });
  pixels.forEach((fill, i) =>
    image.append(svg("rect", { x: i % wide, y: Math.floor(i / wide), width: 1, height: 1, fill })),
  );
  const veils = at.map(({ x, y }) =>
    svg("rect", { x, y, width: side, height: side, class: "veil" }),
  );
  const told = at.map(({ x, y }) =>
    svg("text", { x: x + side / 2, y: y + side - 0.6, "text-anchor": "middle" }),
  );
  image.append(...veils, ...told);
  rove(row, () => 1);
  el.classList.add("llmlab");
  el.append(row, h("div", { className: "patches" }, image), say);

  function update() {
    const i = clampIndex(model.get("word"), words.length);
    const dark = veil(weights[i]);
    chips.forEach((chip, j) => press(chip, j === i));
    veils.forEach((rect, j) => rect.setAttribute("fill-opacity", dark[j].toFixed(3)));
    told.forEach((text, j) => {
      text.textContent = weights[i][j] >= 0.095 ? rounded(weights[i][j]) : "";
    });
    say.textContent = summary(shown(words[i]), weights[i], wide / side);
    image.setAttribute("aria-label", say.textContent);
  }
  tools(el, model, "patches");
  model.on("change:word", update);
  update();
}

export default { render };
