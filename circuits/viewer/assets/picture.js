// The picture of a circuit: edges by strength, nodes with the names that have room, axes. The same painting goes to the
// screen and into files, whatever the number of edges.

const { svgLimit: FINE, drawnLimit: DRAWN_LIMIT, levels: LEVELS, symbols: SYMBOLS } = LOOK;
const HURTS = [7, 4];                         // dashes of negative scores, where colour says whose an edge is
const REACH = { edge: 10, node: 8 };          // pixels from which a mouse finds them

function makePicture(whole, data, plot, canvas) {
  const ground = makeArea(plot), fine = sampler(LOOK.svgPoints), rough = sampler(LOOK.densePoints);
  let graph = whole, level = levelsOf(whole), most = Math.max(...whole.sumStrength, 1e-30), called = (node) => graph.names[node];
  let palette = colours(), now = null, area = null, middles = null, written = new Set();

  // which of the picture's colours an edge has: sign, or membership when two circuits are compared
  const tone = (edge) => (graph.member ? graph.member[edge] : graph.score[edge] < 0 ? 1 : 0);
  const tones = () => (graph.member ? [palette.shared, palette.here, palette.there] : [palette.positive, palette.negative]);

  function opacity(of, drawn) {               // weak edges are many: in a dense picture they must not hide the strong
    const [share, , value] = LEVELS[of];
    return share < LOOK.weak ? value * Math.max(0.15, Math.min(1, Math.sqrt(FINE / Math.max(1, drawn)))) : value;
  }

  function lines(pen, within, { view, layout }) {
    const paint = graph.member ? tones().flatMap((colour) => [colour, colour]) : tones(), hurts = (edge) => graph.score[edge] < 0;
    const kindOf = (edge) => (graph.member ? 2 * tone(edge) + hurts(edge) : tone(edge)), dashes = (kind) => (graph.member && kind % 2 ? HURTS : null);
    const buckets = LEVELS.map(() => paint.map(() => [])), beside = paint.map(() => []), t = view.list.length > FINE ? rough : fine;
    for (const edge of view.list) (!graph.beside(edge) ? buckets[level[edge]] : beside)[kindOf(edge)].push(edge);
    const line = (edges, style) => {
      const points = new Float32Array(edges.length * (t.length + 1) * 2);
      let at = 0;
      for (const edge of edges) {
        runEdge(graph, layout, data.layers, edge, t, (x, y) => { points[at++] = within.toX(x); points[at++] = within.toY(y); });
        points[at++] = points[at++] = NaN;
      }
      if (edges.length) pen.line(points, style);
    };
    if (view.drawn.length <= FINE) line(Array.from(view.faint), { colour: palette.faint, width: 0.8, alpha: 0.8 });
    beside.forEach((edges, kind) => line(edges, { colour: paint[kind], width: 1.6, alpha: 0.8, dash: [2, 3] }));
    for (let of = LEVELS.length - 1; of >= 0; of--)         // the strongest last, on top
      buckets[of].forEach((edges, kind) => line(edges, { colour: paint[kind], width: LEVELS[of][1], alpha: opacity(of, view.drawn.length), dash: dashes(kind) }));
  }

  const stands = (node) => now.layout.x[node] !== null;
  const groupOf = (node) => (graph.kind[node] === "group" ? Number(graph.nameOf(node).slice(6)) : now.state.groups.findIndex(({ nodes }) => nodes.includes(graph.names[node])));

  function sizeOf(node) {
    const { state, view } = now, [least, largest, shared] = LOOK.nodeSize, usual = Math.max(least, Math.min(largest, shared / (data.layers + 2)));
    const size = state.size === "importance" ? 6 + 20 * Math.sqrt(graph.sumStrength[node] / most) : graph.kind[node] === "group" ? usual + 6 : usual;
    return size + (view.matches.has(node) || view.pinned.has(node) || node === view.selected ? 4 : 0);
  }

  function absent(pen, within, { view, layout }) {          // faint dots where the model has a node and the circuit does not
    for (const node of graph.names.keys())
      if (!view.shown[node] && stands(node)) pen.mark("circle", within.toX(layout.x[node]), within.toY(layout.y[node]), 4, { fill: palette.faint });
  }

  function nodes(pen, within, { view, layout, state }) {
    const drawn = view.nodes.filter(stands), { pinned } = view;
    const ring = (node) => (view.matches.has(node) ? palette.found : pinned.has(node) ? palette.accent : palette.ink);
    for (const mark of marks()) pen.mark(SYMBOLS[graph.kind[mark.node]], within.toX(mark.x), within.toY(mark.y), mark.size, { fill: mark.score < 0 ? palette.negative : palette.positive, alpha: 0.45 });
    for (const node of drawn) {
      const group = groupOf(node), alpha = view.alive[node] ? 1 : 0.2;
      const fill = group >= 0 ? palette.groups[group % palette.groups.length] : node === view.selected ? palette.accent : palette.panel;
      pen.mark(SYMBOLS[graph.kind[node]], within.toX(layout.x[node]), within.toY(layout.y[node]), sizeOf(node), { fill, edge: ring(node), width: ring(node) === palette.ink ? 1.6 : 3, alpha });
    }
    const first = (node) => node === view.selected || state.labels[graph.names[node]] || graph.kind[node] === "group" || pinned.has(node) || view.matches.has(node);
    written = new Set();
    for (const node of labelled(drawn.filter((node) => view.alive[node] && SYMBOLS[graph.kind[node]] !== "diamond"), first, within)) {
      written.add(node);
      const beside = graph.kind[node] === "mlp", room = sizeOf(node) / 2;
      pen.text(within.toX(layout.x[node]) + (beside ? room + 3 : room * 0.7), within.toY(layout.y[node]) + (beside ? 4 : -room * 0.7 - 1), called(node), { colour: palette.ink, halo: palette.panel });
    }
  }

  // The strongest nodes whose names do not run into each other; pinned, selected and found ones go before.
  function labelled(nodes, first, within) {
    const { layout } = now, order = nodes.slice().sort((a, b) => Boolean(first(b)) - Boolean(first(a)) || graph.sumStrength[b] - graph.sumStrength[a] || a - b), taken = [], named = [];
    for (const node of order) {
      const left = within.toX(layout.x[node]), top = within.toY(layout.y[node]) + (graph.kind[node] === "mlp" ? 8 : 0);
      const mine = [left, top - 14, left + 7 + 6.6 * called(node).length, top];
      if (!first(node) && taken.some((other) => mine[0] < other[2] && other[0] < mine[2] && mine[1] < other[3] && other[1] < mine[3])) continue;
      taken.push(mine);
      named.push(node);
    }
    return named;
  }

  function marks() {                          // a node's score at each position, where there are positions
    const { view, layout } = now, held = layout.marks || { node: [], x: [], y: [], score: [] }, top = Math.max(...held.score.map(Math.abs), 1e-30);
    return held.node.flatMap((node, at) => (view.alive[node] ? [{ node, x: held.x[at], y: held.y[at], score: held.score[at], position: held.position[at], size: 9 + 15 * Math.sqrt(Math.abs(held.score[at]) / top) }] : []));
  }

  function thinned([values, texts], per, range, least) {   // labels in sight that have room; the first and last stay
    const seen = values.map((_, at) => at).filter((at) => values[at] >= range[0] && values[at] <= range[1]), kept = [], room = (at) => kept.length === 0 || Math.abs(values[at] - values[kept[kept.length - 1]]) * per >= least;
    for (const at of seen) {
      if (at === seen[seen.length - 1]) while (kept.length && !room(at)) kept.pop();
      if (room(at)) kept.push(at);
    }
    return kept.map((at) => ({ at: values[at], text: visible(texts[at]) }));
  }

  const worded = () => now.state.mode === "position" || Boolean(data.spans);   // words under the columns
  const columns = (within) => thinned(now.layout.columns, within.perX, within.x, 17);

  function axes(pen, within) {
    const { layout } = now, bottom = within.top + within.height;
    for (const { at, text } of thinned(layout.rows, within.perY, within.y, 15)) pen.text(within.left - 6, within.toY(at) + 4, text, { colour: palette.ink, size: 12, anchor: "end" });
    for (const { at, text } of columns(within))
      if (worded()) pen.text(within.toX(at) + 4, bottom + 12, clipped(text, 84), { colour: palette.ink, size: 12, anchor: "end", turn: -60 });
      else pen.text(within.toX(at), bottom + 18, text, { colour: palette.ink, size: 12, anchor: "middle" });
    pen.text(13, within.top + within.height / 2, "layer", { colour: palette.muted, size: 12, anchor: "middle", turn: -90 });
    if (!whole.chosen) pen.text(within.left + within.width / 2, within.top + within.height / 2, "This circuit has no edges.", { colour: palette.ink, size: 16, anchor: "middle" });
  }

  function paint(pen, within) {
    pen.within({ ...within, top: within.top - EDGES_ROOM.top, height: within.height + EDGES_ROOM.top, width: within.width + EDGES_ROOM.right }, () => { absent(pen, within, now); lines(pen, within, now); nodes(pen, within, now); });
    axes(pen, within);
  }

  function repaint() {                        // what is in sight, anew
    area = ground.of(now.layout, now.state.mode, worded(), ground.size());
    paint(freshPen(canvas), area);
  }

  function levelsOf({ strength, largest }) { return Array.from(strength, (value) => LEVELS.findIndex(([share]) => value >= share * largest)); }

  function draw(state, view) {                // sums can exceed all single edges: they are as wide as the widest
    called = (node) => (state.labels[graph.names[node]] ? calledBy(state, graph.names[node]) : graph.component[node]);
    if (view.graph !== graph) {
      graph = view.graph;
      level = levelsOf(graph);
      most = Math.max(...graph.sumStrength, 1e-30);
    }
    palette = colours();
    middles = null;
    now = { state, view, layout: view.layout };
    repaint();
    plot.dataset.shown = String(view.drawn.length);
    plot.dataset.draws = String(1 + Number(plot.dataset.draws || 0));
  }

  function edgePlaces() {                     // where edges can be pointed at
    middles ||= Array.from(now.view.list, (edge) => [edge, ...middleOf(graph, now.layout, data.layers, edge)]);
    return middles.map(([edge, x, y]) => ({ edge, x: area.toX(x), y: area.toY(y) }));
  }

  function nodePlaces(faint = false) {        // of the nodes drawn, in pixels, the heaviest first
    return now.view.nodes.filter((node) => stands(node) && (faint || now.view.alive[node])).sort((a, b) => graph.sumStrength[b] - graph.sumStrength[a])
      .map((node) => ({ node, x: area.toX(now.layout.x[node]), y: area.toY(now.layout.y[node]) }));
  }

  function under(x, y, finger = 0) {          // { node } or { mark } or { edge } at a pixel, or null
    const nearest = (places, reach) => places.reduce((best, place) => { const far = Math.hypot(place.x - x, place.y - y); return far <= reach(place) && (!best || far < best.far) ? { far, ...place } : best; }, null);
    return nearest(nodePlaces(true), ({ node }) => Math.max(finger, REACH.node, sizeOf(node) / 2 + 2))
      || nearest(marks().map((mark) => ({ mark, x: area.toX(mark.x), y: area.toY(mark.y) })), ({ mark }) => mark.size / 2)
      || (finger ? null : nearest(edgePlaces(), () => REACH.edge));
  }

  function ring(place) {                      // around the node that the keyboard is on
    const mark = byId("ring");
    mark.hidden = !place;
    if (place) Object.assign(mark.style, { left: place.x + "px", top: place.y + "px" });
  }

  return {
    draw, repaint, under, places: () => nodePlaces(), mark: ring, limit: DRAWN_LIMIT, palette: () => palette, tones,
    whole() { ground.whole(now.layout, now.state.mode); repaint(); },
    shift(from, dx, dy) { ground.shift(from, now.state.mode, dx, dy); repaint(); },
    scale(times, x, y) { ground.scale(area, now.layout, now.state.mode, times, x, y); repaint(); },
    area: () => area,
    into(pen, size, above) { paint(pen, ground.of(now.layout, now.state.mode, worded(), size, above)); },
    seen: () => ({                            // what stands where, in pixels of the picture
      nodes: nodePlaces(true).map(({ node, x, y }) => ({ name: graph.names[node], label: written.has(node) ? called(node) : "", size: sizeOf(node), lit: Boolean(now.view.alive[node]), x, y })),
      edges: edgePlaces().map(({ edge, x, y }) => ({ name: graph.hoverText(edge).split("\n")[0], told: graph.hoverText(edge), x, y })),
      columns: columns(area).map(({ at, text }) => ({ text, x: area.toX(at) })), colours: [...new Set(Array.from(now.view.list, (edge) => tones()[tone(edge)]))],
    }),
  };
}

function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
