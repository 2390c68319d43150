// The graph as arrays: nodes by number, links by number in the order of their targets.

const UNIT_KINDS = ["neuron", "feature", "head", "mlp"], MISSED_KINDS = ["error", "remainder"];

function makeTrace(data) {
  const { nodes, links } = data, names = nodes.name, n = names.length;
  const source = decode(links.source, Uint16Array), target = decode(links.target, Uint16Array);
  const weight = Float64Array.from(decode(links.weight, Float32Array)), m = weight.length;
  const is = (kinds) => Uint8Array.from(nodes.kind, (kind) => kinds.includes(kind));
  const trace = {
    n, m, names, nodes, source, target, weight, kind: nodes.kind, index: new Map(names.map((name, node) => [name, node])),
    unit: is(UNIT_KINDS), missed: is(MISSED_KINDS), rest: is(["remainder"]), token: is(["token"]), logit: is(["logit"]),
    chances: Float64Array.from(nodes.weight), magnitude: Float64Array.from(nodes.magnitude), pruned: data.pruned,
    incoming: names.map(() => []), outgoing: names.map(() => []),
  };
  for (let link = 0; link < m; link++) {
    trace.incoming[target[link]].push(link);
    trace.outgoing[source[link]].push(link);
  }
  const strong = (a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b;
  for (const side of [trace.incoming, trace.outgoing]) side.forEach((some) => some.sort(strong));
  trace.counted = countedOf(trace);
  const all = flowOf(trace, sharesOf(trace, trace.counted), trace.chances);
  trace.influence = nodes.influence.map((value, node) => (value === null ? all[node] : value));
  return trace;
}

// What a link counts: its size; and of the remainder everything that is not shown, whatever it adds up to.
function countedOf(trace) {
  const { m, source, target, weight, rest, magnitude } = trace, counted = weight.map(Math.abs);
  const others = new Float64Array(trace.n);
  for (let link = 0; link < m; link++) if (!rest[source[link]]) others[target[link]] += counted[link];
  for (let link = 0; link < m; link++)
    if (rest[source[link]]) counted[link] = trace.pruned ? 0 : Math.max(0, magnitude[target[link]] - others[target[link]]);
  return counted;
}
