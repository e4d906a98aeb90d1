// How the attention figure paints: maps as pixels, a matrix with its labels, lines between two columns of tokens.
import { short, themeColours } from "./dom.js";
import { fit, lines, ramp, rampIndex } from "./attention_layout.js";

const packed = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
export function palette(el) {
  const [map0, map1, map2, low, high, ink, accent] = themeColours(el, [
    "--map0",
    "--map1",
    "--map2",
    "--c1",
    "--c0",
    "--ink",
    "--accent",
  ]);
  const rgb = (c) => `rgb(${c})`;
  return {
    map: Uint32Array.from(ramp([map0, map1, map2]), packed),
    minus: Uint32Array.from(ramp([low, map0, high]), packed),
    ink: rgb(ink),
    accent: rgb(accent),
    low: rgb(low),
    high: rgb(high),
  };
}

// one pixel a cell, coloured by its weight; `top` is the weight of the last colour
export function pixels({ w, rows, cols }, colours, top, minus = false) {
  const image = new ImageData(cols, rows);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = colours[rampIndex(w[i], top, minus)];
  return image;
}
export function paint(canvas, map, ...how) {
  Object.assign(canvas, { width: map.cols, height: map.rows });
  canvas.getContext("2d").putImageData(pixels(map, ...how), 0, 0);
}

function sheet(canvas, width, height, colours) {
  const scale = devicePixelRatio || 1;
  const pen = canvas.getContext("2d");
  Object.assign(canvas, { width: width * scale, height: height * scale });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  pen.scale(scale, scale);
  Object.assign(pen, {
    strokeStyle: colours.accent,
    fillStyle: colours.ink,
    lineWidth: 2,
    textBaseline: "middle",
    direction: "ltr",
  });
  return pen;
}
const FONT = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace';

const fontOf = (size) => `${Math.min(13, size)}px ${FONT}`;

// lines [x0, y0, x1, y1], stroked as one path
function strokeLines(pen, ...ends) {
  pen.beginPath();
  for (const [x0, y0, x1, y1] of ends) {
    pen.moveTo(x0, y0);
    pen.lineTo(x1, y1);
  }
  pen.stroke();
}

// ---- the matrix

// a frame around the row of the chosen query, or (back) the column of the chosen key
function frameChosen(pen, { left, top, width, height, cell }, chosen, back) {
  const size = Math.max(2, cell);
  if (back) pen.strokeRect(left + chosen * cell, top, size, height);
  else pen.strokeRect(left, top + chosen * cell, width, size);
}

function frameCell(pen, { left, top, cell }, { q, k }) {
  const size = Math.max(3, cell);
  pen.strokeRect(left + k * cell, top + q * cell, size, size);
}

// where the tokens begin that the model wrote: a line across, and where both sides are one text a line down
function markWritten(pen, box, [q0, q1, k0, k1], written, same, colour) {
  if (!(written > q0 && written < q1)) return;
  const y = box.top + ((written - q0) * box.height) / (q1 - q0);
  const x = box.left + ((written - k0) * box.width) / (k1 - k0);
  pen.save();
  pen.setLineDash([2, 3]);
  pen.strokeStyle = colour;
  const across = [0, y, box.left + box.width, y];
  const down = [x, box.top, x, box.top + box.height];
  strokeLines(pen, across, ...(same && written < k1 ? [down] : []));
  pen.restore();
}

// where the second sentence begins, on both sides
function markSplit(pen, box, [q0, q1, k0, k1], split) {
  const y = ((split - q0) * box.height) / (q1 - q0);
  const x = ((split - k0) * box.width) / (k1 - k0);
  const [right, bottom] = [box.left + box.width, box.top + box.height];
  const across = [box.left, box.top + y, right, box.top + y];
  const down = [box.left + x, box.top, box.left + x, bottom];
  const isAcross = y > 0 && y < box.height;
  const isDown = x > 0 && x < box.width;
  pen.save();
  pen.setLineDash([5, 4]);
  pen.lineWidth = 1.5;
  strokeLines(pen, ...(isAcross ? [across] : []), ...(isDown ? [down] : []));
  pen.restore();
}

// the tokens: of the queries on the left, of the keys slanting above
function writeNames(pen, { left, top, cell }, [queries, keys]) {
  pen.font = fontOf(cell + 1);
  pen.textAlign = "right";
  queries.forEach((token, i) => pen.fillText(short(token), left - 5, top + (i + 0.5) * cell));
  pen.textAlign = "left";
  keys.forEach((token, i) => {
    pen.save();
    pen.translate(left + (i + 0.5) * cell, top - 5);
    pen.rotate(-Math.PI / 3);
    pen.fillText(short(token), 0, 0);
    pen.restore();
  });
}

// `names` = labels of rows and columns, none where a cell is a block of tokens;
// `split` = where a second sentence begins
export function drawMatrix(canvas, tile, field, look) {
  const { width, names, colours, chosen, back, over, split, written, same } = look;
  const longest = Math.max(0, ...names.flat().map((token) => short(token).length));
  const box = fit(width, field.rows, field.cols, longest);
  const pen = sheet(canvas, box.left + box.width + 4, box.top + box.height + 4, colours);
  pen.imageSmoothingEnabled = box.cell < 1;
  pen.drawImage(tile, box.left, box.top, box.width, box.height);
  if (chosen >= 0) frameChosen(pen, box, chosen, back);
  if (over) frameCell(pen, box, over);
  markWritten(pen, box, field.window, written, same, colours.low);
  if (split) markSplit(pen, box, field.window, split);
  if (box.named) writeNames(pen, box, names);
  return box;
}

// ---- the lines

// the classical picture: those that look on the left, those looked at on the right, a line a weight
export function drawLines(canvas, field, look) {
  const { width, names, colours, chosen, back, top } = look;
  const most = Math.max(field.rows, field.cols);
  const gap = Math.min(28, Math.max(460 / most, Math.min(20, 1400 / most)));
  const side = gap >= 9 ? 14 * 7.5 : 12;
  const pen = sheet(canvas, width, most * gap + 8, colours);
  const y = (i) => 4 + (i + 0.5) * gap;
  for (const [q, k, w] of lines(field)) {
    const isChosen = chosen < 0 || (back ? k : q) === chosen;
    setStroke(pen, w, isChosen, top, colours);
    strokeLines(pen, [side, y(q), width - side, y(k)]);
  }
  pen.globalAlpha = 1;
  if (gap >= 9) {
    pen.textAlign = "right";
    writeColumn(pen, names[0], side - 6, y, gap, back ? -1 : chosen);
    pen.textAlign = "left";
    writeColumn(pen, names[1], width - side + 6, y, gap, back ? chosen : -1);
  }
  return { at: (px, py) => ({ i: Math.max(0, Math.floor((py - 4) / gap)), back: px > width / 2 }) };
}

// the larger the weight the stronger its line; below zero it is dashed; lines of other tokens are faint
function setStroke(pen, w, isChosen, top, colours) {
  const strength = Math.sqrt(Math.min(1, Math.abs(w) / (top || 1)));
  pen.globalAlpha = isChosen ? 0.15 + 0.85 * strength : 0.1 * strength;
  pen.strokeStyle = w < 0 ? colours.low : colours.high;
  pen.lineWidth = isChosen ? 1 + 2 * strength : 1;
  pen.setLineDash(w < 0 ? [6, 4] : []);
}

function writeColumn(pen, tokens, x, y, gap, chosen) {
  tokens.forEach((token, i) => {
    pen.font = `${i === chosen ? "bold " : ""}${fontOf(gap)}`;
    pen.fillText(short(token), x, y(i));
  });
}
