// A small chart as SVG: bands, lines and marks over a logarithmic axis of counts; what a mark is, is told on hovering.

const CHART = { left: 44, right: 10, top: 8, bottom: 36 };  // pixels around the area

function ticksOf(low, high, about) {          // round numbers
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, at) => (Math.ceil(low / step) + at) * step);
}

function short(value) { return value >= 1e6 ? value / 1e6 + "M" : value >= 1e3 ? value / 1e3 + "k" : String(value); }

// `counts`: [least, most] of the axis below; `range`: of the one at the left. Places are [count, value].
function makeChart(box, palette, { counts, range, below, left, level }) {
  const { width, height } = box.getBoundingClientRect(), inner = [width - CHART.left - CHART.right, height - CHART.top - CHART.bottom].map((one) => Math.max(1, one));
  const [from, to] = counts.map(Math.log10), x = (count) => CHART.left + (inner[0] * (Math.log10(count) - from)) / Math.max(to - from, 1e-9), y = (value) => CHART.top + (inner[1] * (range[1] - value)) / (range[1] - range[0]);
  const svg = shape("svg", { width, height, viewBox: "0 0 " + width + " " + height, "font-family": FONT, "font-size": 11, fill: palette.muted });
  const line = (x1, y1, x2, y2, look) => svg.append(shape("line", { x1, y1, x2, y2, ...look })), right = width - CHART.right, bottom = height - CHART.bottom;
  for (const value of ticksOf(...range, 5)) {
    line(CHART.left, y(value), right, y(value), { stroke: palette.faint });
    svg.append(shape("text", { x: CHART.left - 5, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(6)))));
  }
  for (let power = Math.ceil(from - 1e-9); power <= to + 1e-9; power++) {
    line(x(10 ** power), CHART.top, x(10 ** power), bottom, { stroke: palette.faint });
    svg.append(shape("text", { x: x(10 ** power), y: bottom + 14, "text-anchor": "middle" }, short(10 ** power)));
  }
  line(CHART.left, y(level), right, y(level), { stroke: palette.muted, "stroke-dasharray": "2 3" });
  svg.append(shape("text", { x: (CHART.left + right) / 2, y: height - 5, "text-anchor": "middle" }, below),
    shape("text", { x: 11, y: CHART.top + inner[1] / 2, "text-anchor": "middle", transform: "rotate(-90 11 " + (CHART.top + inner[1] / 2) + ")" }, left));
  box.replaceChildren(svg);
  const held = (value) => Math.max(range[0], Math.min(range[1], value)), path = (places) => places.map(([count, value], at) => (at ? "L" : "M") + x(count).toFixed(1) + " " + y(held(value)).toFixed(1)).join("");
  box.drawn = {};                             // what stands in the chart, by name: for tests, and for pages around this one
  const known = (name) => (box.drawn[name] ||= { x: [], y: [] });
  return {
    band(low, high, colour) { svg.append(shape("path", { d: path([...high, ...low.slice().reverse()]) + "Z", fill: colour, opacity: 0.18 })); },
    line(places, colour, dash) { svg.append(shape("path", { d: path(places), fill: "none", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": dash })); },
    mark(name, [count, value], size, { symbol = "circle", quiet = false, ...look }) {
      const at = [x(count), y(held(value))], made = symbol === "diamond" ? shape("polygon", { points: corners("diamond", ...at, size).map(String).join(" "), ...look }) : shape("circle", { cx: at[0], cy: at[1], r: size / 2, ...look });
      if (!quiet) made.dataset.told = name + ", " + counted(Math.round(count), "edge") + ": " + value.toFixed(3);
      known(name).x.push(count);
      known(name).y.push(value);
      known(name).hollow = look["fill-opacity"] === 0;
      svg.append(made);
    },
    bar(name, count, [low, high], colour) {
      const [at, ends] = [x(count), [low, high].map((value) => y(held(value)))];
      line(at, ends[0], at, ends[1], { stroke: colour, "stroke-width": 2 });
      for (const end of ends) line(at - 4, end, at + 4, end, { stroke: colour, "stroke-width": 2 });
      known(name).interval = [low, high];
    },
  };
}

function tellOnHover(box, tip) {
  box.addEventListener("mousemove", (event) => { const { told } = event.target.dataset; if (told) tip.show(told, event.clientX, event.clientY); else tip.hide(); });
  box.addEventListener("mouseleave", () => tip.hide());
}
