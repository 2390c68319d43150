// The edges drawn, as text in the formats of other programs.

function drawnGraph(app) {
  const { graph, data, view, state } = app;
  const edges = Array.from(view.pass.list.subarray(0, view.kept), (edge) => ({
    edge: graph.edgeName(edge), source: graph.names[graph.source[edge]], reader: graph.names[graph.reader[edge]],
    port: { m: "in", l: "in" }[PORTS[graph.port[edge]]] || PORTS[graph.port[edge]], score: graph.score[edge],
    ...(graph.member ? { in: ["both", "here", "there"][graph.member[edge]], other: graph.other[edge] } : {}),
  }));
  const names = new Set(edges.flatMap(({ source, reader }) => [source, reader]));
  const layer = (node) => ({ input: -1, logits: data.layers }[graph.kind[node]] ?? Number(/\d+/.exec(graph.component[node])[0]));
  const group = (name) => state.groups.find(({ nodes }) => nodes.includes(name))?.label;
  const nodes = graph.names.filter((name) => names.has(name)).map((name) => ({ name, layer: layer(graph.index.get(name)), ...(group(name) ? { group: group(name) } : {}) }));
  return { nodes, edges };
}

function toJson(app) {
  const { data, state } = app;
  return JSON.stringify({ format: "faithful-circuits/view", version: 1, title: data.title, facts: data.facts, provenance: data.provenance, state, ...drawnGraph(app) }, null, 1);
}

function xml(value) {
  return String(value).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

function toGraphml(app) {
  const { nodes, edges } = drawnGraph(app);
  const keys = [["layer", "node", "long"], ["group", "node", "string"], ["edge", "edge", "string"], ["port", "edge", "string"], ["score", "edge", "double"], ["in", "edge", "string"], ["other", "edge", "double"]];
  const values = (item, of) => keys.filter(([name, kind]) => kind === of && item[name] !== undefined).map(([name]) => "<data key=\"" + name + "\">" + xml(item[name]) + "</data>").join("");
  return "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n"
    + keys.map(([name, of, type]) => "<key id=\"" + name + "\" for=\"" + of + "\" attr.name=\"" + name + "\" attr.type=\"" + type + "\"/>\n").join("")
    + "<graph edgedefault=\"directed\">\n" + nodes.map((node) => "<node id=\"" + xml(node.name) + "\">" + values(node, "node") + "</node>\n").join("")
    + edges.map((edge) => "<edge source=\"" + xml(edge.source) + "\" target=\"" + xml(edge.reader) + "\" id=\"" + xml(edge.edge + " " + edge.reader) + "\">" + values(edge, "edge") + "</edge>\n").join("")
    + "</graph>\n</graphml>\n";
}

function quoted(value) { return "\"" + String(value).replace(/\\/g, "\\\\").replace(/"/g, "\\\"").replace(/\n/g, "\\n") + "\""; }

function toDot(app) {
  const { nodes, edges } = drawnGraph(app), largest = Math.max(...edges.map(({ score }) => Math.abs(score)), 1e-30);
  const [positive, negative] = LOOK.signs;
  return "digraph " + quoted(app.data.title) + " {\n  rankdir=BT;\n  node [shape=box, fontname=\"sans-serif\"];\n"
    + nodes.map(({ name, group }) => "  " + quoted(name) + (group ? " [xlabel=" + quoted(group) + "]" : "") + ";\n").join("")
    + edges.map(({ source, reader, port, score }) => "  " + quoted(source) + " -> " + quoted(reader) + " [color=" + quoted(score < 0 ? negative : positive)
      + ", penwidth=" + (0.5 + 4.5 * Math.abs(score) / largest).toFixed(2) + ", tooltip=" + quoted(port + " " + score) + "];\n").join("") + "}\n";
}
