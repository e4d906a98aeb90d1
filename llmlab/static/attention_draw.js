// How the attention figure paints: maps as pixels, a matrix with its labels, lines between two columns of tokens.
import { short, themeColours } from "./dom.js";
import { fit, lines, ramp } from "./attention_layout.js";

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

// one pixel a cell; the square root keeps small weights apart, `top` is the last colour
export function pixels({ w, rows, cols }, colours, top, minus = false) {
  const image = new ImageData(cols, rows);
  const out = new Uint32Array(image.data.buffer);
  const scale = 1 / (top || 1);
  if (minus) {
    for (let i = 0; i < out.length; i++) {
      out[i] =
        colours[
          Math.round(127.5 + 127 * Math.sign(w[i]) * Math.sqrt(Math.min(1, Math.abs(w[i]) * scale)))
        ];
    }
  } else {
    for (let i = 0; i < out.length; i++) {
      out[i] = colours[Math.round(255 * Math.sqrt(Math.min(1, w[i] * scale)))];
    }
  }
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

// `names` = labels of rows and columns, none where a cell is a block of tokens;
// `split` = where a second sentence begins
export function drawMatrix(
  canvas,
  tile,
  field,
  { width, names, colours, chosen, back, over, split, written, same },
) {
  const {
    rows,
    cols,
    window: [q0, q1, k0, k1],
  } = field;
  const room = Math.max(0, ...names.flat().map((x) => short(x).length));
  const box = fit(width, rows, cols, room);
  const pen = sheet(canvas, box.left + box.width + 4, box.top + box.height + 4, colours);
  pen.imageSmoothingEnabled = box.cell < 1;
  pen.drawImage(tile, box.left, box.top, box.width, box.height);
  const line = (index, along) =>
    pen.strokeRect(
      ...(along
        ? [box.left, box.top + index * box.cell, box.width, Math.max(2, box.cell)]
        : [box.left + index * box.cell, box.top, Math.max(2, box.cell), box.height]),
    );
  if (chosen >= 0) line(chosen, !back);
  if (over) {
    pen.strokeRect(
      box.left + over.k * box.cell,
      box.top + over.q * box.cell,
      Math.max(3, box.cell),
      Math.max(3, box.cell),
    );
  }
  // where the tokens begin that the model wrote: a line across, and where both sides are one text a line down
  if (written > q0 && written < q1) {
    const y = box.top + ((written - q0) * box.height) / (q1 - q0);
    const x = box.left + ((written - k0) * box.width) / (k1 - k0);
    pen.save();
    pen.setLineDash([2, 3]);
    pen.strokeStyle = colours.low;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(box.left + box.width, y);
    if (same && written < k1) {
      pen.moveTo(x, box.top);
      pen.lineTo(x, box.top + box.height);
    }
    pen.stroke();
    pen.restore();
  }
  if (split) {
    pen.setLineDash([5, 4]);
    pen.lineWidth = 1.5;
    const [y, x] = [
      ((split - q0) * box.height) / (q1 - q0),
      ((split - k0) * box.width) / (k1 - k0),
    ];
    pen.beginPath();
    if (y > 0 && y < box.height) {
      pen.moveTo(box.left, box.top + y);
      pen.lineTo(box.left + box.width, box.top + y);
    }
    if (x > 0 && x < box.width) {
      pen.moveTo(box.left + x, box.top);
      pen.lineTo(box.left + x, box.top + box.height);
    }
    pen.stroke();
  }
  if (box.named) {
    pen.font = `${Math.min(13, box.cell + 1)}px ${FONT}`;
    pen.textAlign = "right";
    names[0].forEach((x, i) =>
      pen.fillText(short(x), box.left - 5, box.top + (i + 0.5) * box.cell),
    );
    pen.textAlign = "left";
    names[1].forEach((x, i) => {
      pen.save();
      pen.translate(box.left + (i + 0.5) * box.cell, box.top - 5);
      pen.rotate(-Math.PI / 3);
      pen.fillText(short(x), 0, 0);
      pen.restore();
    });
  }
  return box;
}

// the classical picture: those that look on the left, those looked at on the right, a line a weight
export function drawLines(canvas, field, { width, names, colours, chosen, back, top }) {
  const { rows, cols } = field;
  const most = Math.max(rows, cols);
  const gap = Math.min(28, Math.max(460 / most, Math.min(20, 1400 / most)));
  const side = gap >= 9 ? 14 * 7.5 : 12;
  const height = most * gap + 8;
  const pen = sheet(canvas, width, height, colours);
  const y = (i) => 4 + (i + 0.5) * gap;
  const [left, right] = [side, width - side];
  for (const [q, k, w] of lines(field)) {
    const mine = chosen < 0 || (back ? k : q) === chosen;
    const strength = Math.sqrt(Math.min(1, Math.abs(w) / (top || 1)));
    pen.globalAlpha = mine ? 0.15 + 0.85 * strength : 0.1 * strength;
    Object.assign(pen, {
      strokeStyle: w < 0 ? colours.low : colours.high,
      lineWidth: mine ? 1 + 2 * strength : 1,
    });
    pen.setLineDash(w < 0 ? [6, 4] : []);
    pen.beginPath();
    pen.moveTo(left, y(q));
    pen.lineTo(right, y(k));
    pen.stroke();
  }
  Object.assign(pen, { globalAlpha: 1, font: `${Math.min(13, gap)}px ${FONT}` });
  const at = (x, py) => ({ i: Math.max(0, Math.floor((py - 4) / gap)), back: x > width / 2 });
  if (gap < 9) return { at };
  for (const [all, x, align, is] of [
    [names[0], left - 6, "right", !back],
    [names[1], right + 6, "left", back],
  ]) {
    pen.textAlign = align;
    all.forEach((token, i) => {
      pen.font = `${is && i === chosen ? "bold " : ""}${Math.min(13, gap)}px ${FONT}`;
      pen.fillText(short(token), x, y(i));
    });
  }
  return { at };
}
