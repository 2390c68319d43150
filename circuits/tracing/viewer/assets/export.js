// The page's exports: itself with the present view, the view as JSON, pictures.

function toJson(app) {
  const { data, state, trace, view } = app, nameOf = (index) => (view.things[index].kind === "group" ? view.things[index].word : view.things[index].name);
  const nodes = view.things.map((thing) => ({ name: thing.kind === "group" ? thing.word : thing.name, kind: thing.kind, word: thing.word, influence: thing.influence,
    ...(thing.kind === "group" ? { nodes: thing.nodes.map((node) => trace.names[node]) } : {}) }));
  const links = view.links.map((link) => ({ source: nameOf(link.source), target: nameOf(link.target), weight: link.weight }));
  return JSON.stringify({ format: "faithful-circuits/view", version: 1, title: data.title, facts: data.facts, provenance: data.provenance, state, nodes, links }, null, 1);
}

function startExport(app) {
  startSaving(app, [
    ["html", "This page (HTML)", async () => new Blob([wholePage(app)], { type: "text/html" })],
    ["json", "View, nodes and links (JSON)", async () => new Blob([toJson(app)], { type: "application/json" })],
    ["svg", "Picture (SVG)", async () => new Blob([pictureText(app)], { type: "image/svg+xml" })],
    ["png", "Picture (PNG, 300 dpi)", () => pictureBlob(app)],
  ]);
}
