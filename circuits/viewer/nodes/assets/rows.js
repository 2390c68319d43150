// Beside the marks: how many nodes each row has, and the sums of its positive and negative scores. Below positions the same.

function rowSums(app, { width, rows, area }, palette) {
  const { data } = app, { nodes, helps, hurts } = data.rows, left = width - FRAME.right - SUMS.width, middle = bars(helps, hurts, left + SUMS.count, SUMS.width - SUMS.count);
  const head = { y: area.top - 11, "font-size": 11, fill: palette.muted };
  const parts = [shape("text", { ...head, x: left + SUMS.count - 12, "text-anchor": "end" }, "nodes"), shape("text", { ...head, x: left + SUMS.count }, "sum of scores")];
  const letters = Math.max(8.5, Math.min(11.5, rows.length ? 0.9 * Math.min(...rows.map(({ tall }) => tall)) : 11));
  let above = Infinity;
  rows.forEach(({ middle: y, tall }, row) => {
    if (nodes[row]) {
      parts.push(...pair(helps[row], hurts[row], middle, palette, (from, long) => ({ x: from, width: long, y: y - Math.min(7, 0.36 * tall), height: Math.min(14, 0.72 * tall) })));
      if (above - y >= letters - 1) {
        parts.push(shape("text", { x: left + SUMS.count - 12, y: y + 0.35 * letters, "text-anchor": "end", "font-size": letters, fill: palette.ink }, count(nodes[row])));
        above = y;
      }
    }
    parts.push(shape("rect", { "data-row": row, x: left - 8, y: y - tall / 2, width: SUMS.width + 14, height: tall, fill: "transparent" }));
  });
  parts.push(shape("line", { x1: middle.at(0), x2: middle.at(0), y1: area.top, y2: area.bottom, stroke: palette.muted, "stroke-width": 1 }));
  return shape("g", { class: "sums" }, ...parts);
}

function spanSums(app, { columns, height }, palette) {
  const { helps, hurts } = app.data.spans, tall = 30, low = height - FRAME.bottom + 4, scale = bars(helps, hurts, 0, tall), parts = [];
  columns.forEach(({ middle, width }, at) => {
    const turned = (from, long) => ({ x: middle - Math.min(12, 0.3 * width), width: Math.min(24, 0.6 * width), y: low - from - long, height: long });
    parts.push(...pair(helps[at], hurts[at], scale, palette, turned));
  });
  const y = low - scale.at(0);
  if (columns.length) parts.push(shape("line", { x1: columns[0].middle - columns[0].width / 2, x2: columns[columns.length - 1].middle + columns[0].width / 2, y1: y, y2: y, stroke: palette.muted, "stroke-width": 1 }));
  return shape("g", { class: "sums" }, ...parts);
}

function bars(helps, hurts, start, room) {    // one scale for all, from the lowest sum to the highest
  const low = Math.min(0, ...hurts), high = Math.max(0, ...helps);
  return { at: (value) => start + room * (value - low) / Math.max(high - low, 1e-30) };
}

function pair(helps, hurts, scale, palette, box) {
  return [[0, helps, palette.positive], [hurts, 0, palette.negative]].filter(([from, to]) => to > from)
    .map(([from, to, fill]) => shape("rect", { ...box(scale.at(from), Math.max(1, scale.at(to) - scale.at(from))), fill, rx: 1.5 }));
}
