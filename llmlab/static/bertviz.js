// What bertviz asks of require.js, jQuery and d3, from the copies beside this file.
d3.schemeCategory10 = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
d3.scaleOrdinal = (range) => (value) => range[value % range.length];
d3.line = () => {
  let x, y;
  const path = (points) => `M${points.map((p) => `${x(p)},${y(p)}`).join("L")}`;
  return Object.assign(path, { x: (get) => { x = get; return path; }, y: (get) => { y = get; return path; } });
};
d3.version = "d3-selection 1.4.2";
window.require = { config() {} };
window.requirejs = (names, body) => body(jQuery, d3);
