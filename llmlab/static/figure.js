// Mounts every figure of a page that has no kernel: the book and saved files. Live notebooks use anywidget instead.

// A model with anywidget's interface whose traits live on this page only.
export function standIn(traits) {
  const values = { ...traits }, listeners = new Map();
  const emit = (event) => (listeners.get(event) ?? []).forEach((call) => call());
  return {
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      emit(`change:${name}`);
    },
    save_changes() {},
    on(event, call) { listeners.set(event, [...(listeners.get(event) ?? []), call]); },
    off(event, call) { listeners.set(event, (listeners.get(event) ?? []).filter((other) => other !== call)); },
  };
}

// A saved file carries the module inside itself; in the book it lies beside this file.
function address(name) {
  const inside = document.getElementById(`llmlab-module-${name}`);
  if (!inside) return new URL(`./${name}.js`, import.meta.url).href;
  return URL.createObjectURL(new Blob([inside.textContent], { type: "text/javascript" }));
}

export async function mount(figure, load = (name) => import(address(name))) {
  if (figure.dataset.mounted) return;
  figure.dataset.mounted = "yes";
  const name = figure.dataset.module, caption = figure.querySelector("figcaption");
  if (!/^[a-z_]+$/.test(name)) return;
  const el = document.createElement("div");
  figure.insertBefore(el, caption);
  try {
    const traits = JSON.parse(figure.querySelector("script").textContent);
    await (await load(name)).default.render({ model: standIn(traits), el });
    caption?.remove(); // the drawn figure states in words what it shows
  } catch (error) {
    el.remove();
    caption?.append(` (The figure could not be drawn: ${error.message})`);
    console.error(error);
  }
}

function styled() {
  if (document.getElementById("llmlab-style")) return;
  const link = Object.assign(document.createElement("link"), { id: "llmlab-style", rel: "stylesheet" });
  link.href = new URL("./figure.css", import.meta.url).href;
  document.head.append(link);
}

if (typeof document !== "undefined") {
  styled();
  document.querySelectorAll("figure.llmlab-figure").forEach((figure) => mount(figure));
}
