// The attention figure's lower part: the tokens as text, one token's weights on them, the search,
// and all of it in words.
import { liveText } from "./controls.js";
import { h, press, rove, scrollHint, shown, tint, unseen } from "./dom.js";
import { isInWindow, rowOf, stripRange } from "./attention_layout.js";
import {
  blockName,
  found,
  hintText,
  hitsText,
  number,
  signed,
  summary,
} from "./attention_words.js";

const MOST = 400; // tokens shown at a time
const SIDES = ["tokens that look", "tokens that are looked at"];

// a field that finds tokens; Enter goes from one that was found to the next
function searchField(fig, update) {
  let turn = 0;
  const field = h("input", {
    type: "search",
    placeholder: "find a token",
    "aria-label": "find a token",
  });
  field.oninput = () => {
    turn = 0;
    update();
  };
  field.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    const { queries, same, back } = fig.state();
    const places = found(queries, field.value);
    if (!places.length) return;
    fig.choose({ token: places[turn % places.length], back: same && back });
    turn += 1;
  };
  return field;
}

// a strip of tokens as buttons: side 0 looks, side 1 is looked at
function tokenStrip(fig, side) {
  const strip = h("div", { className: "chips", role: "group", "aria-label": SIDES[side] });
  strip.onclick = (event) => {
    const chip = event.target.closest("button");
    const { same, back } = fig.state();
    if (chip) fig.choose({ token: Number(chip.value), back: same ? back : side === 1 });
  };
  rove(strip, () => 8);
  return strip;
}

function tokenChip(token, i, isWritten) {
  const written = isWritten ? [unseen("written by the model")] : [];
  const props = {
    className: `tok${isWritten ? " own" : ""}`,
    value: i,
    title: `${i}${isWritten ? ", written by the model" : ""}`,
  };
  return h("button", props, h("span", { dir: "auto" }, shown(token)), h("small"), ...written);
}

// puts a range of tokens into a strip, unless it holds them already
function fillStrip(strip, side, s, [first, last]) {
  const key = `${s.at} ${[first, last]}`;
  if (strip.dataset.key === key) return;
  strip.dataset.key = key;
  const tokens = (side ? s.keys : s.queries).slice(first, last);
  const written = side === 0 ? (s.part.prompt ?? Infinity) : Infinity; // where the model's tokens begin
  strip.replaceChildren(
    ...tokens.map((token, i) => tokenChip(token, first + i, first + i >= written)),
  );
}

// a token's weight as its colour and its number; no weight where it only can be chosen
function showWeight(chip, weight, isBlock, minus) {
  const text = (minus ? signed : number)(weight ?? 0);
  const small = chip.querySelector("small");
  const share = Math.sqrt(Math.min(1, Math.abs(weight)));
  chip.style.background = weight === null ? "" : tint(weight < 0 ? "--c1" : "--chip", share);
  small.textContent = weight === null || isBlock ? "" : text;
  small.className = weight ? "" : "none";
}

// weights, choice and finds on the tokens of one strip
function markStrip(strip, side, s, { row, start, step }, finds, minus) {
  const isSource = s.same || side === Number(s.back);
  const isTarget = s.same || side !== Number(s.back);
  const first = strip.firstChild;
  for (const chip of strip.children) {
    const at = Number(chip.value);
    const chosen = isSource && at === s.token;
    showWeight(
      chip,
      isTarget ? (row[Math.floor((at - start) / step)] ?? 0) : null,
      step > 1,
      minus,
    );
    press(chip, chosen, chosen || (!isSource && chip === first));
    chip.classList.toggle("found", finds.has(at));
  }
}

// after all tokens were marked: asking for a place lays the page out
function scrollToChosen(strip) {
  const chip = strip.querySelector("[aria-pressed=true]");
  if (!chip || strip.dataset.at === chip.value) return;
  strip.scrollTop = chip.offsetTop - strip.offsetTop - strip.clientHeight / 2;
  strip.dataset.at = chip.value;
}

// what the chosen token looks at, or who looks at it, in words
function describe(fig, s, { row, start, step }) {
  const [from, to] = s.back ? [s.keys, s.queries] : [s.queries, s.keys];
  const head = { name: fig.name(s), other: fig.other, back: s.back };
  const token = `“${shown(from[s.token])}” (${s.token})`;
  return summary(head, token, row, (i) => blockName(to, i, start, step));
}

export function tokenText(fig) {
  const looks = h("button", { onclick: () => fig.choose({ back: false }) }, "where it looks");
  const looked = h("button", { onclick: () => fig.choose({ back: true }) }, "who looks at it");
  const search = searchField(fig, update);
  const hits = h("span", { className: "quiet", role: "status" });
  const hint = h("span");
  const say = liveText();
  const strips = SIDES.map((_, side) => tokenStrip(fig, side));
  const cuts = strips.map((strip) => scrollHint(strip));

  function markBar(s, finds) {
    hits.textContent = hitsText(
      search.value,
      finds.map(({ size }) => size),
      s.same,
    );
    hint.textContent = hintText(s);
    for (const [button, back] of [
      [looks, false],
      [looked, true],
    ]) {
      button.hidden = !s.same;
      button.setAttribute("aria-pressed", s.back === back);
    }
  }
  function update() {
    if (!fig.field) return;
    const s = fig.state();
    if (!isInWindow(fig.whole.window, s.token, s.back)) {
      say.textContent = "The chosen token is outside this part.";
      return;
    }
    const weights = rowOf(fig.whole, s.token, s.back);
    const finds = [s.queries, s.keys].map((tokens) => new Set(found(tokens, search.value)));
    say.textContent = describe(fig, s, weights);
    markBar(s, finds);
    strips.forEach((strip, side) => {
      strip.hidden = side === 1 && s.same;
      if (strip.hidden) return;
      fillStrip(strip, side, s, stripRange(fig.field.window, side, s, MOST));
      markStrip(strip, side, s, weights, finds[side], fig.other);
      scrollToChosen(strip);
    });
    return say.textContent;
  }
  const bar = h("div", { className: "bar" }, hint, looks, looked, search, hits);
  const lined = strips.flatMap((strip, i) => [strip, cuts[i].line]);
  return {
    node: h("div", { className: "text" }, bar, say, ...lined),
    update,
    end: () => cuts.forEach((cut) => cut.end()),
  };
}
