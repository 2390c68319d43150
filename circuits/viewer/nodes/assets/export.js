// The page's exports: itself with the present view, the table, the view as JSON, pictures.

function listed(app) {                        // what the table holds, in its order
  const { nodes, data, view, state } = app;
  return ordered(app, view.found === null ? view.list : view.found, state.order).map((node) => ({
    node: nodes.own[node], [data.level === "feature" ? "dictionary" : "layer"]: data.rows.name[nodes.row[node]],
    ...(nodes.span ? { position: data.spans.position[nodes.span[node]] } : {}), score: nodes.score[node], rank: node + 1,
  }));
}

function toCsv(app) {
  const rows = listed(app), quoted = (value) => (/[",\n]/.test(String(value)) ? "\"" + String(value).replace(/"/g, "\"\"") + "\"" : String(value));
  return [Object.keys(rows[0] || { node: "" }), ...rows.map(Object.values)].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

function toJson(app) {
  const { data, state } = app;
  return JSON.stringify({ format: "faithful-circuits/view", version: 1, title: data.title, facts: data.facts, provenance: Object.fromEntries(data.provenance), state, nodes: listed(app) }, null, 1);
}

function startExport(app) {
  startSaving(app, [
    ["html", "This page (HTML)", async () => new Blob([wholePage(app)], { type: "text/html" })],
    ["csv", "Table (CSV)", async () => new Blob([toCsv(app)], { type: "text/csv" })],
    ["json", "View and nodes (JSON)", async () => new Blob([toJson(app)], { type: "application/json" })],
    ["svg", "Picture (SVG)", async () => new Blob([pictureText(app)], { type: "image/svg+xml" })],
    ["png", "Picture (PNG, 300 dpi)", () => pictureBlob(app)],
  ]);
}
