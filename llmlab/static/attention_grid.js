// The attention figure's left side: a small map of every head, with its entropy or distance if the reader asks.
import { h, rove } from "./dom.js";
import { headName, scaleEnd } from "./attention_layout.js";
import { paint } from "./attention_draw.js";

const MEASURES = [["no numbers", null, ""], ["entropy, bits", "entropy", "bits"], ["distance, tokens", "distance", "tokens"]];
const MARKS = { [-1]: ["x̄", "mean"], [-2]: ["↻", "rollout"] };

export function headGrid(fig) {
  const grid = h("div", { className: "heads", role: "radiogroup", "aria-label": "layer and head" });
  const under = h("select", { "aria-label": "numbers under the heads", onchange: () => numbers() });
  const legend = h("span", { className: "quiet" }), bar = h("div", { className: "bar under" }, under, legend);
  const buttons = () => [...grid.querySelectorAll("button")], entry = (button) => fig.state().part.entries[button.value];
  let columns = 1;
  rove(grid, () => columns);

  function build() {
    const { part, at } = fig.state(), most = Math.max(...part.heads), extra = [-1, -2].filter((x) => part.entries.some(([, head]) => head === x));
    const order = [...Array(most).keys(), ...extra], small = order.length > 8, room = Math.min(330, (fig.el.clientWidth || 400) - 64 - 3 * order.length), side = Math.max(14, Math.min(58, room / order.length));
    columns = order.length;
    grid.style.gridTemplateColumns = `auto repeat(${columns}, ${side}px)`;
    grid.replaceChildren(h("span"), ...order.map((head) => h("span", {}, head < 0 ? MARKS[head][small ? 0 : 1] : small ? `${head}` : `head ${head}`)));
    part.heads.forEach((_, layer) => grid.append(h("span", {}, part.heads.length > 8 ? `${layer}` : `layer ${layer}`), ...order.map((head) => {
      const i = fig.stores[at].index(layer, head);
      return i < 0 ? h("span") : h("button", { role: "radio", value: i, onclick: () => fig.choose({ layer, head }) }, h("canvas"), h("small"));
    })));
    legend.textContent = extra.length && small ? `rows are layers, columns heads; ${extra.map((x) => `${MARKS[x][0]} ${x === -1 ? "mean of the heads" : "rollout"}`).join(", ")}` : "";
    under.replaceChildren(...MEASURES.filter(([, name]) => !name || part[name]).map(([text, name]) => h("option", { value: name ?? "" }, text)));
    under.hidden = !part.entropy;
    paintAll();
    numbers();
  }
  function paintAll() {
    for (const button of buttons()) {
      const map = fig.stores[fig.state().at].small(Number(button.value), 48);
      paint(button.firstChild, map, fig.colours.map, scaleEnd(map.w));
    }
  }
  function numbers() {
    const { part } = fig.state(), chosen = part[under.value];
    for (const button of buttons()) {
      const told = MEASURES.filter(([, name]) => part[name]).map(([, name, unit]) => `, ${name} ${part[name][button.value]} ${unit}`).join("");
      button.title = headName(...entry(button)) + told;
      button.setAttribute("aria-label", button.title);
      button.lastChild.textContent = chosen ? chosen[button.value] : "";
    }
  }
  function mark() {
    const { at, layer, head } = fig.state(), chosen = fig.stores[at].index(layer, head);
    for (const button of buttons()) {
      const is = Number(button.value) === chosen;
      button.setAttribute("aria-checked", is);
      button.tabIndex = is ? 0 : -1;
      button.classList.toggle("kept", fig.get("pin") === `${at}/${entry(button).join("/")}`);
    }
  }
  return { node: h("div", {}, grid, bar), build, paintAll, mark };
}
