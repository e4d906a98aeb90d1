// The attention figure's lower part: the tokens as text, one token's weights on them, the search,
// and all of it in words.
import { h, rove, scrollHint, short, shown, tint, unseen } from "./dom.js";
import { found, number, rowOf, signed, summary } from "./attention_layout.js";

const MOST = 400; // tokens shown at a time

export function tokenText(fig) {
  const directions = [
    ["where it looks", false],
    ["who looks at it", true],
  ].map(([text, back]) => h("button", { onclick: () => fig.choose({ back }) }, text));
  const search = h("input", {
    type: "search",
    placeholder: "find a token",
    "aria-label": "find a token",
    oninput: () => {
      turn = 0;
      update();
    },
    onkeydown: (event) => {
      if (event.key === "Enter") next();
    },
  });
  const hits = h("span", { className: "quiet", role: "status" });
  const hint = h("span");
  const say = h("p", { className: "say", "aria-live": "polite" });
  const strips = ["tokens that look", "tokens that are looked at"].map((label, side) =>
    h("div", {
      className: "chips",
      role: "group",
      "aria-label": label,
      onclick: (event) => {
        const chip = event.target.closest("button");
        const { same, back } = fig.state();
        if (chip) fig.choose({ token: Number(chip.value), back: same ? back : !!side });
      },
    }),
  );
  strips.forEach((strip) => rove(strip, () => 8));
  let turn = 0;

  // which tokens a strip shows: those in the window, around the chosen one where they are many
  function shownRange(side, s) {
    const [q0, q1, k0, k1] = fig.field.window;
    const ofSide = side ? [k0, k1] : [q0, q1];
    const [a, b] = s.same ? [Math.min(q0, k0), Math.max(q1, k1)] : ofSide;
    const middle = s.same || side === Number(s.back) ? s.token : a;
    const first = Math.max(Math.floor(a), Math.min(middle - (MOST >> 1), Math.ceil(b) - MOST));
    return [first, Math.min(Math.ceil(b), first + MOST)];
  }
  function fill(strip, tokens, [first, last], key) {
    if (strip.dataset.key === key) return;
    strip.dataset.key = key;
    const { part } = fig.state();
    const prompt = part.prompt ?? Infinity; // where tokens begin that the model wrote
    const own = (i) => strip === strips[0] && i >= prompt;
    strip.replaceChildren(
      ...tokens.slice(first, last).map((token, i) =>
        h(
          "button",
          {
            className: `tok${own(first + i) ? " own" : ""}`,
            value: first + i,
            title: `${first + i}${own(first + i) ? ", written by the model" : ""}`,
          },
          h("span", { dir: "auto" }, shown(token)),
          h("small"),
          ...(own(first + i) ? [unseen("written by the model")] : []),
        ),
      ),
    );
  }
  function update() {
    if (!fig.field) return;
    const s = fig.state();
    const w = fig.whole.window;
    const inside = s.back ? w[2] <= s.token && s.token < w[3] : w[0] <= s.token && s.token < w[1];
    if (!inside) return void (say.textContent = "The chosen token is outside this part.");
    const { row, start, step } = rowOf(fig.whole, s.token, s.back);
    const [from, to] = s.back ? [s.keys, s.queries] : [s.queries, s.keys];
    const name = (i) => {
      const at = Math.round(start + i * step);
      return step > 1
        ? `tokens ${at}–${Math.round(start + (i + 1) * step) - 1} from “${short(to[at])}”`
        : `“${shown(to[at])}” (${at})`;
    };
    say.textContent = summary(
      { name: fig.name(s), other: fig.other, back: s.back },
      `“${shown(from[s.token])}” (${s.token})`,
      row,
      name,
    );
    const marked = strips.map((_, side) => new Set(found(side ? s.keys : s.queries, search.value)));
    const all = marked[0].size + (s.same ? 0 : marked[1].size);
    hits.textContent = search.value ? `${all} found${marked[0].size ? ", Enter goes on" : ""}` : "";
    const own =
      s.part.prompt >= 0 && s.part.prompt !== null && s.part.prompt < s.queries.length
        ? ` Tokens with a line above them were written by the model.`
        : "";
    hint.textContent =
      (s.same
        ? "Click a token:"
        : "Click a token that looks (first row) or one that is looked at (second row):") + own;
    directions.forEach((b, i) => {
      b.hidden = !s.same;
      b.setAttribute("aria-pressed", s.back === !!i);
    });
    strips.forEach((strip, side) => {
      strip.hidden = side === 1 && s.same;
      if (strip.hidden) return;
      const range = shownRange(side, s);
      const target = s.same || side !== Number(s.back);
      const source = s.same || side === Number(s.back);
      fill(strip, side ? s.keys : s.queries, range, `${s.at} ${range}`);
      for (const chip of strip.children) {
        const at = Number(chip.value);
        const weight = target ? (row[Math.floor((at - start) / step)] ?? 0) : null;
        const chosen = source && at === s.token;
        const share = Math.sqrt(Math.min(1, Math.abs(weight)));
        chip.style.background = weight === null ? "" : tint(weight < 0 ? "--c1" : "--chip", share);
        chip.querySelector("small").textContent =
          weight === null || step > 1 ? "" : (fig.other ? signed : number)(weight);
        chip.querySelector("small").className = weight ? "" : "none";
        chip.setAttribute("aria-pressed", chosen);
        chip.classList.toggle("found", marked[side].has(at));
        chip.tabIndex = chosen || (!source && at === range[0]) ? 0 : -1;
      }
      const chip = strip.querySelector("[aria-pressed=true]"); // after the loop: asking for its place lays the page out
      if (chip && strip.dataset.at !== chip.value) {
        strip.scrollTop = chip.offsetTop - strip.offsetTop - strip.clientHeight / 2;
        strip.dataset.at = chip.value;
      }
    });
    return say.textContent;
  }
  function next() {
    const { queries, same, back } = fig.state();
    const all = found(queries, search.value);
    if (all.length) fig.choose({ token: all[turn++ % all.length], back: same && back });
  }
  const cuts = strips.map((strip) => scrollHint(strip));
  return {
    node: h(
      "div",
      { className: "text" },
      h("div", { className: "bar" }, hint, ...directions, search, hits),
      say,
      ...strips.flatMap((strip, i) => [strip, cuts[i].line]),
    ),
    update,
    end: () => cuts.forEach((cut) => cut.end()),
  };
}
