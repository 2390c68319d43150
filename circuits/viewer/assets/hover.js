// What is told on hovering over nodes and edges.

function nodeText(graph, state, linked, node) {
  const name = graph.names[node], group = state.groups.find(({ nodes }) => nodes.includes(name));
  const lines = [calledBy(state, name) + (group ? " \u00b7 " + group.label : "")];
  if (graph.degreeIn[node]) lines.push("in: " + counted(graph.degreeIn[node], "edge") + ", sum of scores " + signed(graph.sumIn[node]));
  if (graph.degreeOut[node]) lines.push("out: " + counted(graph.degreeOut[node], "edge") + ", sum of scores " + signed(graph.sumOut[node]));
  const effect = linked && linked.effects[graph.component[node]];
  if (effect) lines.push("direct effect on the answer " + signed(effect.direct, 3));
  return lines.join("\n");
}

function edgeText(graph, data, edge) {
  const lines = [graph.arrow(edge)];
  if (graph.member) {
    const [here, there] = data.compare.names;
    lines.push(["in both", "only in " + here, "only in " + there][graph.member[edge]],
      here + " " + signed(graph.here[edge]) + ", " + there + " " + signed(graph.other[edge]),
      "difference " + signed(graph.here[edge] - graph.other[edge]));
  } else lines.push("score " + signed(graph.score[edge]));
  const share = graph.inflow[graph.reader[edge]] ? percent(graph.share(edge)) : "none";
  lines.push(edge < graph.chosen ? "rank " + count(edge + 1) + " of " + count(graph.total) : "not in the circuit: rank " + count(edge + 1 - graph.chosen) + " beside it",
    share + " of the inflow of " + graph.names[graph.reader[edge]], "port: " + PORT_NAMES[PORTS[graph.port[edge]]]);
  return lines.join("\n");
}

function groupText(app, { label, nodes }) {
  const { graph, view } = app, inside = new Set(nodes.map((name) => graph.index.get(name))), sums = { in: [0, 0], out: [0, 0] };
  for (const edge of view.drawn) {
    const from = inside.has(graph.source[edge]), to = inside.has(graph.reader[edge]);
    if (from !== to) { sums[to ? "in" : "out"][0]++; sums[to ? "in" : "out"][1] += graph.score[edge]; }
  }
  const flow = (name) => name + ": " + counted(sums[name][0], "edge") + ", sum of scores " + signed(sums[name][1]);
  return [label, "nodes: " + nodes.join(", "), flow("in"), flow("out")].join("\n");
}

const COARSE = matchMedia("(pointer: coarse)").matches, FINGER = 22;  // pixels

function nodeUnder(app, event) {              // the node nearest to a finger, of which plotly tells nothing
  const box = app.plot.getBoundingClientRect(), off = ({ x, y }) => Math.hypot(box.left + x - event.clientX, box.top + y - event.clientY);
  const best = app.picture.places(app.view.picture).reduce((a, b) => (a === null || off(b) < off(a) ? b : a), null);
  return best && off(best) <= FINGER ? app.view.picture.graph.nameOf(best.node) : null;
}

// Plotly tells of nodes and of edges with markers; for the others we look ourselves.
function startHover(app) {
  const { data, plot, picture } = app, drawn = () => app.view.picture.graph, tip = makeTip(byId("tip"));
  let under = null, told = false;
  const describe = (point) => {
    if (point.data.name === "edges") return point.text || drawn().hoverText(point.customdata);
    if (point.data.name === "positions") {
      const [node, score, place] = point.customdata;
      return nodeText(app.graph, app.state, app.prompts.of(app.state.prompt), node) + "\nat position " + place + ": " + signed(score);
    }
    const node = point.customdata;
    return node < app.graph.n ? nodeText(app.graph, app.state, app.prompts.of(app.state.prompt), node) : groupText(app, parseSelection(app.graph, drawn().nameOf(node), app.state.groups).group);
  };
  const nameOf = (point) => (point.data.name === "edges" ? drawn().selectionOf(point.customdata)
    : drawn().nameOf(point.data.name === "positions" ? point.customdata[0] : point.customdata));
  plot.on("plotly_hover", ({ points, event }) => {
    told = true;
    const point = points[points.length - 1];
    under = nameOf(point);
    tip.show(describe(point), event.clientX, event.clientY);
  });
  plot.on("plotly_unhover", () => { told = false; under = null; tip.hide(); });
  plot.addEventListener("mousemove", (event) => {
    if (told) return;
    const box = plot.getBoundingClientRect(), edge = picture.nearest(event.clientX - box.left, event.clientY - box.top);
    under = edge === null ? null : drawn().selectionOf(edge);
    if (edge === null) tip.hide(); else tip.show(drawn().hoverText(edge), event.clientX, event.clientY);
  });
  plot.addEventListener("mouseleave", () => { under = null; tip.hide(); });
  let pressed = null;
  const pick = (name, pinning) => { if (name) (pinning ? app.pin : app.select)(name); };
  plot.addEventListener("mousedown", (event) => { pressed = { x: event.clientX, y: event.clientY, under }; }, true);
  window.addEventListener("mouseup", (event) => {
    if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) <= 4) {
      const name = pressed.under || (COARSE ? nodeUnder(app, event) : null), pinning = event.shiftKey;
      // plotly tells late what is under a mouse that just came
      if (name) pick(name, pinning); else setTimeout(() => pick(under, pinning), 120);
    }
    pressed = null;
  }, true);
  plot.on("plotly_relayouting", picture.moved);
  plot.on("plotly_relayout", () => { picture.moved(); app.change({}); });   // names that now have room
  plot.on("plotly_afterplot", picture.moved);
  window.addEventListener("resize", () => setTimeout(() => app.change({}), 250));
}
