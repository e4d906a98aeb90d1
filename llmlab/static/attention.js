// The attention figure: thumbnails of all heads, one head as a matrix, one token's weights as text.

// ---- layout: pure functions, tested in tests/js/attention.test.js

// base64 (a page) or DataView (a live notebook) → the bytes that Python packed
export async function decode(data) {
  const text = typeof data === "string" ? atob(data) : "", packed = text ? new Uint8Array(text.length)
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const raw = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(raw).arrayBuffer());
}

// weights of one head: byte² / 255² times the largest of its row
export function headWeights(bytes, nHeads, head, nq, nk) {
  const largest = new Float32Array(bytes.buffer, bytes.byteOffset + 4 * head * nq, nq);
  const coded = bytes.subarray(4 * nHeads * nq + head * nq * nk), out = new Float32Array(nq * nk);
  for (let q = 0, i = 0; q < nq; q++) for (let k = 0; k < nk; k++, i++) out[i] = largest[q] * (coded[i] / 255) ** 2;
  return out;
}

// a thumbnail: the largest weight in each tile, at most `size` tiles a side
export function pooled(weights, nq, nk, size) {
  const rows = Math.min(nq, size), cols = Math.min(nk, size), out = new Float32Array(rows * cols);
  const column = Int32Array.from({ length: nk }, (_, k) => Math.floor(k * cols / nk));
  for (let q = 0, i = 0; q < nq; q++) for (let k = 0, row = Math.floor(q * rows / nq) * cols; k < nk; k++, i++)
    if (weights[i] > out[row + column[k]]) out[row + column[k]] = weights[i];
  return { rows, cols, out };
}

// where the matrix stands beside its labels; `labels` = longest label in characters
export function fit(width, nq, nk, labels) {
  const room = Math.min(labels, 14) * 7 + 10, side = (margin) => Math.min(34, (width - margin - 4) / nk, 460 / nq);
  const named = side(room) >= 9, left = named ? room : 4, cell = side(left) > 6 ? Math.floor(side(left)) : side(left);
  return { cell, named, left, top: named ? Math.min(room, 90) : 4, width: cell * nk, height: cell * nq };
}

export function cellAt(x, y, box, nq, nk) {
  const k = Math.floor((x - box.left) / box.cell), q = Math.floor((y - box.top) / box.cell);
  return q >= 0 && q < nq && k >= 0 && k < nk ? { q, k } : null;
}

export const shown = (token) => token.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "·") || "∅";
export const number = (w) => (w >= 0.005 ? w.toFixed(2) : w > 0 ? "0.00" : "0");

// [index, weight] of the n largest
export const largest = (row, n) => [...row].map((w, i) => [i, w]).sort((a, b) => b[1] - a[1]).slice(0, n);

// what the figure shows now, in words
export function summary({ layer, head, token, back }, row, from, to) {
  const parts = largest(row, 3).filter(([, w]) => w > 0).map(([i, w]) => `“${shown(to[i])}” (${i}) ${number(w)}`);
  const verb = back ? "is looked at most by" : "looks most at";
  return `Layer ${layer}, head ${head}: “${shown(from[token])}” (${token}) ${verb} ${parts.join(", ") || "nothing"}.`;
}

// 256 colours between three stops, for the square root of a weight
export function ramp(stops) {
  const [low, middle, high] = stops, mix = (a, b, f) => a.map((x, i) => Math.round(x + (b[i] - x) * f));
  return Array.from({ length: 256 }, (_, i) => (i < 128 ? mix(low, middle, i / 127) : mix(middle, high, (i - 128) / 127)));
}

// ---- drawing

function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) key.includes("-") || key === "role" ? node.setAttribute(key, value) : (node[key] = value);
  node.append(...children);
  return node;
}

