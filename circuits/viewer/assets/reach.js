// What lies upstream and downstream of a node or an edge among the edges kept, and the strongest paths through it.

const PATHS = 6;

function reach(graph, kept, selection) {      // kept: Uint8Array, 1 for each edge that is drawn
  const up = new Uint8Array(graph.n), down = new Uint8Array(graph.n), lit = new Uint8Array(graph.m);
  for (const node of selection.from) up[node] = 1;
  for (const node of beginnings(graph, selection)) down[node] = 1;
  for (let node = Math.max(...selection.from); node >= 0; node--)      // sources stand before their readers
    if (up[node]) for (const edge of graph.into(node)) if (kept[edge]) lit[edge] = up[graph.source[edge]] = 1;
  for (let node = 0; node < graph.n; node++)
    if (down[node]) for (const edge of edgesOf(graph.outgoing, node)) if (kept[edge]) {
      lit[edge] = 1;
      for (const next of graph.fed(edge)) down[next] = 1;
    }
  if (selection.edge !== undefined) lit[selection.edge] = 1;
  return { up, down, lit };
}

function beginnings(graph, selection) {       // what lies downstream begins where an edge feeds, or at the node
  return selection.edge === undefined ? selection.to : graph.fed(selection.edge);
}

function tally(flags) {
  let sum = 0;
  for (const flag of flags) sum += flag;
  return sum;
}

// The product of the edges' shares of their readers' inflow: the largest first. From the input to the logits; where
// these cannot be reached, from where nothing flows in to where nothing flows out.
function strongestPaths(graph, kept, selection, found) {
  const before = bestEnds(graph, kept, found.up, selection.from[0], -1, "input");
  const behind = beginnings(graph, selection).flatMap((node) => bestEnds(graph, kept, found.down, node, 1, "logits"));
  const middle = selection.edge === undefined ? 0 : Math.log(graph.share(selection.edge) || Number.MIN_VALUE);
  const paths = [];
  for (const first of before) for (const second of behind) {
    const edges = [...unroll(first).reverse(), ...(selection.edge === undefined ? [] : [selection.edge]), ...unroll(second)];
    if (edges.length) paths.push({ product: Math.exp(first.log + middle + second.log), edges });
  }
  return paths.sort((a, b) => b.product - a.product).slice(0, PATHS);
}

function bestEnds(graph, kept, within, end, direction, goal) {
  const best = new Map(), upstream = direction < 0;
  const reached = graph.kind.some((kind, node) => kind === goal && within[node]);
  for (let node = upstream ? 0 : graph.n - 1; upstream ? node <= end : node >= end; node -= direction) {
    if (!within[node]) continue;
    const here = [];
    for (const edge of upstream ? graph.into(node) : edgesOf(graph.outgoing, node)) {
      if (!kept[edge]) continue;
      const share = Math.log(graph.share(edge) || Number.MIN_VALUE);
      for (const next of upstream ? [graph.source[edge]] : graph.fed(edge))
        for (const rest of best.get(next) || []) here.push({ log: rest.log + share, edge, rest });
    }
    here.sort((a, b) => b.log - a.log);
    if (reached ? graph.kind[node] === goal : !here.length) here.push({ log: 0, edge: null, rest: null });
    best.set(node, here.slice(0, PATHS));
  }
  return best.get(end);
}

function unroll(path) {                       // edges from the selected end outwards
  const edges = [];
  for (let at = path; at.edge !== null; at = at.rest) edges.push(at.edge);
  return edges;
}
