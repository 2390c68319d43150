// What is told of nodes, of rows and of heads that are not in the circuit.

function nodeLines(app, thing) {
  const { nodes, data } = app, [node] = thing.nodes, lines = [thing.word, "score " + signed(thing.score) + (thing.nodes.length > 1 ? ", the sum over " + thing.nodes.length + " positions" : "")];
  if (thing.nodes.length === 1) lines.push("rank " + count(node + 1) + " of " + count(nodes.total) + ", " + percent(nodes.mass ? nodes.strength[node] / nodes.mass : 0) + " of the sum of |score|");
  lines.push(rowName(data, nodes.row[node]) + (nodes.span && thing.nodes.length === 1 ? ", " + placeName(data, nodes.span[node]) : ""));
  const promotes = promotedText(nodes, node, 4), direct = nodes.direct(node);
  if (direct !== null) lines.push("direct effect on the answer " + signed(direct, 3));
  if (promotes) lines.push("promotes " + promotes);
  return lines;
}

function rowLines(app, row) {
  const { data, nodes } = app, { of, helps, hurts, largest } = data.rows, first = largest[row];
  const lines = [rowName(data, row), count(data.rows.nodes[row]) + " of " + counted(of[row], NOUNS[data.level][1]),
    "scores add up to " + signed(helps[row] + hurts[row]), "helps " + signed(helps[row]) + ", hurts " + signed(hurts[row])];
  if (first >= 0 && first < nodes.m) lines.push("largest: " + nodes.names[first] + " " + signed(nodes.score[first]));
  return lines;
}

function cellLines(app, cell) {
  const { units, heads } = app.data.grid, row = Math.floor(cell / units), unit = cell % units;
  return [unit < heads ? "a" + row + ".h" + unit : "m" + row, "score " + signed(app.grid[cell]), "not in the circuit, or not drawn"];
}

function startHover(app) {
  const { svg } = app.drawing, tip = makeTip(byId("tip")), moving = startMoving(app, tip);
  svg.addEventListener("mousemove", (event) => {
    if (moving.pressed()) return;
    const thing = thingAt(app, event.target), { row, cell } = event.target.dataset || {};
    const lines = thing ? nodeLines(app, thing) : row !== undefined ? rowLines(app, Number(row)) : cell !== undefined ? cellLines(app, Number(cell)) : null;
    if (lines) tip.show(lines.join("\n"), event.clientX, event.clientY); else tip.hide();
  });
  startArrows(app, tip, nodeLines, () => true);
}
