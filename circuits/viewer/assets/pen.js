// One way to draw, on the screen and into files: the same words paint on a canvas and write SVG. Lines are flat lists of
// pixels, x and y in turn; NaN lifts the pen.

const TOGETHER = 200;                         // curves in one stroke: a stroke of very many takes long
const CORNERS = { circle: null, square: [45, 135, 225, 315], diamond: [0, 90, 180, 270], hexagon2: [0, 60, 120, 180, 240, 300] };

function corners(symbol, x, y, size) {        // of about the same area as the disc
  const reach = size * (symbol === "square" ? 0.64 : 0.6);
  return CORNERS[symbol].map((angle) => [x + reach * Math.cos((angle * Math.PI) / 180), y + reach * Math.sin((angle * Math.PI) / 180)]);
}

function canvasPen(context) {
  const stroke = ({ colour, width = 1, alpha = 1, dash = null }) => Object.assign(context, { strokeStyle: colour, lineWidth: width, globalAlpha: alpha, lineJoin: "round" }).setLineDash(dash || []);
  return {
    line(points, style) {
      stroke(style);
      let curves = 0, down = false;
      context.beginPath();
      for (let at = 0; at < points.length; at += 2) {
        if (Number.isNaN(points[at])) {
          down = false;
          if (++curves % TOGETHER === 0) { context.stroke(); context.beginPath(); }
        } else if (down) context.lineTo(points[at], points[at + 1]);
        else { context.moveTo(points[at], points[at + 1]); down = true; }
      }
      context.stroke();
    },
    mark(symbol, x, y, size, { fill, edge, width = 1.6, alpha = 1 }) {
      context.globalAlpha = alpha;
      context.beginPath();
      if (CORNERS[symbol]) { corners(symbol, x, y, size).forEach((corner, at) => context[at ? "lineTo" : "moveTo"](...corner)); context.closePath(); }
      else context.arc(x, y, size / 2, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
      if (!edge) return;
      stroke({ colour: edge, width, alpha });
      context.stroke();
    },
    box(x, y, width, height, { fill, alpha = 1 }) {
      context.globalAlpha = alpha;
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    },
    text(x, y, text, { size = 11, colour, anchor = "start", halo = null, turn = 0, weight = 400 }) {
      context.save();
      context.translate(x, y);
      context.rotate((turn * Math.PI) / 180);
      Object.assign(context, { font: weight + " " + size + "px " + FONT, textAlign: anchor === "middle" ? "center" : anchor, fillStyle: colour, globalAlpha: 1 });
      if (halo) { stroke({ colour: halo, width: 3 }); context.strokeText(text, 0, 0); }
      context.fillText(text, 0, 0);
      context.restore();
    },
    within({ left, top, width, height }, draw) {
      context.save();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
      draw();
      context.restore();
    },
  };
}

function svgPen() {
  const parts = [];
  let into = parts, clips = 0;
  const place = (value) => value.toFixed(1), lines = ({ colour, width = 1, alpha = 1, dash = null }) => ({ stroke: colour, "stroke-width": width, opacity: alpha < 1 ? alpha : null, "stroke-dasharray": dash && dash.join(" ") });
  return {
    parts,
    line(points, style) {
      const steps = [];
      for (let at = 0, down = false; at < points.length; at += 2) {
        if (Number.isNaN(points[at])) { down = false; continue; }
        steps.push((down ? "L" : "M") + place(points[at]) + " " + place(points[at + 1]));
        down = true;
      }
      if (steps.length) into.push(shape("path", { d: steps.join(""), fill: "none", "stroke-linejoin": "round", ...lines(style) }));
    },
    mark(symbol, x, y, size, { fill, edge, width = 1.6, alpha = 1 }) {
      const look = { fill, ...(edge ? lines({ colour: edge, width, alpha }) : { opacity: alpha < 1 ? alpha : null }) };
      into.push(CORNERS[symbol] ? shape("polygon", { points: corners(symbol, x, y, size).map((corner) => corner.map(place).join(",")).join(" "), ...look })
        : shape("circle", { cx: place(x), cy: place(y), r: size / 2, ...look }));
    },
    box(x, y, width, height, { fill, alpha = 1 }) { into.push(shape("rect", { x: place(x), y: place(y), width, height, fill, opacity: alpha < 1 ? alpha : null })); },
    text(x, y, text, { size = 11, colour, anchor = "start", halo = null, turn = 0, weight = 400 }) {
      into.push(shape("text", { x: place(x), y: place(y), "font-size": size, fill: colour, "text-anchor": anchor, "font-weight": weight === 400 ? null : weight,
        transform: turn ? "rotate(" + turn + " " + place(x) + " " + place(y) + ")" : null,
        ...(halo ? { stroke: halo, "stroke-width": 3, "stroke-linejoin": "round", "paint-order": "stroke" } : {}) }, text));
    },
    within({ left, top, width, height }, draw) {
      const id = "area-" + clips++, group = shape("g", { "clip-path": "url(#" + id + ")" }), inner = [];
      parts.push(shape("clipPath", { id }, shape("rect", { x: left, y: top, width, height })), group);
      into = inner;
      draw();
      group.append(...inner);
      into = parts;
    },
  };
}

// A canvas as large as its box, clear, in CSS pixels. Returns its pen.
function freshPen(canvas) {
  const ratio = window.devicePixelRatio || 1, { clientWidth, clientHeight } = canvas;
  const width = Math.max(1, Math.round(clientWidth * ratio)), height = Math.max(1, Math.round(clientHeight * ratio)), context = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  return canvasPen(context);
}
