// Groups that are closed: each is drawn as one node, and the edges between it and another node as their sum.

// The graph as it is drawn, its layout, and which of its edges are drawn; the page's own where no group is closed.
function contracted(graph, layout, state, view) {
  const closed = state.groups.map((group, at) => ({ ...group, at })).filter((group) => group.closed);
  if (!closed.length) return { graph, layout, list: view.list, drawn: view.drawn, faint: view.found ? view.drawn.filter((edge) => !view.found.lit[edge]) : [], held: view.found || state.only ? view.list : view.pass.list, alive: view.alive, nodes: view.nodes, shown: view.shown, matches: view.matches, selected: view.selected, pinned: view.pinned };
  const of = Int32Array.from(graph.names, (_, node) => node);
  closed.forEach(({ nodes }, at) => nodes.forEach((name) => { of[graph.index.get(name)] = graph.n + at; }));
  const lit = view.found ? new Set(view.list) : null, sums = summed(graph, view.drawn, of, lit);
  const summary = graphOf(graph, closed, sums), n = summary.n;
  const alive = new Uint8Array(n), shown = new Uint8Array(n), spread = (from, to) => { for (let node = 0; node < graph.n; node++) if (from[node]) to[of[node]] = 1; };
  spread(view.alive, alive);
  spread(view.shown, shown);
  for (let node = 0; node < graph.n; node++) if (of[node] !== node) shown[node] = 1;  // no dot is left where a member stood
  const all = Uint32Array.from(sums, (_, edge) => edge), list = all.filter((edge) => sums[edge].lit);
  const inside = (nodes) => new Set([...nodes].map((node) => of[node]));
  const chosen = closed.findIndex(({ at }) => state.selection === "group:" + at);
  return {
    graph: summary, layout: layoutWith(layout, graph, closed), list, drawn: all, faint: lit ? all.filter((edge) => !sums[edge].lit) : [], held: list, alive, shown,
    nodes: [...new Set([...view.nodes, ...closed.flatMap(({ nodes }) => nodes.map((name) => graph.index.get(name)))].map((node) => of[node]))],
    matches: inside(view.matches), pinned: inside(view.pinned), selected: chosen >= 0 ? graph.n + chosen : view.selected === null ? null : of[view.selected],
  };
}

function summed(graph, drawn, of, lit) {      // edges between what is drawn, the strongest first
  const found = new Map(), alone = [];
  for (const edge of drawn) {
    const source = of[graph.source[edge]], reader = of[graph.reader[edge]], whole = !lit || lit.has(edge);
    if (source === reader) continue;
    if (source < graph.n && reader < graph.n) { alone.push({ source, reader, port: graph.port[edge], score: graph.score[edge], strength: graph.strength[edge], edges: [edge], lit: whole }); continue; }
    const key = source * (2 * graph.n) + reader, known = found.get(key) || { source, reader, port: 3, score: 0, strength: 0, edges: [], lit: false };
    known.score += graph.score[edge];
    known.strength = Math.abs(known.score);
    known.edges.push(edge);
    known.lit ||= whole;
    found.set(key, known);
  }
  return [...alone, ...found.values()].sort((a, b) => b.strength - a.strength);
}

function graphOf(graph, closed, sums) {       // what the picture asks of a graph
  const names = [...graph.names, ...closed.map(({ label }) => label)], n = names.length, sumStrength = new Float64Array(n);
  sumStrength.set(graph.sumStrength);
  for (const { source, reader, strength } of sums) for (const node of [source, reader]) if (node >= graph.n) sumStrength[node] += strength;
  const member = ({ edges }) => (edges.every((edge) => graph.member[edge] === graph.member[edges[0]]) ? graph.member[edges[0]] : 0);
  const hoverText = (at) => {
    const { source, reader, score, edges } = sums[at];
    return edges.length === 1 ? graph.hoverText(edges[0]) : names[source] + " \u2192 " + names[reader] + "\nsum of scores " + signed(score) + "\nof " + counted(edges.length, "edge");
  };
  return {
    names, component: [...graph.component, ...closed.map(({ label }) => label)], n, m: sums.length, sumStrength, hoverText, largest: graph.largest, kind: [...graph.kind, ...closed.map(() => "group")],
    source: sums.map(({ source }) => source), reader: sums.map(({ reader }) => reader), port: sums.map(({ port }) => port),
    score: sums.map(({ score }) => score), strength: sums.map(({ strength }) => strength), member: graph.member ? sums.map(member) : null,
    beside: (at) => sums[at].edges.every(graph.beside),
    selectionOf: (at) => (sums[at].edges.length === 1 ? graph.edgeName(sums[at].edges[0]) : sums[at].source >= graph.n ? "group:" + closed[sums[at].source - graph.n].at : "group:" + closed[sums[at].reader - graph.n].at),
    nameOf: (node) => (node >= graph.n ? "group:" + closed[node - graph.n].at : names[node]),
  };
}

function layoutWith(layout, graph, closed) {  // a closed group stands in the middle of its nodes, or where it was dragged
  const middle = (values, { nodes, shift = [0, 0] }, axis) => {
    const known = nodes.map((name) => values[graph.index.get(name)]).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length + shift[axis] : null;
  };
  return { ...layout, x: [...layout.x, ...closed.map((group) => middle(layout.x, group, 0))], y: [...layout.y, ...closed.map((group) => middle(layout.y, group, 1))] };
}
