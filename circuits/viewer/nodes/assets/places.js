// Where marks stand: rows are layers; across, scores, positions or heads.

const FRAME = { top: 26, bottom: 44, right: 14 }, SUMS = { width: 196, count: 46, gap: 30 }, GOLDEN = 0.618034;
const EMPTY_ROW = 0.45, LARGEST = 9, SMALLEST = 2.6;

function placed(view, state, width, height) {
  const { data, nodes } = view, longest = Math.max(...data.rows.name.map((name) => name.length), 3);
  const area = { left: 22 + LETTER * longest, right: width - FRAME.right - SUMS.width - SUMS.gap, top: FRAME.top, bottom: height - FRAME.bottom - (state.mode === "position" ? 34 : 0) };
  const rows = rowsOf(data, state, area), columns = state.mode === "score" ? null : columnsOf(data, state, area);
  const across = state.mode === "score" ? scoreAxis(nodes, state, area) : null;
  const largest = Math.max(nodes.m ? nodes.strength[0] : 0, 1e-30), cells = new Map();
  for (const thing of view.things) {
    const [node] = thing.nodes, key = nodes.row[node] + "/" + (state.mode === "position" ? nodes.span[node] : 0);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(thing);
  }
  for (const held of cells.values()) held.forEach((thing, at) => {
    const [node] = thing.nodes, row = rows[nodes.row[node]], most = Math.min(LARGEST, Math.max(3, 0.46 * row.tall));
    thing.r = Math.max(1.6, SMALLEST + (most - SMALLEST) * Math.sqrt(Math.min(1, thing.strength / largest)));
    const aside = held.length > 1 ? ((at + 0.5) * GOLDEN) % 1 - 0.5 : 0;
    thing.y = row.middle + 0.62 * row.tall * aside;
    if (across) thing.x = across.at(nodes.score[node]);
    else if (state.mode === "position") thing.x = besideOthers(held, at, columns[nodes.span[node]]);
    else Object.assign(thing, { x: columns[nodes.unit[node]].middle, y: row.middle, wide: columns[nodes.unit[node]].width - 2, tall: row.tall - 2 });
  });
  return { width, height, area, rows, columns, across };
}

function besideOthers(held, at, column) {     // the strongest in the middle, the others right and left of it in turn
  const room = 0.86 * column.width, step = Math.min(2.2 * LARGEST, room / held.length);
  return column.middle + (at % 2 ? 1 : -1) * Math.ceil(at / 2) * step;
}

function rowsOf(data, state, area) {          // the first at the bottom; where nothing stands there is less room
  const weights = data.rows.nodes.map((count) => (count || state.mode === "grid" ? 1 : EMPTY_ROW));
  const unit = (area.bottom - area.top) / Math.max(weights.reduce((a, b) => a + b, 0), 1);
  let bottom = area.bottom;
  return weights.map((weight) => {
    const row = { middle: bottom - weight * unit / 2, tall: weight * unit };
    bottom -= weight * unit;
    return row;
  });
}

function columnsOf(data, state, area) {
  const names = state.mode === "position" ? data.spans.position.map(String) : Array.from({ length: data.grid.units }, (_, unit) => (unit < data.grid.heads ? "h" + unit : "MLP"));
  const width = (area.right - area.left) / names.length;
  return names.map((name, at) => ({ name, width, middle: area.left + (at + 0.5) * width }));
}

function scoreAxis(nodes, state, area) {
  const bend = state.scale === "root" ? (value) => Math.sign(value) * Math.sqrt(Math.abs(value)) : (value) => value;
  const least = nodes.score.reduce((a, b) => Math.min(a, b), 0), most = nodes.score.reduce((a, b) => Math.max(a, b), 0);
  const [from, to] = [bend(least), bend(most)], room = area.right - area.left - 2 * LARGEST - 6;
  const at = (value) => area.left + LARGEST + 3 + room * (bend(value) - from) / Math.max(to - from, 1e-30);
  const ticks = [least, most].filter(Boolean).flatMap((end) => ticksTo(end, state.scale));
  return { at, ticks: [0, ...ticks].map((value) => ({ value, x: at(value) })) };
}

function ticksTo(end, scale) {                // round numbers on the way to an end
  const size = 10 ** Math.floor(Math.log10(Math.abs(end))), lead = Math.abs(end) / size;
  const top = (lead >= 5 ? 5 : lead >= 2 ? 2 : 1) * size * Math.sign(end);
  return scale === "root" ? [top, top / 10] : [top, top / 2];
}
