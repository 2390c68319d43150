// The faithfulness curve, and on it a marker at the number of edges that the sliders keep.

function startFaithfulness(app) {
  const box = byId("faithfulness"), points = app.data.curve;
  box.hidden = Boolean(app.data.compare);      // of two circuits there is no one curve
  if (box.hidden) return () => {};
  const heading = element("h2", {}, "Faithfulness"), readout = element("output", { id: "faithfulness-value" });
  if (!points.length) {
    box.append(heading, element("p", { class: "hint" }, "No curve was measured. find_circuit measures one where it chooses the size itself; or give curve=metrics.faithfulness_curve(\u2026)."));
    return () => {};
  }
  const plot = element("div", { id: "curve", role: "img", "aria-label": "Faithfulness by number of edges" });
  box.append(element("div", { class: "row" }, heading, readout), plot);
  const x = points.map(({ edges }) => Math.max(1, edges)), y = points.map(({ faithfulness }) => faithfulness);

  function at(kept) {                         // between two measured sizes: a straight line over log size
    if (kept <= x[0]) return y[0];
    const above = x.findIndex((size) => size >= kept);
    if (above < 0) return y[y.length - 1];
    const share = (Math.log(kept) - Math.log(x[above - 1])) / (Math.log(x[above]) - Math.log(x[above - 1]) || 1);
    return y[above - 1] + share * (y[above] - y[above - 1]);
  }

  return function show(state, view) {
    const palette = app.picture.palette(), kept = view.kept, inside = kept >= x[0] && kept <= x[x.length - 1];
    const whole = state.sign === "both" && state.ports.length === PORTS.length && state.members === "012";
    readout.textContent = !inside ? "not measured at " + count(kept) : (whole ? "" : "unfiltered ") + "\u2248 " + at(kept).toFixed(2) + " at " + count(kept);
    const band = points.every(({ low, high }) => low !== undefined && high !== undefined) ? [
      { x: [...x, ...x.slice().reverse()], y: [...points.map(({ high }) => high), ...points.map(({ low }) => low).reverse()], fill: "toself", mode: "lines", line: { width: 0 }, fillcolor: palette.accent, opacity: 0.18, hoverinfo: "skip" }] : [];
    const axis = { gridcolor: palette.faint, zeroline: false, tickfont: { size: 11, color: palette.muted }, fixedrange: true };
    Plotly.react(plot, [
      ...band,
      { x, y, mode: "lines+markers", line: { color: palette.ink, width: 1.6 }, marker: { size: 5, color: palette.ink }, hovertemplate: "%{x:,} edges: %{y:.3f}<extra></extra>" },
      { x: [Math.max(1, kept)], y: [at(kept)], mode: "markers", name: "here", hoverinfo: "skip", cliponaxis: false,
        marker: { size: 12, symbol: inside && whole ? "diamond" : "diamond-open", color: palette.accent, line: { color: inside && whole ? palette.panel : palette.accent, width: 2 } } },
    ], {
      xaxis: { ...axis, type: "log", dtick: 1, exponentformat: "SI" }, yaxis: { ...axis, rangemode: "tozero", nticks: 4 },
      margin: { l: 30, r: 10, t: 8, b: 22 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: "closest", dragmode: false, font: { family: "system-ui, sans-serif" }, autosize: true,
      hoverlabel: { bgcolor: palette.ink, font: { color: palette.panel } },
    }, { displayModeBar: false, responsive: true });
    plot.dataset.edges = String(kept);
  };
}
