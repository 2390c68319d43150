// Where things stand: a column for each token, a row for each layer; those of one layer and token side by side, in as
// many lines as they need. Layers where nothing stands take little room.

const FRAME = { left: 94, right: 18, top: 18, bottom: 40 }, BAR = { x: 52, width: 20 };
const EMPTY_ROW = 0.28, ROOM = 60;

function textWidth(text, most = 15) { return 14 + LETTER * Math.min(most, [...text].length); }

function radiusOf(thing, largest) { return 4.5 + 6.5 * Math.sqrt(Math.min(1, thing.influence / largest)); }

function placed(view, data, width, height) {
  const { things } = view, length = data.tokens.length, cells = new Map();
  const units = things.filter(({ kind }) => !["token", "logit", "remainder"].includes(kind));
  const largest = Math.max(...units.filter(({ kind }) => kind !== "group").map(({ influence }) => influence), 1e-30);
  for (const thing of units) {
    const key = (thing.layer + 1) * length + thing.position;   // tokens stand below layer 0
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(thing);
  }
  const logits = things.filter(({ kind }) => kind === "logit"), lines = new Map();
  const columns = columnsOf(cells, data, width, logits.reduce((sum, { word }) => sum + logitWidth(word), 0));
  for (const [key, held] of cells) {
    const room = Math.max(1, Math.floor(columns[key % length].width / ROOM)), layer = Math.floor(key / length) - 1;
    lines.set(layer, Math.max(lines.get(layer) || 0, Math.ceil(held.length / room)));
  }
  const rows = rowsOf(lines, data.layers, height);
  for (const [key, held] of cells) spread(held, columns[key % length], rows.get(Math.floor(key / length) - 1), largest);
  for (const thing of things) {
    const column = columns[thing.position];
    if (thing.kind === "token") Object.assign(thing, { x: column.middle, y: rows.get(-1).middle, wide: Math.min(textWidth(thing.word), column.width - 4), tall: 22 });
    if (thing.kind === "remainder") Object.assign(thing, barOf(rows.get(data.layers), rows.get(-1)));
  }
  ranked(logits, rows.get(data.layers).middle, columns[length - 1], width);
  return { columns, rows, width, height };
}

// As wide as the fullest layer asks for, and at least as a token needs; all together as wide as the picture.
function columnsOf(cells, data, width, ranked) {
  const length = data.tokens.length, fullest = new Array(length).fill(0), free = width - FRAME.left - FRAME.right;
  for (const [key, held] of cells) fullest[key % length] = Math.max(fullest[key % length], held.length);
  const least = data.tokens.map((token) => Math.min(textWidth(visible(token)) + 8, Math.max(12, 0.9 * free / length)));
  const wanted = fullest.map((count, at) => Math.max(least[at], ROOM * Math.min(count, 9)));
  wanted[length - 1] = Math.max(wanted[length - 1], ranked);
  const base = least.reduce((a, b) => a + b, 0), extra = wanted.map((value, at) => value - least[at]), more = extra.reduce((a, b) => a + b, 0);
  const share = more > 0 ? Math.min(1, Math.max(0, free - base) / more) : 0;
  const widths = least.map((value, at) => value + share * extra[at]);
  const scale = free / widths.reduce((a, b) => a + b, 0);
  let left = FRAME.left;
  return widths.map((value) => {
    const column = { left, width: value * scale, middle: left + value * scale / 2 };
    left += column.width;
    return column;
  });
}

function rowsOf(lines, layers, height) {
  const weights = [1.25];
  for (let layer = 0; layer < layers; layer++) weights.push(lines.has(layer) ? Math.max(1, 0.8 * lines.get(layer) + 0.2) : EMPTY_ROW);
  weights.push(1.25);
  const unit = (height - FRAME.top - FRAME.bottom) / weights.reduce((a, b) => a + b, 0), rows = new Map();
  let bottom = height - FRAME.bottom;
  weights.forEach((weight, at) => {
    rows.set(at - 1, { middle: bottom - weight * unit / 2, tall: weight * unit, full: lines.has(at - 1), lines: lines.get(at - 1) || 1 });
    bottom -= weight * unit;
  });
  return rows;
}

function spread(held, column, row, largest) { // in lines, every second one shifted by half a place
  const per = Math.ceil(held.length / row.lines), lines = Math.ceil(held.length / per);
  held.forEach((thing, at) => {
    const line = Math.floor(at / per), here = Math.min(per, held.length - line * per), step = column.width / Math.max(per, 1);
    const shift = lines > 1 ? (line % 2 ? step / 4 : -step / 4) : 0;
    thing.r = thing.kind === "group" ? 0 : radiusOf(thing, largest);
    thing.x = column.middle + step * (at % per - (here - 1) / 2) + shift;
    thing.y = row.middle + row.tall * ((line + 0.5) / lines - 0.5);
    if (thing.kind === "group") Object.assign(thing, { wide: textWidth(thing.word, 24) + 8, tall: 24 });
  });
}

function barOf(top, bottom) {                 // what is not shown: at the left, from the first layer to the last
  const [from, to] = [top.middle + top.tall / 2, bottom.middle - bottom.tall / 2];
  return { x: BAR.x, y: (from + to) / 2, wide: BAR.width, tall: to - from };
}

function logitWidth(word) { return textWidth(word, 12) + 6; }

// The explained logits above the last token, the most likely in the middle, the others right and left of it in turn.
function ranked(logits, y, column, width) {
  const order = logits.reduce((row, thing, at) => (at % 2 ? [...row, thing] : [thing, ...row]), []);
  const wanted = order.map(({ word }) => logitWidth(word)), sum = wanted.reduce((a, b) => a + b, 0);
  const scale = Math.min(1, (width - FRAME.left - FRAME.right) / Math.max(sum, 1));
  let x = Math.min(column.middle - sum * scale / 2, width - FRAME.right - sum * scale);
  order.forEach((thing, at) => {
    Object.assign(thing, { x: x + wanted[at] * scale / 2, y, wide: wanted[at] * scale - 6, tall: 22 });
    x += wanted[at] * scale;
  });
}
