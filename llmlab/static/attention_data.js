// The attention figure's weights: what the page carries, decoded when it is opened, and what Python sends on request.
import { coarse, unpack } from "./attention_layout.js";

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

// one part's heads: `thumb` at once, `map` the finest whole map, `tile` exact weights of a window
export async function store(part, at, ask) {
  const { entries, rows, cols, maps, size, queries, keys } = part;
  const [nq, nk] = [queries.length, keys.length];
  const whole = [0, nq, 0, nk];
  const bytes = await decode(part.thumbs);
  const places = new Map(entries.map(([l, x], i) => [`${l} ${x}`, i]));
  const index = (layer, head) => places.get(`${layer} ${head}`) ?? -1;
  const kept = new Map();
  const frame = (w, [r, c], window) => ({
    w,
    rows: r,
    cols: c,
    window,
    exact: r === window[1] - window[0] && c === window[3] - window[2],
  });
  const thumb = (i) => frame(unpack(bytes, entries.length, rows, cols, i), [rows, cols], whole);
  const remember = (key, make) => {
    if (!kept.has(key)) {
      kept.set(
        key,
        make().catch((error) => {
          kept.delete(key);
          throw error;
        }),
      );
    }
    if (kept.size > 40) kept.delete(kept.keys().next().value);
    return kept.get(key);
  };
  const read = async (data, [r, c], window) =>
    frame(unpack(await decode(data), 1, r, c), [r, c], window);
  return {
    index,
    thumb,
    whole,
    small: (i, side) => coarse(thumb(i), Math.min(rows, side), Math.min(cols, side)),
    map(layer, head) {
      const i = index(layer, head);
      if (rows === size[0] && cols === size[1]) return Promise.resolve(thumb(i));
      return remember(`${i}`, async () =>
        read(maps[i] ?? (await ask({ part: at, layer, head, window: null })), size, whole),
      ).catch(() => thumb(i));
    },
    tile(layer, head, window) {
      return remember(`${index(layer, head)} ${window}`, async () =>
        read(
          await ask({ part: at, layer, head, window }),
          [window[1] - window[0], window[3] - window[2]],
          window,
        ),
      );
    },
  };
}
