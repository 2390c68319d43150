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
  tellOnHover(plot, makeTip(byId("tip")));
  const x = points.map(({ edges }) => Math.max(1, edges)), whole = (state) => state.sign === "both" && state.ports.length === PORTS.length && state.members === "012";

  function at(kept) {                         // [value, whether measured]; between two sizes a straight line over log size; null beyond
    const above = x.findIndex((size) => size >= kept);
    if (above < 0 || kept < x[0] || kept < 1) return null;
    const value = points[above].faithfulness;
    if (x[above] === kept) return [value, true];
    const share = (Math.log(kept) - Math.log(x[above - 1])) / (Math.log(x[above]) - Math.log(x[above - 1]));
    return [points[above - 1].faithfulness + share * (value - points[above - 1].faithfulness), false];
  }

  return function show(state, view) {
    const kept = view.kept, here = at(kept);
    readout.textContent = !here ? (points.length ? "not measured at " + count(kept) : "")
      : (whole(state) ? "" : "unfiltered ") + (here[1] ? "" : "\u2248 ") + here[0].toFixed(2) + " at " + count(kept);
    drawCurve(plot, app.picture.palette(), { points, x, held, visited, here: here && { kept, value: here[0], exact: here[1] && whole(state) } });
    plot.dataset.edges = String(kept);
  };
}

function drawCurve(plot, palette, { points, x, held, visited, here }) {
  const ends = [...x, ...visited.map(({ edges }) => Math.max(1, edges)), ...(held ? [Math.max(1, held.edges)] : []), ...(here ? [here.kept] : [])];
  const chart = makeChart(plot, palette, { counts: [Math.min(...ends) / 1.15, Math.max(...ends) * 1.15], range: sensible(points, held), below: "edges", left: "faithfulness", level: 1 });
  const places = (column) => points.map((point, at) => [x[at], point[column]]).filter(([, value]) => value !== undefined && value !== null);
  const band = (low, high, colour) => { if (points.length && places(low).length === points.length && places(high).length === points.length) chart.band(places(low), places(high), colour); };
  const line = (column, colour, dash, name) => {
    chart.line(places(column), colour, dash);
    for (const place of places(column)) chart.mark(name, place, dash ? 3 : 5, { fill: colour });
  };
  const bar = (value, interval, colour, name) => {
    const edges = Math.max(1, held.edges);
    if (interval) chart.bar(name, edges, interval, colour);
    chart.mark(name, [edges, value], 9, { fill: colour, stroke: palette.panel, "stroke-width": 1.5 });
  };
  band("random_low", "random_high", palette.muted);
  line("random", palette.muted, "2 3", "random circuits");
  band("low", "high", palette.accent);
  line("faithfulness", palette.ink, null, "strongest edges");
  for (const { edges, faithfulness } of visited) chart.mark("visited by the search", [Math.max(1, edges), faithfulness], 6, { fill: palette.panel, "fill-opacity": 0, stroke: palette.muted });
  if (held && held.random !== null) bar(held.random, held.randomInterval, palette.muted, "random circuits, held-out");
  if (held) bar(held.value, held.interval, palette.positive, "held-out");
  if (here) chart.mark("here", [here.kept, here.value], 13, { symbol: "diamond", quiet: true, fill: here.exact ? palette.accent : palette.panel, "fill-opacity": here.exact ? 1 : 0, stroke: here.exact ? palette.panel : palette.accent, "stroke-width": 2, "pointer-events": "none" });
}

function sensible(points, held) {             // intervals of random circuits can be wide: they are cut at one beyond the curve
  const values = [0, 1, ...points.map(({ faithfulness }) => faithfulness), ...(held ? [held.value, ...(held.interval || [])] : [])];
  const low = Math.min(...values), high = Math.max(...values), room = 0.08 * (high - low);
  return [low - room, high + room];
}
