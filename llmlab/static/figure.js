// Mounts every figure of a page that has no kernel: the book and saved files. Live notebooks use anywidget instead.

// ---- a link to a state: #llmlab-2?layer=1&head=3 is the third figure of the page, with what differs from its start

export function stateText(start, now) {
  const changed = Object.entries(now).filter(
    ([name, value]) => name !== "data" && name !== "alt" && value !== start[name],
  );
  return new URLSearchParams(changed).toString();
}
export function readState(start, text) {
  const read = { boolean: (x) => x === "true", number: Number, string: (x) => x };
  const known = [...new URLSearchParams(text)].filter(
    ([name]) => (typeof start[name]) in read && name !== "alt",
  );
  return Object.fromEntries(
    known
      .map(([name, x]) => [name, read[typeof start[name]](x)])
      .filter(([, x]) => typeof x !== "number" || Number.isFinite(x)),
  );
}

// A model with anywidget's interface whose traits live on this page only.
export function standIn(traits, link) {
  const values = { ...traits };
  const listeners = new Map();
  const emit = (event) => (listeners.get(event) ?? []).forEach((call) => call());
  return {
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      emit(`change:${name}`);
    },
    save_changes() {},
    ...(link ? { link: () => link(values) } : {}),
    on(event, call) {
      listeners.set(event, [...(listeners.get(event) ?? []), call]);
    },
    off(event, call) {
      listeners.set(
        event,
        (listeners.get(event) ?? []).filter((other) => other !== call),
      );
    },
  };
}

// A saved file carries the module inside itself; in the book it lies beside this file.
function address(name) {
  const inside = document.getElementById(`llmlab-module-${name}`);
  if (!inside) return new URL(`./${name}.js`, import.meta.url).href;
  return URL.createObjectURL(new Blob([inside.textContent], { type: "text/javascript" }));
}

// the state that the address bar names for this figure
function fromAddress(at, start) {
  const [, which, text] = /^#llmlab-(\d+)\?(.*)$/.exec(location.hash) ?? [];
  return Number(which) === at ? readState(start, text) : null;
}

export async function mount(figure, at = 0, load = (name) => import(address(name))) {
  if (figure.dataset.mounted) return;
  figure.dataset.mounted = "yes";
  const name = figure.dataset.module;
  const caption = figure.querySelector("figcaption");
  if (!/^[a-z_]+$/.test(name)) return;
  const el = document.createElement("div");
  figure.insertBefore(el, caption);
  try {
    const traits = JSON.parse(figure.querySelector("script").textContent);
    const asked = fromAddress(at, traits);
    const link = (now) => `${location.href.split("#")[0]}#llmlab-${at}?${stateText(traits, now)}`;
    const model = standIn({ ...traits, ...asked }, link);
    await (await load(name)).default.render({ model, el });
    caption?.remove(); // the drawn figure states in words what it shows
    if (asked) figure.scrollIntoView();
    addEventListener("hashchange", () =>
      Object.entries(fromAddress(at, traits) ?? {}).forEach(([name, value]) =>
        model.set(name, value),
      ),
    );
  } catch (error) {
    el.remove();
    caption?.append(` (The figure could not be drawn: ${error.message})`);
    console.error(error);
  }
}

function styled() {
  if (document.getElementById("llmlab-style")) return;
  const link = Object.assign(document.createElement("link"), {
    id: "llmlab-style",
    rel: "stylesheet",
  });
  link.href = new URL("./figure.css", import.meta.url).href;
  document.head.append(link);
}

if (typeof document !== "undefined") {
  styled();
  document.querySelectorAll("figure.llmlab-figure").forEach((figure, at) => mount(figure, at));
}
