// The picture: few plotly traces whatever the number of edges, and the canvas below them for many thin edges.

const { svgLimit: SVG_LIMIT, drawnLimit: DRAWN_LIMIT, svgPoints: SVG_POINTS, levels: LEVELS, symbols: SYMBOLS } = LOOK;
const SVG_BESIDE_WEBGL = 400;
const SETTLED = 140;                          // ms without a change until edges can be hovered over again

function makePicture(whole, data, plot, canvas) {
  const dense = makeDense(canvas);
  const limit = dense ? DRAWN_LIMIT : SVG_LIMIT;
  let graph = whole, level = levelsOf(whole), most = Math.max(...whole.sumStrength, 1e-30), called = (node) => graph.names[node];
  const t = sampler(SVG_POINTS), thin = sampler(DENSE_POINTS);
  let palette = colours(), sent = null, timer = 0, hovered = [];

  // which of the picture's colours an edge has: sign, or membership when two circuits are compared
  const tone = (edge) => (graph.member ? graph.member[edge] : graph.score[edge] < 0 ? 1 : 0);
  const tones = () => (graph.member ? [palette.shared, palette.here, palette.there] : [palette.positive, palette.negative]);

  function opacity(of, drawn) {               // weak edges are many: in a dense picture they must not hide the strong
    const [share, , value] = LEVELS[of];
    return share < LOOK.weak ? value * Math.min(1, Math.sqrt(SVG_LIMIT / Math.max(1, drawn))) : value;
  }

  function line(edges, layout, colour, width, alpha, dash = "solid") {
    const x = new Float32Array(edges.length * (SVG_POINTS + 1)), y = new Float32Array(x.length);
    let at = 0;
    for (const edge of edges) {
      runEdge(graph, layout, data.layers, edge, t, (px, py) => { x[at] = px; y[at++] = py; });
      x[at] = y[at++] = NaN;                  // lifts the pen
    }
    return { type: "scatter", mode: "lines", x, y, line: { color: colour, width, dash }, opacity: alpha, hoverinfo: "skip" };
  }

  function edgeTraces(view, layout) {
    const paint = tones(), buckets = LEVELS.map(() => paint.map(() => [])), beside = paint.map(() => []);
    for (const edge of view.svg) (!graph.beside(edge) ? buckets[level[edge]] : beside)[tone(edge)].push(edge);
    const traces = [line(view.faint, layout, palette.faint, 0.8, 0.8), ...beside.map((edges, kind) => line(edges, layout, paint[kind], 1.6, 0.8, "dot"))];
    for (let of = LEVELS.length - 1; of >= 0; of--)         // the strongest last, on top
      buckets[of].forEach((edges, kind) => traces.push(line(edges, layout, paint[kind], LEVELS[of][1], opacity(of, view.drawn.length))));
    return traces;
  }

  function sendDense(view, layout) {          // all edges that a slider could show, so that it only moves an end
    const list = view.held.subarray(0, limit);
    const key = [view.held,  layout, palette, view.drawn.length > 6000];
    if (sent && key.every((part, at) => part === sent[at])) return;
    sent = key;
    const vertices = new Float32Array(list.length * DENSE_POINTS * 2), bytes = new Uint8Array(list.length * 4);
    const paint = tones().map(rgb);
    let at = 0;
    list.forEach((edge, place) => {
      runEdge(graph, layout, data.layers, edge, thin, (x, y) => { vertices[at++] = x; vertices[at++] = y; });
      bytes.set(paint[tone(edge)], 4 * place);
      bytes[4 * place + 3] = 255 * Math.max(0.08, opacity(level[edge], view.drawn.length));
    });
    dense.send(vertices, bytes, list.length);
  }

  function nodeTrace(state, view, layout) {
    const nodes = view.nodes.filter((node) => layout.x[node] !== null);
    const group = (node) => (graph.kind[node] === "group" ? Number(graph.nameOf(node).slice(6)) : state.groups.findIndex(({ nodes: held }) => held.includes(graph.names[node])));
    const fill = (node) => (group(node) >= 0 ? palette.groups[group(node) % palette.groups.length]
      : node === view.selected ? palette.accent : palette.panel);
    const { pinned } = view;
    const ring = (node) => (view.matches.has(node) ? palette.found : pinned.has(node) ? palette.accent : palette.ink);
    const [least, largest, shared] = LOOK.nodeSize, usual = Math.max(least, Math.min(largest, shared / (data.layers + 2)));
    const size = (node) => (state.size === "importance" ? 6 + 20 * Math.sqrt(graph.sumStrength[node] / most) : graph.kind[node] === "group" ? usual + 6 : usual);
    const first = (node) => node === view.selected || state.labels[graph.names[node]] || graph.kind[node] === "group" || pinned.has(node) || view.matches.has(node);
    const named = labelled(nodes.filter((node) => view.alive[node] && SYMBOLS[graph.kind[node]] !== "diamond"), first, layout, state.mode);
    return {
      type: "scatter", mode: "markers+text", x: nodes.map((node) => layout.x[node]), y: nodes.map((node) => layout.y[node]),
      // a space: plotly drops the element of an empty label and does not bring it back
      text: nodes.map((node) => (named.has(node) ? plotlyText(called(node)) : " ")), cliponaxis: false,
      textposition: nodes.map((node) => (graph.kind[node] === "mlp" ? "middle right" : "top right")),
      textfont: { size: 11, shadow: halo(palette.panel), color: nodes.map((node) => (view.alive[node] ? palette.ink : palette.muted)) },
      marker: {
        symbol: nodes.map((node) => SYMBOLS[graph.kind[node]]), color: nodes.map(fill), opacity: nodes.map((node) => (view.alive[node] ? 1 : 0.2)),
        size: nodes.map((node) => size(node) + (view.matches.has(node) || pinned.has(node) || node === view.selected ? 4 : 0)),
        line: { color: nodes.map(ring), width: nodes.map((node) => (ring(node) === palette.ink ? 1.6 : 3)) },
      },
      customdata: nodes, hoverinfo: "none", name: "nodes",
    };
  }

  function ranges(layout, mode) {             // what is in sight: a zoom lasts while the columns stay
    const area = drawnArea(plot);
    return area && area.revision === mode ? [area.x, area.y] : [layout.xRange, layout.yRange];
  }

  // The strongest nodes whose names do not run into each other; pinned, selected and found ones go before.
  function labelled(nodes, first, layout, mode) {
    const [xRange, yRange] = ranges(layout, mode), box = plot.getBoundingClientRect();
    const px = (box.width - 72) / (xRange[1] - xRange[0]), py = (box.height - 60) / (yRange[1] - yRange[0]);
    const order = nodes.slice().sort((a, b) => Boolean(first(b)) - Boolean(first(a)) || graph.sumStrength[b] - graph.sumStrength[a] || a - b), taken = [], named = new Set();
    for (const node of order) {
      const left = layout.x[node] * px, top = -layout.y[node] * py + (graph.kind[node] === "mlp" ? 8 : 0);
      const mine = [left, top - 14, left + 7 + 6.6 * called(node).length, top];
      if (!first(node) && taken.some((other) => mine[0] < other[2] && other[0] < mine[2] && mine[1] < other[3] && other[1] < mine[3])) continue;
      taken.push(mine);
      named.add(node);
    }
    return named;
  }

  function thinned([values, texts], pixels, range, least) {   // ticks that have room; the first and last stay
    const per = pixels / Math.abs(range[1] - range[0]), kept = [];
    for (let at = 0; at < values.length; at++) {
      const room = (from) => kept.length === 0 || Math.abs(values[at] - values[from]) * per >= least;
      if (at === values.length - 1) while (kept.length && !room(kept[kept.length - 1])) kept.pop();
      if (room(kept[kept.length - 1])) kept.push(at);
    }
    return { tickvals: kept.map((at) => values[at]), ticktext: kept.map((at) => plotlyText(visible(texts[at]))) };
  }

  function absentTrace(view, layout) {        // faint dots where the model has a node and the circuit does not
    const nodes = graph.names.map((_, node) => node).filter((node) => !view.shown[node] && layout.x[node] !== null);
    return { type: "scatter", mode: "markers", x: nodes.map((node) => layout.x[node]), y: nodes.map((node) => layout.y[node]),
      marker: { color: palette.faint, size: 4 }, hoverinfo: "skip" };
  }

  function markTrace(view, layout) {          // a node's score at each position, where there are positions
    const marks = layout.marks || { node: [], x: [], y: [], score: [] };
    const shown = marks.node.map((_, at) => at).filter((at) => view.alive[marks.node[at]]);
    const top = Math.max(...marks.score.map(Math.abs), 1e-30);
    return {
      type: "scatter", mode: "markers", x: shown.map((at) => marks.x[at]), y: shown.map((at) => marks.y[at]),
      marker: {
        symbol: shown.map((at) => SYMBOLS[graph.kind[marks.node[at]]]), opacity: 0.45, line: { width: 0 },
        color: shown.map((at) => (marks.score[at] < 0 ? palette.negative : palette.positive)),
        size: shown.map((at) => 9 + 15 * Math.sqrt(Math.abs(marks.score[at]) / top)),
      },
      customdata: shown.map((at) => [marks.node[at], marks.score[at], marks.position[at]]), hoverinfo: "none", name: "positions",
    };
  }

  function hoverTrace(edges, layout) {        // invisible markers in the middle of edges carry their text
    const places = edges.map((edge) => middleOf(graph, layout, data.layers, edge));
    return { type: "scatter", mode: "markers", x: places.map(([x]) => x), y: places.map(([, y]) => y), text: edges.map((edge) => graph.hoverText(edge)),
      marker: { size: 9, opacity: 0, color: palette.ink }, customdata: edges, hoverinfo: "none", name: "edges" };
  }

  function layoutOf(state, layout) {
    const axis = { showgrid: false, zeroline: false, tickfont: { color: palette.ink, size: 12 }, fixedrange: false };
    const notes = whole.chosen ? [] : [{ text: "This circuit has no edges.", showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper", font: { color: palette.ink, size: 16 } }];
    const [xRange, yRange] = ranges(layout, state.mode), box = plot.getBoundingClientRect();
    const words = state.mode === "position" || Boolean(data.spans);   // under the columns
    return {
      xaxis: { ...axis, ...thinned(layout.columns, box.width - 72, xRange, 17), tickangle: words ? -60 : 0, range: layout.xRange.slice() },
      yaxis: { ...axis, ...thinned(layout.rows, box.height - 60, yRange, 15), range: layout.yRange.slice(), title: { text: "layer", standoff: 4, font: { color: palette.muted, size: 12 } } },
      uirevision: state.mode, showlegend: false, hovermode: "closest", hoverdistance: 12, dragmode: COARSE ? false : "pan", autosize: true, annotations: notes,
      modebar: { remove: [...LOOK.refusedButtons, "toImage"], bgcolor: "rgba(0,0,0,0)", color: palette.muted, activecolor: palette.ink },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: palette.ink, family: "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif" },
      margin: { l: 58, r: 14, t: 26, b: words ? 78 : 34 },
    };
  }

  function traces(state, view, layout, edges) {
    return [...edgeTraces(view, layout), absentTrace(view, layout), markTrace(view, layout), hoverTrace(edges, layout), nodeTrace(state, view, layout)];
  }

  function levelsOf({ strength, largest }) { return Array.from(strength, (value) => LEVELS.findIndex(([share]) => value >= share * largest)); }

  function drawing(now, state) {              // sums can exceed all single edges: they are as wide as the widest
    called = (node) => (state.labels[graph.names[node]] ? calledBy(state, graph.names[node]) : graph.component[node]);
    if (now === graph) return;
    graph = now;
    level = levelsOf(now);
    most = Math.max(...now.sumStrength, 1e-30);
  }

  async function draw(state, view) {
    const { layout } = view;
    drawing(view.graph, state);
    palette = sameColours(palette, colours());
    view.svg = view.list;
    const many = view.drawn.length > SVG_LIMIT;
    if (many) { view.svg = view.list.slice(0, SVG_BESIDE_WEBGL); view.faint = []; }
    clearTimeout(timer);
    hovered = [];
    const config = { responsive: true, displaylogo: false, scrollZoom: true, plotlyServerURL: "", doubleClick: "reset", displayModeBar: "hover" };
    await Plotly.react(plot, traces(state, view, layout, []), layoutOf(state, layout), config);
    if (dense) {
      if (many) sendDense(view, layout);
      dense.draw(many ? Math.min(SVG_BESIDE_WEBGL, view.list.length) : 0, many ? view.list.length : 0);
      dense.move(drawnArea(plot));
    }
    plot.dataset.shown = String(view.drawn.length);
    plot.dataset.draws = String(1 + Number(plot.dataset.draws || 0));
    timer = setTimeout(() => settle(state, view, layout), SETTLED);
  }

  async function settle(state, view, layout) {
    const edges = Array.from(view.list.slice(0, SVG_LIMIT));
    const trace = plot.data.findIndex(({ name }) => name === "edges"), hover = hoverTrace(edges, layout);
    await Plotly.restyle(plot, { x: [hover.x], y: [hover.y], text: [hover.text], customdata: [hover.customdata] }, [trace]);
    hovered = Array.from(view.list.slice(SVG_LIMIT), (edge) => [edge, ...middleOf(graph, layout, data.layers, edge)]);
    plot.dataset.settled = plot.dataset.draws;
  }

  function nearest(x, y) {                    // of the edges without a marker: the middle nearest to a pixel, within 10
    const { left, top, toX, toY } = drawnArea(plot);
    let best = null, least = 100;
    for (const [edge, mx, my] of hovered) {
      const dx = toX(mx) + left - x, dy = toY(my) + top - y, distance = dx * dx + dy * dy;
      if (distance < least) { least = distance; best = edge; }
    }
    return best;
  }

  function places(view) {                     // of the nodes drawn, in pixels, the heaviest first
    const { left, top, toX, toY } = drawnArea(plot);
    return view.nodes.filter((node) => view.layout.x[node] !== null && view.alive[node]).sort((a, b) => graph.sumStrength[b] - graph.sumStrength[a])
      .map((node) => ({ node, x: left + toX(view.layout.x[node]), y: top + toY(view.layout.y[node]) }));
  }

  function mark(place) {                      // a ring around the node that the keyboard is on
    const ring = byId("ring");
    ring.hidden = !place;
    if (place) Object.assign(ring.style, { left: place.x + "px", top: place.y + "px" });
  }

  return {
    draw, nearest, limit, places, mark, webgl: dense !== null,
    moved() { if (dense) dense.move(drawnArea(plot)); },
    denseImage: () => (dense && dense.edges ? dense.image() : null),
    palette: () => palette, tones,
  };
}

function halo(colour) {                       // text that stays readable over edges
  return [-1, 0, 1].flatMap((x) => [-1, 0, 1].map((y) => x + "px " + y + "px 1px " + colour)).join(", ");
}

function sameColours(before, now) { return JSON.stringify(before) === JSON.stringify(now) ? before : now; }

function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
