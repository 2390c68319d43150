// The page's exports: itself with the present view, the view as JSON, pictures.

function pictureText(app) {                   // the SVG as it stands, whatever is zoomed, on paper
  const copy = app.drawing.svg.cloneNode(true), { width, height } = app.view.places, palette = app.drawing.palette();
  const head = 54, title = (text, y, size, fill) => shape("text", { x: 14, y, "font-size": size, fill, "font-weight": size > 14 ? 600 : 400 }, clipped(text, width * 12 / size));
  copy.setAttribute("viewBox", "0 " + -head + " " + width + " " + (height + head));
  copy.setAttribute("height", height + head);
  copy.prepend(shape("rect", { x: 0, y: -head, width, height: height + head, fill: palette.panel }), title(app.data.title, 26 - head, 18, palette.ink), title(app.data.facts.join(" \u00b7 "), 45 - head, 12, palette.muted));
  return new XMLSerializer().serializeToString(copy);
}

async function pictureBlob(app) {             // twice as many pixels as on the page
  const { width, height } = app.view.places, image = new Image(), canvas = document.createElement("canvas");
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(pictureText(app));
  await image.decode();
  canvas.width = 2 * Math.round(width);
  canvas.height = 2 * Math.round(height + 54);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

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
    ["png", "Picture (PNG)", () => pictureBlob(app)],
  ]);
}
