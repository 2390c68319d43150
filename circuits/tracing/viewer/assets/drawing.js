// The picture, an SVG that needs no style sheet: it is exported as it stands.

const OWN_COLOURS = ["unit", "unit-ink", "token", "token-ink", "logit", "logit-ink", "missed"];

function makeDrawing(app, plot) {
  const svg = shape("svg", { xmlns: "http://www.w3.org/2000/svg", "font-family": FONT, "font-size": 12 });
  plot.append(svg);
  let zoom = { x: 0, y: 0, k: 1 }, inner = null, palette = null;

  function axes({ rows, width }, layers) {
    const parts = [shape("text", { x: 14, y: rows.get(layers).middle + 4, fill: palette.muted }, "logits"), shape("text", { x: 14, y: rows.get(-1).middle + 4, fill: palette.muted }, "tokens")];
    let above = rows.get(-1).middle;
    for (let layer = 0; layer < layers; layer++) {
      const { middle, full } = rows.get(layer);
      if (full) parts.push(shape("line", { x1: FRAME.left - 14, x2: width - FRAME.right + 6, y1: middle, y2: middle, stroke: palette.line, "stroke-width": 1 }));
      if (!(full || layer % 5 === 0) || above - middle < 13 || middle - rows.get(layers).middle < 13) continue;
      parts.push(shape("text", { x: 38, y: middle + 4, fill: full ? palette.ink : palette.muted, "text-anchor": "end", "font-size": 11.5 }, String(layer)));
      above = middle;
    }
    return shape("g", { class: "axes" }, ...parts);
  }

  function body(thing) {
    const fill = thing.group >= 0 ? palette.groups[thing.group % palette.groups.length] : null;
    const edge = thing.found ? palette.found : thing.pinned || thing.selected ? palette.accent : null;
    if (thing.kind === "remainder") return bar(thing, edge);
    if (thing.tall) {
      const [paper, ink] = fill ? [fill, palette.ink] : thing.kind === "token" ? [palette.token, palette["token-ink"]] : [palette.logit, palette["logit-ink"]];
      const box = shape("rect", { x: -thing.wide / 2, y: -thing.tall / 2, width: Math.max(4, thing.wide), height: thing.tall, rx: thing.kind === "group" ? 12 : 6,
        fill: paper, "fill-opacity": fill ? 0.35 : 1, stroke: edge || fill || ink, "stroke-width": edge ? 2.6 : fill ? 1.8 : 1 });
      const paperBelow = fill ? [shape("rect", { x: -thing.wide / 2, y: -thing.tall / 2, width: thing.wide, height: thing.tall, rx: 12, fill: palette.panel })] : [];
      return [...paperBelow, box, shape("text", { "text-anchor": "middle", y: 4, fill: fill ? palette.ink : ink, "font-weight": thing.kind === "token" ? 400 : 600 }, clipped(thing.word, thing.wide + 6))];
    }
    if (thing.kind === "error") {
      const r = thing.r + 1;
      return [shape("path", { d: "M0 " + -r + "L" + r + " 0L0 " + r + "L" + -r + " 0Z", fill: palette.panel, stroke: edge || palette.missed, "stroke-width": edge ? 2.6 : 1.4, "stroke-dasharray": edge ? null : "2 2" })];
    }
    return disc(thing, edge);
  }

  function disc(thing, edge) {                // its ring is dark as far as it is explained
    const r = thing.r, round = 2 * Math.PI * (r + 1.2), square = thing.kind === "head" || thing.kind === "mlp";
    const core = square ? shape("rect", { x: -r, y: -r, width: 2 * r, height: 2 * r, rx: 2, fill: palette.unit, stroke: palette["unit-ink"] })
      : shape("circle", { r, fill: palette.unit });
    const parts = [shape("circle", { r: r + 3, fill: palette.panel }), core, shape("circle", { r: r + 1.2, fill: "none", stroke: palette["unit-ink"], "stroke-width": 1, "stroke-opacity": 0.35 }),
      shape("circle", { r: r + 1.2, fill: "none", stroke: palette["unit-ink"], "stroke-width": 2.6, transform: "rotate(-90)", "stroke-dasharray": (thing.explained * round).toFixed(2) + " " + round.toFixed(2) })];
    if (edge) parts.push(shape("circle", { r: r + 4.4, fill: "none", stroke: edge, "stroke-width": 2.4 }));
    return parts;
  }

  function bar(thing, edge) {
    const { wide, tall } = thing, left = { x: -wide / 2, y: -tall / 2, width: wide, height: tall, rx: 6 };
    return [shape("rect", { ...left, fill: palette.panel }), shape("rect", { ...left, fill: "url(#hatch)", stroke: edge || palette.missed, "stroke-width": edge ? 2.6 : 1.2, "stroke-dasharray": edge ? null : "4 3" }),
      shape("text", { transform: "rotate(-90)", "text-anchor": "middle", y: 4, fill: palette.ink, "font-size": 12, "font-weight": 600, ...halo(palette, 5) }, "not shown: " + percent(thing.influence / app.trace.total) + " of the influence")];
  }

  function node(thing, index, faded) {
    const group = shape("g", { class: "node kind-" + thing.kind, "data-thing": index, "data-name": thing.name, transform: "translate(" + thing.x.toFixed(1) + " " + thing.y.toFixed(1) + ")",
      role: "button", tabindex: -1, "aria-label": ariaOf(app, thing), "aria-pressed": String(Boolean(thing.selected)), opacity: faded ? 0.22 : 1 });
    group.append(...body(thing));
    return group;
  }

  // Names beside discs, the strongest first; pinned, selected and found ones always.
  function labels(things, faded) {
    const taken = things.filter(({ kind }) => kind !== "remainder").map((thing) => (thing.tall
      ? [thing.x - thing.wide / 2, thing.y - thing.tall / 2, thing.x + thing.wide / 2, thing.y + thing.tall / 2] : boxOf(thing)));
    const first = (thing) => (thing.selected ? 4 : thing.pinned ? 3 : thing.found ? 2 : faded(thing) ? 0 : 1);
    const order = things.filter(({ r }) => r).sort((a, b) => first(b) - first(a) || b.influence - a.influence);
    const within = (box) => box[0] > FRAME.left - 24 && box[2] < app.view.places.width - 2;
    return namesBeside(order, taken, within, (thing) => first(thing) >= 2).map(({ mark, text, at }) => shape("text", { ...at, fill: first(mark) ? palette.ink : palette.muted,
      "font-size": 11.5, ...halo(palette), opacity: faded(mark) ? 0.35 : 1, "pointer-events": "none" }, text));
  }

  function hatch() {
    return shape("defs", {}, shape("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      shape("line", { x1: 0, x2: 0, y1: 0, y2: 6, stroke: palette.missed, "stroke-width": 1.6, "stroke-opacity": 0.5 })));
  }

  function draw(view) {
    const { width, height } = view.places, { things, links, picked } = view;
    palette = colours(["line", ...OWN_COLOURS]);
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const focus = picked === null ? null : things[picked];
    const near = focus && new Set([picked, ...focus.links.flatMap(({ source, target }) => [source, target])]);
    const faded = (thing) => Boolean(near && !near.has(things.indexOf(thing)));
    const lit = focus && ((link) => link.source === picked || link.target === picked);
    const paths = pathsOf(links, things, palette, lit).map((attributes) => shape("path", attributes));
    inner = shape("g", {}, axes(view.places, app.data.layers), shape("g", { class: "curves" }, ...paths),
      ...things.map((thing, index) => node(thing, index, near && !near.has(index))), ...labels(things, faded));
    svg.replaceChildren(hatch(), inner);
    move(zoom);
  }

  function move(next) {
    zoom = next;
    moveTo(inner, zoom);
  }

  return { svg, draw, move, zoom: () => zoom, palette: () => palette };
}

function ariaOf(app, thing) {
  const { data } = app, at = thing.kind !== "remainder" ? ", token " + data.tokens[thing.position].trim() : "";
  return thing.kind === "group" ? "group " + thing.word : thing.kind + " " + thing.name + (thing.word === thing.name ? "" : ", " + thing.word) + at;
}
