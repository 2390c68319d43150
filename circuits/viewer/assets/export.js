// The page's exports: itself with the present view, the view as JSON, pictures, and graph formats.

function paintAll(app, pen, { width, height }) {
  const { data, picture } = app, palette = picture.palette();
  pen.box(0, 0, width, height + CAPTION, { fill: palette.panel });
  pen.text(14, 26, clipped(data.title, (width * 12) / 18), { size: 18, weight: 600, colour: palette.ink });
  pen.text(14, 45, clipped([...data.facts, byId("shown").textContent].join(" \u00b7 "), width), { size: 12, colour: palette.muted });
  for (const { x, text, colour } of legendShown()) {
    pen.line([x, 62, x + 18, 62], { colour, width: 4 });
    pen.text(x + 24, 66, text, { size: 12, colour: palette.ink });
  }
  picture.into(pen, { width, height }, CAPTION);
}

function svgText(app) {
  const { width, height } = app.plot.getBoundingClientRect(), pen = svgPen(), tall = height + CAPTION;
  paintAll(app, pen, { width, height });
  return new XMLSerializer().serializeToString(shape("svg", { xmlns: "http://www.w3.org/2000/svg", width, height: tall, viewBox: "0 0 " + width + " " + tall, "font-family": FONT }, ...pen.parts));
}

async function pngBlob(app) {
  const { width, height } = app.plot.getBoundingClientRect(), canvas = element("canvas", { width: Math.round(width * FINER), height: Math.round((height + CAPTION) * FINER) }), context = canvas.getContext("2d");
  context.scale(FINER, FINER);
  paintAll(app, canvasPen(context), { width, height });
  return inDots(await new Promise((done) => canvas.toBlob(done, "image/png")), 300);
}

function startExport(app) {
  startSaving(app, [
    ["html", "This page (HTML)", async () => new Blob([wholePage(app)], { type: "text/html" })],
    ["json", "View and edges (JSON)", async () => new Blob([toJson(app)], { type: "application/json" })],
    ["svg", "Picture (SVG)", async () => new Blob([svgText(app)], { type: "image/svg+xml" })],
    ["png", "Picture (PNG, 300 dpi)", () => pngBlob(app)],
    ["graphml", "Graph (GraphML)", async () => new Blob([toGraphml(app)], { type: "application/xml" })],
    ["dot", "Graph (DOT)", async () => new Blob([toDot(app)], { type: "text/vnd.graphviz" })],
  ]);
}
