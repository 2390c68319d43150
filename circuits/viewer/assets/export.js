// The page's exports: itself with the present view, the view as JSON, pictures, and graph formats.

function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function fileName(app, ending) {
  return (app.data.title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "circuit") + "." + ending;
}

function wholePage(app) {                     // as it came, with the present view in place of the first
  const copy = document.documentElement.cloneNode(true);
  copy.querySelector("#app").innerHTML = app.pristine;
  copy.querySelectorAll("style ~ style, #view-state, body > svg, body > a") // plotly adds its own
    .forEach((each) => each.remove());
  copy.removeAttribute("data-ready");
  const saved = document.createElement("script");
  saved.id = "view-state";
  saved.type = "application/json";
  saved.textContent = JSON.stringify(app.state).replace(/</g, "\\u003c");
  copy.querySelector("#circuit-data").after(saved);
  return "<!doctype html>\n" + copy.outerHTML + "\n";
}

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

async function blobOf(address) {              // a data URL's content; fetch is forbidden in this page
  const [head, body] = [address.slice(0, address.indexOf(",")), address.slice(address.indexOf(",") + 1)];
  const bytes = head.includes("base64") ? Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0)) : decodeURIComponent(body);
  return new Blob([bytes], { type: head.slice(5).split(/[;,]/)[0] });
}

function startExport(app) {
  const kinds = [
    ["html", "This page (HTML)", async () => new Blob([wholePage(app)], { type: "text/html" })],
    ["json", "View and edges (JSON)", async () => new Blob([toJson(app)], { type: "application/json" })],
    ["svg", "Picture (SVG)", async () => blobOf(await picture(app, "svg"))],
    ["png", "Picture (PNG)", async () => blobOf(await picture(app, "png"))],
    ["graphml", "Graph (GraphML)", async () => new Blob([toGraphml(app)], { type: "application/xml" })],
    ["dot", "Graph (DOT)", async () => new Blob([toDot(app)], { type: "text/vnd.graphviz" })],
  ];
  const menu = byId("export-menu");
  byId("export-list").append(...kinds.map(([ending, text, make]) => element("button", {
    type: "button", role: "menuitem", id: "export-" + ending,
    onclick: async () => { menu.open = false; download(fileName(app, ending), await make()); },
  }, text)));
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  const file = byId("load-file");
  byId("load").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    try {
      const view = JSON.parse(await chosen.text());
      if (view.format !== "faithful-circuits/view") throw new Error("no view");
      app.load(view.state || {});
    } catch {
      app.say("That file holds no view: load a JSON file that this page exported.");
    }
    file.value = "";
  });
}
