// The attention figure's weights: what the page carries, decoded when it is opened, and what Python sends on request.
import { coarse, crop, subtract, unpack } from "./attention_layout.js";

const DEEP = 256; // a window this small is shown in exact weights

// base64 (a page) or DataView (a live notebook) → the bytes that Python packed
export async function decode(data) {
  const raw = new Blob([
    typeof data === "string"
      ? fromBase64(data)
      : new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  ]);
  return new Uint8Array(
    await new Response(raw.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer(),
  );
}
function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const plain = atob(text);
  const bytes = new Uint8Array(plain.length);
  for (let i = 0; i < plain.length; i++) bytes[i] = plain.charCodeAt(i);
  return bytes;
}

// asks Python; the promise ends when it answers, and fails where nobody can
export function line(model) {
  const waiting = new Map();
  const key = ({ part, layer, head, window }) => JSON.stringify([part, layer, head, window]);
  model.on("msg:custom", (content, buffers) => {
    waiting.get(key(content))?.(buffers[0]);
    waiting.delete(key(content));
  });
  return (question) =>
    new Promise((done, fail) => {
      if (!model.send) return fail(new Error("no Python"));
      waiting.set(key(question), done);
      model.send(question);
      setTimeout(() => fail(new Error("no answer")), 5000);
    });
}

// weights with the window of tokens that they stand for; exact where a cell is one token
function frame(w, [rows, cols], window) {
  const exact = rows === window[1] - window[0] && cols === window[3] - window[2];
  return { w, rows, cols, window, exact };
}

// keeps what was computed, the last `n`; what failed may be asked again
function memory(n) {
  const kept = new Map();
  return (key, make) => {
    if (!kept.has(key)) {
      const promise = make().catch((error) => {
        kept.delete(key);
        throw error;
      });
      kept.set(key, promise);
    }
    if (kept.size > n) kept.delete(kept.keys().next().value);
    return kept.get(key);
  };
}

// one part's heads: `thumb` at once, `map` the finest whole map, `tile` exact weights of a window
export async function store(part, at, ask) {
  const { entries, rows, cols, maps, size, queries, keys } = part;
  const whole = [0, queries.length, 0, keys.length];
  const bytes = await decode(part.thumbs);
  const places = new Map(entries.map(([layer, head], i) => [`${layer} ${head}`, i]));
  const index = (layer, head) => places.get(`${layer} ${head}`) ?? -1;
  const remember = memory(40);
  const thumb = (i) => frame(unpack(bytes, entries.length, rows, cols, i), [rows, cols], whole);
  const read = async (data, shape, window) =>
    frame(unpack(await decode(data), 1, ...shape), shape, window);
  function map(layer, head) {
    const i = index(layer, head);
    if (rows === size[0] && cols === size[1]) return Promise.resolve(thumb(i));
    const fetchMap = async () => {
      const data = maps[i] ?? (await ask({ part: at, layer, head, window: null }));
      return read(data, size, whole);
    };
    return remember(`${i}`, fetchMap).catch(() => thumb(i));
  }
  function tile(layer, head, window) {
    const shape = [window[1] - window[0], window[3] - window[2]];
    const fetchTile = async () => read(await ask({ part: at, layer, head, window }), shape, window);
    return remember(`${index(layer, head)} ${window}`, fetchTile);
  }
  const small = (i, side) => coarse(thumb(i), Math.min(rows, side), Math.min(cols, side));
  return { index, thumb, whole, small, map, tile };
}

// a window of one head, exact where it can be; and the most that is known of the whole head
export async function windowOf(heads, layer, head, window) {
  const whole = await heads.map(layer, head);
  const isSmall = window[1] - window[0] <= DEEP && window[3] - window[2] <= DEEP;
  if (whole.exact || !isSmall) return [crop(whole, window), whole];
  const exact = await heads.tile(layer, head, window).catch(() => null); // no Python answers
  return exact ? [exact, exact] : [crop(whole, window), whole];
}

// the same of one head minus another
export async function differenceOf(one, other, window) {
  const [first, second] = await Promise.all([windowOf(...one, window), windowOf(...other, window)]);
  return [subtract(first[0], second[0]), subtract(first[1], second[1])];
}
