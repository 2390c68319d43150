// What is selected: its figures, the strongest paths through it, and its neighbours.

const LISTED = 8;

function startDetails(app) {
  const { graph, data } = app, box = byId("details");
  const selected = element("div", { id: "selected" }), kept = element("div", { id: "kept" });
  box.append(selected, kept);
  const showGroups = startGroups(app, kept), showComparison = startComparison(app);
  let before = null;
  return function show(state, view) {
    showGroups(state, view);
    const key = JSON.stringify([state.selection, view.kept, state.sign, state.ports, state.members, isDark(), state.pins.includes(state.selection), state.labels, state.groups, state.only, state.prompt, state.run, state.pins]);
    if (key === before) return;
    const changed = before === null || JSON.parse(before)[0] !== state.selection;
    before = key;
    if (!view.focus) selected.replaceChildren(...[...showComparison(), ...overview(app, view)].filter(Boolean));
    else if (view.focus.group) selected.replaceChildren(groupCard(app, state, view));
    else selected.replaceChildren(heading(app, state, view), pathsCard(app, view),
      ...(view.selected === null ? [] : [...linkedCards(app, view.selected), neighbours(app, view)]));
    if (changed) box.scrollTop = 0;
  };
}

function edgeButton(app, edge) {
  return element("button", { type: "button", class: "link", onclick: () => app.select(app.graph.edgeName(edge)) }, app.graph.arrow(edge));
}

function scoreCell(app, edge) {
  const value = app.graph.score[edge];
  return element("span", { class: "score " + (value < 0 ? "negative" : "positive") }, signed(value, 3));
}

function edgeList(app, edges) {
  return element("ul", { class: "edges" }, ...edges.map((edge) => element("li", {}, edgeButton(app, edge), scoreCell(app, edge))));
}

function overview(app, view) {
  const first = Array.from(view.pass.list.subarray(0, Math.min(view.kept, LISTED)));
  return [...(app.data.compare ? [] : [qualityCard(app.data)]), element("section", { class: "card", id: "overview" }, element("h2", {}, "Strongest edges"), edgeList(app, first),
    element("p", { class: "hint" }, "Click a node or an edge to trace it upstream and downstream; shift-click pins a node."))];
}

function heading(app, state, view) {
  const { graph, data } = app, { focus, found } = view, node = focus.node;
  const flow = "traces " + counted(tally(found.lit), "edge") + ": " + counted(tally(found.up) - 1, "node") + " upstream, " + count(tally(found.down) - 1) + " downstream";
  let title, rows;
  if (node === undefined) {
    title = graph.arrow(focus.edge);
    rows = edgeText(graph, data, focus.edge).split("\n").slice(1).map((line) => {
      const [, name, value] = /^(score|rank|difference|port:|not in the circuit:) ?(.*)$/.exec(line) || [null, null, line];
      return name ? [name.replace(":", ""), value] : [line.includes("inflow") ? "share" : "where", value];
    });
  } else {
    title = calledBy(state, graph.names[node]);
    rows = nodeText(graph, state, null, node).split("\n").slice(1).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
  }
  const pinned = state.pins.includes(focus.name);
  const buttons = [element("button", { type: "button", id: "clear", class: "quiet", title: "Esc", onclick: () => app.select(null) }, "Clear")];
  if (node !== undefined) buttons.unshift(element("button", { type: "button", id: "pin", class: "quiet", "aria-pressed": String(pinned), title: "p", onclick: () => app.pin(focus.name) }, pinned ? "Unpin" : "Pin"));
  return element("section", { class: "card" }, element("div", { class: "row" }, element("h2", { id: "selection" }, title), element("span", { class: "buttons" }, ...buttons)),
    figures(rows), node === undefined ? null : labelField(app, focus.name), element("p", { class: "hint", id: "traced" }, "It " + flow + "."));
}

function groupCard(app, state, view) {
  const { group, name } = view.focus, [title, ...lines] = groupText(app, group).split("\n"), at = Number(name.slice(6));
  const toggle = () => app.change({ groups: state.groups.map((each, place) => (place === at ? { ...each, closed: !each.closed } : each)) });
  return element("section", { class: "card" }, element("div", { class: "row" }, element("h2", { id: "selection" }, title),
    element("span", { class: "buttons" }, element("button", { type: "button", id: "close-group", class: "quiet", onclick: toggle }, group.closed ? "Open" : "Close"),
      element("button", { type: "button", id: "clear", class: "quiet", title: "Esc", onclick: () => app.select(null) }, "Clear"))),
    figures(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)])), knockCard(app, group.nodes));
}

function pathsCard(app, view) {
  const { graph } = app, paths = strongestPaths(graph, view.flags, view.focus, view.found);
  const path = ({ product, edges }) => {
    const button = (node) => element("button", { type: "button", class: "link", onclick: () => app.select(graph.names[node]) }, graph.names[node]);
    const step = (edge) => element("span", { class: "step" }, element("span", { class: graph.score[edge] < 0 ? "negative" : "positive", title: edgeText(graph, app.data, edge) },
      "\u2192" + (graph.port[edge] < 3 ? "\u2009" + PORTS[graph.port[edge]] : "")), button(graph.reader[edge]));
    const crossed = (at) => at && graph.source[edges[at]] !== graph.reader[edges[at - 1]];   // inside attention
    const parts = [button(graph.source[edges[0]]), ...edges.flatMap((edge, at) => [...(crossed(at) ? ["\u200a\u21dd", button(graph.source[edge])] : []), "\u200a", step(edge)])];
    return element("li", {}, element("span", { class: "share" }, percent(product)), element("span", { class: "path" }, ...parts));
  };
  return element("section", { class: "card", id: "paths" }, element("h3", {}, "Strongest paths"),
    paths.length ? element("ol", { class: "paths" }, ...paths.map(path)) : element("p", { class: "hint" }, "No path leads through it among the edges drawn."),
    element("p", { class: "hint" }, "By the product of each edge\u2019s share of the |score| that flows into its reader."));
}

function neighbours(app, view) {
  const { graph } = app, node = view.selected;
  const strongest = (side) => [...edgesOf(side, node)].filter((edge) => view.flags[edge]).slice(0, LISTED);
  const list = (title, edges) => (edges.length ? [element("h3", {}, title), edgeList(app, edges)] : []);
  return element("section", { class: "card", id: "neighbours" }, ...list("Reads", strongest(graph.incoming)), ...list("Is read by", strongest(graph.outgoing)));
}