function paint(canvas, weights, rows, cols, colours) {
  Object.assign(canvas, { width: cols, height: rows });
  const image = new ImageData(cols, rows), pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[Math.round(255 * Math.sqrt(Math.min(1, weights[i])))];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// one tab stop for a group of buttons; arrows move inside it
function rove(group, columns) {
  group.addEventListener("keydown", (event) => {
    const all = [...group.querySelectorAll("button")], step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    const next = all[all.indexOf(document.activeElement) + step];
    if (!step) return;
    event.preventDefault();
    next?.focus();
    next?.click();
  });
}

async function render({ model, el }) {
  const { queries, keys, heads, weights, uneven } = model.get("data"), nq = queries.length, nk = keys.length;
  const nHeads = heads.reduce((a, b) => a + b, 0), same = queries.length === keys.length && queries.every((x, i) => x === keys[i]);
  const bytes = await decode(weights), first = (layer) => heads.slice(0, layer).reduce((a, b) => a + b, 0);
  const headOf = (layer, head) => headWeights(bytes, nHeads, first(layer) + head, nq, nk);
  const within = (name, n) => Math.max(0, Math.min(n - 1, model.get(name)));
  const state = () => {
    const layer = within("layer", heads.length);
    return { layer, head: within("head", heads[layer]), token: within("token", back ? nk : nq), back };
  };
  const choose = (values) => { for (const [name, value] of Object.entries(values)) model.set(name, value); model.save_changes(); };
  let back = false, current = null, box = null, over = null, colours = null;

  const grid = h("div", { className: "heads", role: "radiogroup", "aria-label": "layer and head" });
  const most = Math.max(...heads), side = Math.max(20, Math.min(58, 330 / most));
  grid.style.gridTemplateColumns = `auto repeat(${most}, ${side}px)`;
  grid.append(h("span", {}, ""), ...Array.from({ length: most }, (_, i) => h("span", {}, most > 8 ? `${i}` : `head ${i}`)));
  heads.forEach((n, layer) => {
    grid.append(h("span", {}, heads.length > 8 ? `${layer}` : `layer ${layer}`));
    for (let head = 0; head < most; head++) grid.append(head >= n ? h("span") : h("button", {
      role: "radio", "aria-label": `layer ${layer}, head ${head}`, title: `layer ${layer}, head ${head}`, onclick: () => choose({ layer, head }),
    }, h("canvas")));
  });
  rove(grid, () => most);
  const canvas = h("canvas", { role: "img" }), tile = h("canvas"), probe = h("span"), say = h("p", { className: "say", "aria-live": "polite" });
  const heading = h("div", { className: "title" }), legend = h("div", { className: "legend" }, "weight 0", h("i"), `1 (square-root scale)${uneven ? "; some rows do not sum to one" : ""}`);
  const matrix = h("div", { className: "matrix" }, heading, canvas, legend);
  const strip = (tokens, label, pick) => h("div", { className: "chips", role: "group", "aria-label": label },
    ...tokens.map((token, i) => h("button", { className: "tok", onclick: () => pick(i) }, shown(token), h("small"))));
  const queryChips = strip(queries, "tokens that look", (i) => { if (!same) back = false; choose({ token: i }); update(); });
  const keyChips = same ? queryChips : strip(keys, "tokens that are looked at", (i) => { back = true; choose({ token: i }); update(); });
  const direction = same ? [["where it looks", false], ["who looks at it", true]].map(([text, value]) =>
    h("button", { onclick: () => { back = value; update(); } }, text)) : [];
  const text = h("div", { className: "text" }, h("div", { className: "bar" }, same ? "Click a token:" : "Click a token that looks (first row) or one that is looked at (second row):", ...direction), queryChips, ...(same ? [] : [keyChips]), say);
  [...new Set([queryChips, keyChips])].forEach((strip) => rove(strip, () => 8));
  el.classList.add("llmlab");
  el.append(h("div", { className: "attention" }, grid, matrix, text), probe);

  function theme() {
    const read = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number); };
    const map = Uint32Array.from(ramp(["--map0", "--map1", "--map2"].map(read)), ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
    if (colours?.[0] === map[0]) return;
    colours = map;
    [...grid.querySelectorAll("button")].forEach((button, i) => {
      const { rows, cols, out } = pooled(headWeights(bytes, nHeads, i, nq, nk), nq, nk, 48);
      paint(button.firstChild, out, rows, cols, colours);
    });
    update();
  }
  function draw() {
    const { token } = state(), room = Math.max(...queries.concat(keys).map((x) => shown(x).length));
    box = fit(matrix.clientWidth || 400, nq, nk, room);
    const scale = devicePixelRatio || 1, pen = canvas.getContext("2d"), style = getComputedStyle(el);
    const [width, height] = [box.left + box.width + 4, box.top + box.height + 4];
    Object.assign(canvas, { width: width * scale, height: height * scale });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    pen.scale(scale, scale);
    pen.imageSmoothingEnabled = box.cell < 1;
    pen.drawImage(tile, box.left, box.top, box.width, box.height);
    probe.style.color = "var(--accent)";
    pen.strokeStyle = getComputedStyle(probe).color;
    pen.lineWidth = 2;
    const line = back ? [box.left + token * box.cell, box.top, box.cell, box.height] : [box.left, box.top + token * box.cell, box.width, box.cell];
    pen.strokeRect(...line);
    if (over) pen.strokeRect(box.left + over.k * box.cell, box.top + over.q * box.cell, box.cell, box.cell);
    if (!box.named) return;
    pen.fillStyle = style.color;
    pen.font = `${Math.min(13, box.cell + 1)}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
    pen.textBaseline = "middle";
    const cut = (x) => ([...shown(x)].length > 14 ? [...shown(x)].slice(0, 13).join("") + "…" : shown(x));
    pen.textAlign = "right";
    queries.forEach((x, i) => pen.fillText(cut(x), box.left - 5, box.top + (i + 0.5) * box.cell));
    pen.textAlign = "left";
    keys.forEach((x, i) => { pen.save(); pen.translate(box.left + (i + 0.5) * box.cell, box.top - 5); pen.rotate(-Math.PI / 3); pen.fillText(cut(x), 0, 0); pen.restore(); });
  }
  function update() {
    const s = state(), [from, to] = back ? [keys, queries] : [queries, keys];
    current = headOf(s.layer, s.head);
    const row = back ? Float32Array.from({ length: nq }, (_, q) => current[q * nk + s.token]) : current.subarray(s.token * nk, (s.token + 1) * nk);
    paint(tile, current, nq, nk, colours);
    heading.textContent = `Layer ${s.layer}, head ${s.head}: rows look at columns`;
    say.textContent = summary(s, row, from, to);
    canvas.setAttribute("aria-label", say.textContent);
    [...grid.querySelectorAll("button")].forEach((b, i) => { b.setAttribute("aria-checked", i === first(s.layer) + s.head); b.tabIndex = i === first(s.layer) + s.head ? 0 : -1; });
    direction.forEach((b, i) => b.setAttribute("aria-pressed", back === !!i));
    const source = back ? keyChips : queryChips, target = back ? queryChips : keyChips;
    for (const strip of new Set([source, target])) [...strip.children].forEach((chip, i) => {
      const w = strip === target ? row[i] : null, chosen = strip === source && i === s.token;
      chip.style.background = w === null ? "" : `color-mix(in srgb, var(--chip) ${Math.round(100 * Math.sqrt(Math.min(1, w)))}%, var(--paper))`;
      chip.lastChild.textContent = w === null ? "" : number(w);
      chip.lastChild.className = w > 0 ? "" : "none";
      chip.setAttribute("aria-pressed", chosen);
      chip.tabIndex = chosen || (i === 0 && strip !== source) ? 0 : -1;
    });
    draw();
  }
  canvas.onmousemove = (event) => {
    over = cellAt(event.offsetX, event.offsetY, box, nq, nk);
    if (over) heading.textContent = `“${shown(queries[over.q])}” (${over.q}) → “${shown(keys[over.k])}” (${over.k}): ${current[over.q * nk + over.k].toFixed(3)}`;
    draw();
  };
  canvas.onmouseleave = () => { over = null; update(); };
  canvas.onclick = () => { if (over) { back = false; choose({ token: over.q }); update(); } };
  ["layer", "head", "token"].forEach((name) => model.on(`change:${name}`, update));
  const resized = new ResizeObserver(() => current && draw()), themed = new MutationObserver(theme);
  theme();
  resized.observe(matrix);
  for (const node of [document.documentElement, document.body]) themed.observe(node, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "class"] });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", theme);
  return () => { resized.disconnect(); themed.disconnect(); dark.removeEventListener("change", theme); };
}

export default { render };
