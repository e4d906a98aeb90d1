// The decoding figure: one distribution, four ways to reshape and cut it, what stays and what goes.
import { clamp, clampIndex, h, percent, shown, tools } from "./dom.js";

// ---- layout: pure functions, tested in tests/js/decoding.test.js

// p, likeliest first → what is left after temperature, top-k, top-p and min-p, in this order, and who cut each token
export function decode(p, { temperature, k, top_p, min_p }) {
  const logs = p.map((x) => Math.log(x) / temperature);
  const top = Math.max(...logs);
  const soft = share(logs.map((x) => Math.exp(x - top)));
  const out = p.map(() => "");
  soft.forEach((_, i) => {
    if (i >= k) out[i] = "top-k";
  });
  let left = share(soft.map((x, i) => (out[i] ? 0 : x)));
  let before = 0;
  left.forEach((x, i) => {
    if (!out[i] && top_p < 1 && before >= top_p) out[i] = "top-p";
    before += x;
  });
  left = share(soft.map((x, i) => (out[i] ? 0 : x)));
  left.forEach((x, i) => {
    if (!out[i] && x < min_p * left[0]) out[i] = "min-p";
  });
  return { soft, out, left: share(soft.map((x, i) => (out[i] ? 0 : x))) };
}
const sum = (all) => all.reduce((a, b) => a + b, 0);
const share = (all) => {
  const total = sum(all);
  return all.map((x) => x / total);
};

// sliders → settings; the logarithmic ones give fine steps where they matter
export const settings = (raw, n) => ({
  temperature: raw.temperature,
  k: Math.min(raw.k, n),
  top_p: raw.p,
  min_p: raw.min_p,
});
export const toK = (slider, n) => Math.round(n ** slider);
export const toSlider = (k, n) => Math.log(k) / Math.log(n);

export function summary(context, tokens, { soft, out, left }) {
  const kept = out.filter((x) => !x).length;
  const mass = soft.reduce((sum, x, i) => sum + (out[i] ? 0 : x), 0);
  const by = ["top-k", "top-p", "min-p"]
    .map((name) => [name, out.filter((x) => x === name).length])
    .filter(([, n]) => n);
  const cut = by.length
    ? `cut: ${by.map(([name, n]) => `${n} by ${name}`).join(", ")}`
    : "nothing is cut";
  const stay = `${kept} of ${out.length} tokens stay, which held ${percent(mass)}; ${cut}`;
  const likeliest = `The likeliest, “${shown(tokens[0])}”, now has ${percent(left[0])}`;
  return `After “${context.slice(-60)}”: ${stay}. ${likeliest}.`;
}

// ---- drawing

const ROWS = 14;

function render({ model, el }) {
  const { contexts, candidates } = model.get("data");
  const last = contexts.length - 1;
  const choose = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const at = () => clampIndex(model.get("step"), contexts.length);
  const n = () => candidates[at()].length;
  const tabs = contexts.map((context, i) =>
    h("button", { className: "tok", onclick: () => choose("step", i) }, shown(context.slice(-24))),
  );
  const slider = (name, label, min, max, step, read) => {
    const input = h("input", {
      type: "range",
      min,
      max,
      step,
      "aria-label": label,
      oninput: () => choose(name, read(input.valueAsNumber)),
    });
    const output = h("output");
    return {
      input,
      output,
      row: h("div", { className: "bar" }, h("label", {}, label, output), input),
    };
  };
  const temperature = slider(
    "temperature",
    "temperature",
    -3,
    2,
    0.05,
    (x) => Math.round(100 * 2 ** x) / 100,
  );
  const k = slider("k", "top-k", 0, 1, 0.01, (x) => toK(x, n()));
  const p = slider("p", "top-p", 0.05, 1, 0.01, (x) => Math.round(100 * x) / 100);
  const floor = slider("min_p", "min-p", 0, 0.5, 0.005, (x) => x);
  const reset = h(
    "button",
    {
      onclick: () => {
        choose("temperature", 1);
        choose("k", n());
        choose("p", 1);
        choose("min_p", 0);
      },
    },
    "as it is",
  );
  const bars = h("div", { className: "bars", role: "list" });
  const say = h("p", { className: "say", "aria-live": "polite" });
  el.classList.add("llmlab");
  el.append(
    ...(last
      ? [h("div", { className: "bar", role: "group", "aria-label": "contexts" }, ...tabs)]
      : []),
    h("div", { className: "knobs" }, temperature.row, k.row, p.row, floor.row, reset),
    bars,
    say,
  );

  function update() {
    const step = at();
    const now = candidates[step];
    const tokens = now.map(([token]) => token);
    const [heat, most, mass, least] = [
      clamp(model.get("temperature"), 0.125, 4),
      clampIndex(model.get("k") - 1, now.length) + 1,
      clamp(model.get("p"), 0.05, 1),
      clamp(model.get("min_p"), 0, 0.5),
    ];
    const found = decode(
      now.map(([, x]) => x),
      settings({ temperature: heat, k: most, p: mass, min_p: least }, now.length),
    );
    tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === step));
    for (const [{ input, output }, value, text] of [
      [temperature, Math.log2(heat), heat.toFixed(2)],
      [k, toSlider(most, now.length), String(most)],
      [p, mass, mass.toFixed(2)],
      [floor, least, least.toFixed(3)],
    ]) {
      input.value = value;
      input.setAttribute("aria-valuetext", (output.textContent = text));
    }
    const others = [found.left, now.map(([, x]) => x)].map((all) => sum(all.slice(ROWS)));
    const widest = Math.max(found.left[0], now[0][1], ...others);
    const rest = found.out.slice(ROWS);
    const row = (name, kept, was, why, quiet) => {
      const kind = quiet ? "rest" : "";
      return h(
        "div",
        { role: "listitem", className: why ? "gone" : kind },
        h("span", { className: quiet ? "quiet" : "tok" }, name),
        h(
          "span",
          { className: "track", "aria-hidden": "true" },
          bar("now", kept / widest),
          bar("was", was / widest),
        ),
        h("span", { className: "p" }, why ? `✕ ${why}` : percent(kept)),
      );
    };
    bars.replaceChildren(
      ...now
        .slice(0, ROWS)
        .map(([token, was], i) => row(shown(token), found.left[i], was, found.out[i], false)),
    );
    if (rest.length) {
      bars.append(
        row(
          `${rest.filter((x) => !x).length} of ${rest.length} others stay`,
          ...others,
          rest.every(Boolean) ? "all cut" : "",
          true,
        ),
      );
    }
    say.textContent = `${summary(contexts[step], tokens, found)} The outline is the model's own probability.`;
  }
  const bar = (kind, part) => {
    const i = h("i", { className: kind });
    i.style.width = `${100 * Math.min(1, part)}%`;
    return i;
  };
  tools(el, model, "decoding");
  ["step", "temperature", "k", "p", "min_p"].forEach((name) => model.on(`change:${name}`, update));
  update();
}

export default { render };
