// The page's exports: itself with the present view, the view as JSON, pictures, and graph formats.

async function picture(app, format) {
  const { data, plot } = app, palette = app.picture.palette(), size = plot.getBoundingClientRect();
  const image = app.picture.denseImage(), layout = { ...plot.layout };
  const heading = { text: plotlyText(data.title), subtitle: { text: plotlyText(data.facts.join(" \u00b7 ")) }, x: 0.02, y: 0.985, yanchor: "top", font: { color: palette.ink, size: 18 } };
  const height = size.height + 56, images = [];
  if (image) {                                // the canvas lies exactly over the plot
    const full = drawnArea(plot);
    images.push({ source: image, xref: "paper", yref: "paper", x: -full.left / full.width, y: 1 + full.top / full.height, sizex: size.width / full.width, sizey: size.height / full.height, xanchor: "left", yanchor: "top", sizing: "stretch", layer: "below" });
  }
  return Plotly.toImage({
    data: plot.data, config: { plotlyServerURL: "" },
    layout: { ...layout, title: heading, images, paper_bgcolor: palette.panel, margin: { ...layout.margin, t: layout.margin.t + 56 }, width: size.width, height,
      xaxis: { ...layout.xaxis, range: drawnArea(plot).x.slice() }, yaxis: { ...layout.yaxis, range: drawnArea(plot).y.slice() } },
  }, { format, width: size.width, height, scale: format === "png" ? 2 : 1 });
}

function startExport(app) {
  startSaving(app, [
    ["html", "This page (HTML)", async () => new Blob([wholePage(app)], { type: "text/html" })],
    ["json", "View and edges (JSON)", async () => new Blob([toJson(app)], { type: "application/json" })],
    ["svg", "Picture (SVG)", async () => blobOf(await picture(app, "svg"))],
    ["png", "Picture (PNG)", async () => blobOf(await picture(app, "png"))],
    ["graphml", "Graph (GraphML)", async () => new Blob([toGraphml(app)], { type: "application/xml" })],
    ["dot", "Graph (DOT)", async () => new Blob([toDot(app)], { type: "text/vnd.graphviz" })],
  ]);
}
