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
const WHEEL = 0.0015;                         // how much a wheel's pixel zooms

// What is under the pointer is told; a click selects, shift pins, dragging moves the picture or a closed group, the wheel
// zooms, a double click shows all again. Fingers tap: swipes and pinches are the page's own.
function startHover(app) {
  const { plot, picture } = app, drawn = () => app.view.picture.graph, tip = makeTip(byId("tip"));
  let pressed = null;
  const inside = (event) => { const box = plot.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const found = (event) => picture.under(...inside(event), COARSE ? FINGER : 0);
  const textOf = (node) => nodeText(app.graph, app.state, app.prompts.of(app.state.prompt), node);
  const describe = ({ edge, mark, node }) => {
    if (edge !== undefined) return drawn().hoverText(edge);
    if (mark) return textOf(mark.node) + "\nat position " + mark.position + ": " + signed(mark.score);
    return node < app.graph.n ? textOf(node) : groupText(app, parseSelection(app.graph, drawn().nameOf(node), app.state.groups).group);
  };
  const nameOf = ({ edge, mark, node }) => (edge !== undefined ? drawn().selectionOf(edge) : drawn().nameOf(mark ? mark.node : node));
  const groupAt = (thing) => (thing && thing.node >= app.graph.n ? Number(drawn().nameOf(thing.node).slice(6)) : null);

  plot.addEventListener("mousemove", (event) => {
    if (pressed) return;
    const thing = found(event);
    plot.style.cursor = thing ? "pointer" : "";
    if (thing) tip.show(describe(thing), event.clientX, event.clientY); else tip.hide();
  });
  plot.addEventListener("mouseleave", () => tip.hide());
  plot.addEventListener("mousedown", (event) => {
    if (event.button) return;
    const thing = found(event), group = groupAt(thing);
    pressed = { x: event.clientX, y: event.clientY, thing, group, area: picture.area(), shift: group === null ? null : app.state.groups[group].shift || [0, 0], moved: false };
  });
  window.addEventListener("mousemove", (event) => {
    if (!pressed || COARSE) return;
    const dx = event.clientX - pressed.x, dy = event.clientY - pressed.y, { area, group, shift } = pressed;
    if (!pressed.moved && Math.hypot(dx, dy) <= 4) return;
    pressed.moved = true;
    tip.hide();
    if (group === null) picture.shift(area, dx, dy);
    else app.change({ groups: app.state.groups.map((each, at) => (at === group ? { ...each, shift: [shift[0] + dx / area.perX, shift[1] - dy / area.perY] } : each)) });
  });
  window.addEventListener("mouseup", (event) => {
    const press = pressed;
    pressed = null;
    if (press && !press.moved && press.thing) (event.shiftKey ? app.pin : app.select)(nameOf(press.thing));
  });
  plot.addEventListener("wheel", (event) => {
    event.preventDefault();
    tip.hide();
    picture.scale(Math.exp(WHEEL * event.deltaY), ...inside(event));
  }, { passive: false });
  plot.addEventListener("dblclick", () => picture.whole());
  new ResizeObserver(() => picture.repaint()).observe(plot);
}
