// What all figures share: elements, tokens made visible, keyboard groups, theme colours, and the row of tools.

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    key.includes("-") || key === "role" ? node.setAttribute(key, value) : (node[key] = value);
  }
  node.append(...children);
  return node;
}
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- tokens: nothing in them is invisible, nothing turns the text around them

const SIGNS = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽", "\u007f": "␡" };
const HIDDEN =
  /[\u0080-\u009f\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^\u200d|\u200d$/gu;
const code = (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

export function shown(token) {
  const seen = token.replace(
    /[\u0000-\u0020\u007f\u00a0]/g,
    (c) => SIGNS[c] ?? String.fromCharCode(0x2400 + c.charCodeAt(0)),
  );
  return seen.replace(HIDDEN, code).replace(/^(?=\p{M})/u, "◌") || "∅";
}
export const short = (token, n = 14) => {
  const all = [...shown(token)];
  return all.length > n ? `${all.slice(0, n - 1).join("")}…` : all.join("");
};

// a share; what is small is not nothing
export function percent(p) {
  if (p >= 0.0995) return `${(100 * p).toFixed(0)} %`;
  if (p >= 0.0005) return `${(100 * p).toFixed(1)} %`;
  return p > 0 ? "< 0.1 %" : "0 %";
}

// "1 pair", "2 pairs"
export const counted = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

// a colour of the style sheet, as much of it as the share says, on the colour of the ground
export function tint(colour, share, ground = "--paper") {
  return `color-mix(in srgb, var(${colour}) ${Math.round(100 * share)}%, var(${ground}))`;
}

// ---- behaviour

// scroll a box sideways until a part of it that was chosen can be seen
export const reveal = (part, box) =>
  requestAnimationFrame(() => {
    const at = part.getBoundingClientRect();
    const seen = box.getBoundingClientRect();
    if (at.left < seen.left || at.right > seen.right) {
      box.scrollLeft += at.left - seen.left - (seen.width - at.width) / 2;
    }
  });
// a state may come from a link or from Python, so it may be any number:
// the nearest place of n, the nearest number of a range
export const clampIndex = (value, n) => Math.max(0, Math.min(n - 1, Math.round(value) || 0));
export const clamp = (value, low, high) =>
  Number.isNaN(value) ? low : Math.max(low, Math.min(high, value));

// words that only a screen reader says, after what is seen: a label that differs from the text
// would keep speech control from it
export const unseen = (text) => h("span", { className: "only-read" }, text);

// where the rest of a box is that scrolls
function hiddenPart(wide, moreOnTheRight, moreBelow) {
  if (wide)
    return moreOnTheRight ? "more columns on the right: scroll →" : "← more columns on the left";
  return moreBelow ? "more below: scroll ↓" : "↑ more above";
}

// a box that scrolls, with a line under it that says so while something is cut;
// gives back the line and what ends it
export function scrollHint(box) {
  const line = h("div", { className: "quiet more", hidden: true });
  const look = () => {
    const wide = box.scrollWidth - box.clientWidth > 4;
    const tall = box.scrollHeight - box.clientHeight > 4;
    const onTheRight = box.scrollWidth - box.clientWidth - box.scrollLeft > 4;
    const below = box.scrollHeight - box.clientHeight - box.scrollTop > 4;
    box.dataset.more = `${onTheRight ? "right" : ""} ${below ? "below" : ""}`.trim();
    line.hidden = !(wide || tall);
    line.textContent = hiddenPart(wide, onTheRight, below);
  };
  const seen = new ResizeObserver(look);
  seen.observe(box);
  for (const part of box.children) seen.observe(part);
  box.addEventListener("scroll", look);
  return { line, end: () => seen.disconnect() };
}

// what the reader chose, a trait or several, to Python too
export const chooser = (model) => (values) => {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
};

// a button of a group that `rove` serves: whether it is the chosen one, and whether Tab stops at it
export function press(button, chosen, stop = chosen) {
  button.setAttribute("aria-pressed", chosen);
  button.tabIndex = stop ? 0 : -1;
}

// the same for a radio button: one of them is chosen
export function check(button, chosen, stop = chosen) {
  button.setAttribute("aria-checked", chosen);
  button.tabIndex = stop ? 0 : -1;
}

// one tab stop for a group of buttons; arrows move inside it
export function rove(group, columns) {
  group.addEventListener("keydown", (event) => {
    const all = [...group.querySelectorAll("button:not(:disabled)")];
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[
      event.key
    ];
    const next = all[all.indexOf(document.activeElement) + step];
    if (!step) return;
    event.preventDefault();
    next?.focus();
    next?.click();
  });
}

// colours of the style sheet as three numbers each, in the theme that holds now;
// a box of ipywidgets draws before it is on the page
export function themeColours(el, names) {
  const probe = h("span");
  const host = el.isConnected ? el : document.body.appendChild(h("div", { className: "llmlab" }));
  host.append(probe);
  const found = names.map((name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe)
      .color.match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  });
  (host === el ? probe : host).remove();
  return found;
}

// calls when the page's or the system's theme changes; gives back what ends it
export function onTheme(call) {
  const seen = new MutationObserver(call);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  for (const node of [document.documentElement, document.body]) {
    seen.observe(node, {
      attributes: true,
      attributeFilter: ["data-theme", "data-jp-theme-light", "class"],
    });
  }
  dark.addEventListener("change", call);
  return () => {
    seen.disconnect();
    dark.removeEventListener("change", call);
  };
}

// ---- the figure as a picture: its own HTML and style inside an SVG

export function picture(el) {
  const copy = el.cloneNode(true);
  const { width, height } = el.getBoundingClientRect();
  const from = el.querySelectorAll("canvas, input, select");
  copy.querySelectorAll("canvas, input, select").forEach((node, i) => {
    if (node.localName === "canvas") {
      node.replaceWith(
        h("img", {
          src: from[i].toDataURL(),
          alt: "",
          style: node.style.cssText,
          className: "canvas",
        }),
      );
    } else if (from[i].type === "checkbox") node.toggleAttribute("checked", from[i].checked);
    else if (node.localName === "select") {
      node.replaceWith(h("span", {}, from[i].selectedOptions[0]?.textContent ?? ""));
    } else node.setAttribute("value", from[i].value);
  });
  copy.querySelectorAll(".tools, .only-read").forEach((node) => node.remove());
  const scheme = getComputedStyle(el).colorScheme;
  copy.style.cssText += `;color-scheme:${scheme};margin:0;max-width:none;width:${width}px`;
  const rules = [...document.styleSheets].flatMap((sheet) => {
    try {
      return [...sheet.cssRules];
    } catch {
      return [];
    }
  });
  copy.prepend(
    h(
      "style",
      {},
      rules
        .map((rule) => rule.cssText)
        .filter((text) => text.includes(".llmlab"))
        .join("\n"),
    ),
  );
  const markup = new XMLSerializer()
    .serializeToString(copy)
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "");
  const inner = `<foreignObject width="100%" height="100%">${markup}</foreignObject>`;
  const size = `width="${width}" height="${height}"`;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${inner}</svg>`;
  return { width, height, text };
}

export async function bitmap({ width, height, text }) {
  const image = new Image();
  const canvas = h("canvas", { width: 2 * width, height: 2 * height });
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// ---- the row of tools under every figure: a link to its state, and the picture

export function tools(el, model, name) {
  el.addEventListener("focusin", (event) => {
    event.target.dataset.lmSuppressShortcuts = "";
  }); // its keys are the figure's, not Jupyter's
  const told = h("span", { role: "status", className: "quiet" });
  const give = async (ending) => {
    const drawn = picture(el);
    const blob =
      ending === "svg" ? new Blob([drawn.text], { type: "image/svg+xml" }) : await bitmap(drawn);
    const link = h("a", { href: URL.createObjectURL(blob), download: `${name}.${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    told.textContent = `saved ${name}.${ending}`;
  };
  const share = async () => {
    const address = model.link();
    history.replaceState(null, "", address);
    await navigator.clipboard?.writeText(address).catch(() => {});
    told.textContent = "the link in the address bar now leads to this state";
  };
  el.append(
    h(
      "div",
      { className: "bar tools" },
      ...(model.link ? [h("button", { onclick: share }, "Link")] : []),
      h("button", { onclick: () => give("png") }, "PNG"),
      h("button", { onclick: () => give("svg") }, "SVG"),
      told,
    ),
  );
}
