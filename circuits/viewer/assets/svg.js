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
