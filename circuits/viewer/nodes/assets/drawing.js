// The picture: marks or cells by row, axes, sums, names of the strongest.

const NAMED = 40, AVOIDED = 600;              // marks whose names are tried for, and that names keep clear of: the strongest

function makeDrawing(app, plot) {
  const svg = shape("svg", { xmlns: "http://www.w3.org/2000/svg", "font-family": FONT, "font-size": 12 });
  plot.append(svg);
  let zoom = { x: 0, y: 0, k: 1 }, inner = null, palette = null;

  function axes({ rows, columns, across, area, height }) {
    const { data, state } = app, parts = [], line = (attributes) => shape("line", { stroke: palette.line, "stroke-width": 1, ...attributes });
    let above = Infinity;
    rows.forEach(({ middle }, row) => {
      if (data.rows.nodes[row] && state.mode !== "grid") parts.push(line({ x1: area.left, x2: area.right, y1: middle, y2: middle }));
      if (above - middle < 12) return;
      above = middle;
      parts.push(shape("text", { x: area.left - 8, y: middle + 4, "text-anchor": "end", "font-size": 11, fill: data.rows.nodes[row] ? palette.ink : palette.muted }, data.rows.name[row]));
    });
    const below = (x, text, y, fill = palette.muted) => shape("text", { x, y, "text-anchor": "middle", "font-size": 11, fill }, text);
    if (across) {
      for (const { value, x } of across.ticks) parts.push(line({ x1: x, x2: x, y1: area.top - 4, y2: area.bottom, stroke: value ? palette.line : palette.muted }), below(x, value ? signed(value, 2) : "0", area.bottom + 15));
      parts.push(below((area.left + area.right) / 2, "score" + (state.scale === "root" ? " (square-root scale)" : ""), area.bottom + 33));
    } else {
      const step = Math.ceil(26 / columns[0].width), words = state.mode === "position" ? data.spans.token : null;
      columns.forEach(({ name, middle, width }, at) => {
        if (at % step && name !== "MLP") return;
        if (words && words[at] !== null) parts.push(below(middle, clipped(visible(words[at]), Math.max(22, width * step - 2)), height - 20, palette.ink));
        parts.push(below(middle, name, words ? height - 6 : area.bottom + 15));
      });
      if (!words) parts.push(below((area.left + area.right) / 2, "head", area.bottom + 33));
    }
    parts.push(shape("text", { x: area.left - 8, y: area.top - 11, "text-anchor": "end", "font-size": 11, fill: palette.muted }, data.level === "feature" ? "dictionary" : "layer"));
    return shape("g", { class: "axes" }, ...parts);
  }

  function cells({ rows, columns }) {          // all heads and MLPs of the model, faint: marks of the circuit stand over them
    const { grid } = app.data, parts = [];
    rows.forEach(({ middle, tall }, row) => columns.forEach((column, unit) => {
      const value = app.grid[row * grid.units + unit];
      parts.push(shape("rect", { "data-cell": row * grid.units + unit, x: column.middle - column.width / 2 + 1, y: middle - tall / 2 + 1, width: Math.max(1, column.width - 2), height: Math.max(1, tall - 2), rx: 2,
        fill: value < 0 ? palette.negative : palette.positive, "fill-opacity": (0.05 + 0.4 * Math.sqrt(Math.abs(value) / app.most)).toFixed(3) }));
    }));
    return shape("g", { class: "cells" }, ...parts);
  }

  function mark(thing, index, faded) {
    const group = shape("g", { class: "node", "data-thing": index, "data-name": thing.name, transform: "translate(" + thing.x.toFixed(1) + " " + thing.y.toFixed(1) + ")",
      role: "button", tabindex: -1, "aria-label": ariaOf(app, thing), "aria-pressed": String(thing.selected), opacity: faded ? 0.16 : 1 });
    const tone = thing.score < 0 ? palette.negative : palette.positive, ring = thing.selected || thing.pinned ? palette.accent : thing.found ? palette.found : thing.group >= 0 ? palette.groups[thing.group % 6] : null;
    if (thing.wide) {
      const box = { x: -thing.wide / 2, y: -thing.tall / 2, width: Math.max(2, thing.wide), height: Math.max(2, thing.tall), rx: 2 };
      group.append(shape("rect", { ...box, fill: palette.panel }), shape("rect", { ...box, fill: tone, "fill-opacity": (0.2 + 0.8 * Math.sqrt(thing.strength / app.most)).toFixed(3), stroke: ring || palette.ink, "stroke-width": ring ? 3 : 1.5 }));
      return group;
    }
    if (ring) group.append(shape("circle", { r: thing.r + 3, fill: "none", stroke: ring, "stroke-width": 2.4 }));
    group.append(shape("circle", { r: thing.r.toFixed(2), fill: tone, "fill-opacity": 0.78, stroke: palette.panel, "stroke-width": 0.8 }));
    return group;
  }

  function names(things, { area }) {
    if (app.state.mode === "grid") return [];
    const sure = (thing) => thing.selected || thing.pinned, strongest = things.slice(0, NAMED);
    const order = [...things.filter(sure), ...strongest.filter((thing) => !sure(thing) && (app.view.found === null || thing.found))];
    const within = (box) => box[0] > area.left && box[2] < area.right + SUMS.gap - 8 && box[1] > area.top - 8 && box[3] < area.bottom + 2;
    return namesBeside(order, things.slice(0, AVOIDED).map(boxOf), within, sure, 190)
      .map(({ mark: thing, text, at }) => shape("text", { ...at, fill: palette.ink, "font-size": 11, ...halo(palette), "pointer-events": "none" }, text));
  }

  function draw(view) {
    const { places, things, found } = view, { width, height } = places;
    palette = colours(["line"]);
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const order = things.map((thing, index) => [thing, index]).reverse(), faded = (thing) => found !== null && !thing.found && !thing.selected;
    inner = shape("g", {}, axes(places), ...(app.state.mode === "grid" ? [cells(places)] : []), rowSums(app, places, palette),
      ...(app.state.mode === "position" ? [spanSums(app, places, palette)] : []), ...order.map(([thing, index]) => mark(thing, index, faded(thing))), ...names(things, places));
    svg.replaceChildren(inner);
    move(zoom);
  }

  function move(next) {
    zoom = next;
    moveTo(inner, zoom);
  }

  return { svg, draw, move, zoom: () => zoom, palette: () => palette };
}

function ariaOf(app, thing) {
  const promotes = promotedText(app.nodes, thing.nodes[0], 1);
  return thing.name + ", score " + signed(thing.score) + (promotes ? ", promotes " + promotes : "");
}
