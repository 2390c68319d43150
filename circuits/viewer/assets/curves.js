// Where edges run: curves that leave and arrive upright, sampled at a number of points.

const PORT_OFFSETS = PORTS.map((port) => LOOK.portOffsets[port] || 0);

function sampler(points) {                    // denser at the ends, where the curve bends
  const t = new Float32Array(points);
  for (let at = 0; at < points; at++) t[at] = (1 - Math.cos((Math.PI * at) / (points - 1))) / 2;
  return t;
}

// Calls put(x, y) for each point. Edges within a column bend aside, else they would hide behind the nodes between.
function runEdge(graph, layout, layers, edge, t, put) {
  const x0 = layout.x[graph.source[edge]], y0 = layout.y[graph.source[edge]];
  const x1 = layout.x[graph.reader[edge]] + PORT_OFFSETS[graph.port[edge]], y1 = layout.y[graph.reader[edge]];
  const rise = Math.abs(y1 - y0);
  const straight = rise > 1 ? Math.max(0, 1 - Math.abs(x1 - x0) / LOOK.bend.near) : 0;
  const room = x0 >= layout.margin ? LOOK.bend.margin : LOOK.bend.room;
  const bend = straight * room * Math.min(1, Math.sqrt(rise / Math.max(LOOK.bend.rows, layers)));
  for (const at of t) put(x0 + (x1 - x0) * at * at * (3 - 2 * at) + bend * 4 * at * (1 - at), y0 + (y1 - y0) * at);
}

// Near the middle, where an edge can be pointed at: not quite there, since edges between the same columns cross there
// and those into the ports of one head run side by side.
function middleOf(graph, layout, layers, edge) {
  const along = 0.5 + [-0.07, 0, 0.07, 0, 0][graph.port[edge]] + 0.05 * (((edge * 0.618034) % 1) - 0.5);
  let middle;
  runEdge(graph, layout, layers, edge, [along], (x, y) => { middle = [x, y]; });
  return middle;
}
