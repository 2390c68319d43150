// Pictures in SVG that need no style sheet: they are saved as they stand.

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
const LETTER = 6.4;                           // a letter's width in pixels, about

function shape(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function clipped(text, pixels) {              // as many letters as there is room for
  const letters = [...text], most = Math.max(1, Math.floor((pixels - 8) / LETTER));
  return letters.length <= most ? text : letters.slice(0, Math.max(1, most - 1)).join("") + "\u2026";
}

function halo(palette, width = 3) { return { stroke: palette.panel, "stroke-width": width, "stroke-linejoin": "round", "paint-order": "stroke" }; }

const CAPTION = 76;                              // pixels above a saved picture: title, size and faithfulness, legend

function legendShown() {                      // what the page's legend says, one beside the other
  let x = 14;
  return Array.from(document.querySelectorAll("#legend .key"), (key) => {
    const text = key.textContent, swatch = key.querySelector("i"), at = x;
    x += 40 + LETTER * [...text].length;
    return { x: at, text, colour: swatch ? getComputedStyle(swatch).color : "none" };
  });
}

function pictureText(app) {                   // the SVG as it stands, whatever is zoomed, on paper
  const copy = app.drawing.svg.cloneNode(true), { width, height } = app.view.places, palette = app.drawing.palette();
  const title = (text, y, size, fill) => shape("text", { x: 14, y, "font-size": size, fill, "font-weight": size > 14 ? 600 : 400 }, clipped(text, width * 12 / size));
  copy.setAttribute("viewBox", "0 " + -CAPTION + " " + width + " " + (height + CAPTION));
  copy.setAttribute("height", height + CAPTION);
  copy.prepend(shape("rect", { x: 0, y: -CAPTION, width, height: height + CAPTION, fill: palette.panel }), title(app.data.title, 26 - CAPTION, 18, palette.ink),
    title([...app.data.facts, byId("shown").textContent].join(" \u00b7 "), 45 - CAPTION, 12, palette.muted),
    ...legendShown().flatMap(({ x, text, colour }) => [shape("line", { x1: x, x2: x + 18, y1: 62 - CAPTION, y2: 62 - CAPTION, stroke: colour, "stroke-width": 4 }), shape("text", { x: x + 24, y: 66 - CAPTION, "font-size": 12, fill: palette.ink }, text)]));
  return new XMLSerializer().serializeToString(copy);
}

async function pictureBlob(app) {
  const { width, height } = app.view.places, image = new Image(), canvas = document.createElement("canvas");
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(pictureText(app));
  await image.decode();
  canvas.width = Math.round(FINER * width);
  canvas.height = Math.round(FINER * (height + CAPTION));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return inDots(await new Promise((done) => canvas.toBlob(done, "image/png")), 300);
}
