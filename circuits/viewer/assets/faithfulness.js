// The faithfulness curve with its random circuits, the held-out figure, and a marker at the number of edges that is drawn.

const MEASURED_NOTE = "Prompts that chose a circuit flatter it: the point with the bar is the circuit on prompts that nothing was chosen on.";

function startFaithfulness(app) {
  const box = byId("faithfulness"), { curve: points, curveOf, visited, quality } = app.data;
  box.hidden = Boolean(app.data.compare);      // of two circuits there is no one curve
  if (box.hidden) return () => {};
  const held = quality.held && { ...quality.held, edges: quality.held.edges ?? app.graph.total };
  const heading = element("h2", {}, "Faithfulness"), readout = element("output", { id: "faithfulness-value" });
  if (!points.length && !held) {
    box.append(heading, element("p", { class: "hint" }, "No curve was measured: to_html(model=, task=) measures one."));
    return () => {};
  }
  const plot = element("div", { id: "curve", role: "img", "aria-label": "Faithfulness by number of edges" });
  const below = [points.length ? "Curve: " + curveOf + "." : "No curve was measured: to_html(model=, task=) measures one.", held ? "Bar: the " + count(held.edges) + " edges on " + (held.prompts === null ? "" : count(held.prompts) + " ") + "held-out prompts, " + intervalText(held.value, held.interval) + "." : ""];
  box.append(element("div", { class: "row" }, heading, readout), plot, element("p", { class: "hint", id: "curve-of", title: MEASURED_NOTE }, below.filter(Boolean).join(" ")));
  const x = points.map(({ edges }) => Math.max(1, edges)), whole = (state) => state.sign === "both" && state.ports.length === PORTS.length && state.members === "012";

  function at(kept) {                         // [value, whether measured]; between two sizes a straight line over log size; null beyond
    const above = x.findIndex((size) => size >= kept);
    if (above < 0 || kept < x[0] || kept < 1) return null;
    const value = points[above].faithfulness;
    if (x[above] === kept) return [value, true];
    const share = (Math.log(kept) - Math.log(x[above - 1])) / (Math.log(x[above]) - Math.log(x[above - 1]));
    return [points[above - 1].faithfulness + share * (value - points[above - 1].faithfulness), false];
  }

  let plotly = null, wanted = null;           // the library once it is there, and what it is to draw then
  const draw = () => { if (plotly) drawCurve(plotly, plot, app.picture.palette(), wanted); };
  const absent = () => plot.replaceChildren(element("p", { class: "hint" }, "The chart's library is in the first picture of this notebook, which is gone: show the circuit again in a new session, or open its page."));
  setTimeout(async () => {                    // the graph comes first
    plotly = await loadPlotly();
    if (plotly) draw(); else absent();
    plot.dataset.library = plotly ? "here" : "absent";
  });

  return function show(state, view) {
    const kept = view.kept, here = at(kept);
    readout.textContent = !here ? (points.length ? "not measured at " + count(kept) : "")
      : (whole(state) ? "" : "unfiltered ") + (here[1] ? "" : "\u2248 ") + here[0].toFixed(2) + " at " + count(kept);
    wanted = { points, x, held, visited, here: here && { kept, value: here[0], exact: here[1] && whole(state) } };
    draw();
    plot.dataset.edges = String(kept);
  };
}

function drawCurve(plotly, plot, palette, { points, x, held, visited, here }) {
  const band = (low, high, colour) => (points.length && points.every((point) => point[low] !== undefined && point[high] !== undefined) ? [
    { x: [...x, ...x.slice().reverse()], y: [...points.map((point) => point[high]), ...points.map((point) => point[low]).reverse()], fill: "toself", mode: "lines", line: { width: 0 }, fillcolor: colour, opacity: 0.18, hoverinfo: "skip" }] : []);
  const line = (y, colour, dash, name) => ({ x, y, name, mode: "lines+markers", line: { color: colour, width: 1.6, dash }, marker: { size: dash === "solid" ? 5 : 3, color: colour }, hovertemplate: name + ", %{x:,} edges: %{y:.3f}<extra></extra>" });
  const bar = (value, interval, colour, name) => ({ x: [Math.max(1, held.edges)], y: [value], name, mode: "markers", marker: { size: 8, color: colour, line: { color: palette.panel, width: 1.5 } }, cliponaxis: false,
    error_y: interval ? { type: "data", symmetric: false, array: [interval[1] - value], arrayminus: [value - interval[0]], color: colour, thickness: 2, width: 5 } : { visible: false },
    hovertemplate: name + ", %{x:,} edges: %{y:.3f}<extra></extra>" });
  const random = points.some((point) => point.random !== undefined);
  const axis = { gridcolor: palette.faint, zeroline: false, tickfont: { size: 11, color: palette.muted }, fixedrange: true }, titled = (text) => ({ text, font: { size: 11, color: palette.muted }, standoff: 2 });
  plotly.react(plot, [
    ...band("random_low", "random_high", palette.muted), ...(random ? [line(points.map((point) => point.random ?? null), palette.muted, "dot", "random circuits")] : []),
    ...band("low", "high", palette.accent), line(points.map(({ faithfulness }) => faithfulness), palette.ink, "solid", "strongest edges"),
    ...(visited.length ? [{ x: visited.map(({ edges }) => Math.max(1, edges)), y: visited.map(({ faithfulness }) => faithfulness), name: "visited by the search", mode: "markers", marker: { size: 6, symbol: "circle-open", color: palette.muted }, hovertemplate: "visited by the search, %{x:,} edges: %{y:.3f}<extra></extra>" }] : []),
    ...(held && held.random !== null ? [bar(held.random, held.randomInterval, palette.muted, "random circuits, held-out")] : []),
    ...(held ? [bar(held.value, held.interval, palette.positive, "held-out")] : []),
    ...(here ? [{ x: [here.kept], y: [here.value], mode: "markers", name: "here", hoverinfo: "skip", cliponaxis: false,
      marker: { size: 12, symbol: here.exact ? "diamond" : "diamond-open", color: palette.accent, line: { color: here.exact ? palette.panel : palette.accent, width: 2 } } }] : []),
  ], {
    xaxis: { ...axis, type: "log", dtick: 1, exponentformat: "SI", title: titled("edges") }, yaxis: { ...axis, ...sensible(points, held), nticks: 5, title: titled("faithfulness") },
    margin: { l: 44, r: 10, t: 8, b: 36 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: palette.muted, width: 1, dash: "dot" } }],
    hovermode: "closest", dragmode: false, font: { family: "system-ui, sans-serif" }, autosize: true,
    hoverlabel: { bgcolor: palette.ink, font: { color: palette.panel } },
  }, { displayModeBar: false, responsive: true });
}

function sensible(points, held) {             // intervals of random circuits can be wide: they are cut at one beyond the curve
  const values = [0, 1, ...points.map(({ faithfulness }) => faithfulness), ...(held ? [held.value, ...(held.interval || [])] : [])];
  const low = Math.min(...values), high = Math.max(...values), room = 0.08 * (high - low);
  return { range: [low - room, high + room] };
}
