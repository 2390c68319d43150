// The circuit as arrays: edges by strength, who reads and writes them, and each edge's share of an inflow.

const PORTS = ["q", "k", "v", "m", "l"];      // into a head's queries, keys, values; an MLP; the logits
const PORT_NAMES = { q: "queries (q)", k: "keys (k)", v: "values (v)", m: "MLP", l: "logits" };

function portOf(target) {
  if (target === "logits") return 4;
  return target.endsWith(">") ? PORTS.indexOf(target[target.length - 2]) : 3;
}

function makeGraph(data) {
  const source = decode(data.edges.source, Uint16Array), reader = decode(data.edges.reader, Uint16Array);
  const target = decode(data.edges.target, Uint16Array), score = decode(data.edges.score, Float32Array);
  const other = data.compare ? decode(data.compare.other, Float32Array) : null;
  const member = data.compare ? decode(data.compare.member, Uint8Array) : null;  // 0 both, 1 here, 2 there
  const names = data.nodes, n = names.length, m = score.length, chosen = data.edges.chosen;
  const portOfTarget = Uint8Array.from(data.targets, portOf), port = target.map((to) => portOfTarget[to]);
  const strength = score.map((value, edge) => Math.max(Math.abs(value), other ? Math.abs(other[edge]) : 0));
  const shown = score.map((value, edge) => (member && member[edge] === 2 ? other[edge] : value));
  const inflow = new Float64Array(n), sumIn = new Float64Array(n), sumOut = new Float64Array(n), sumStrength = new Float64Array(n);
  const incoming = rows(reader, n), outgoing = rows(source, n), degreeIn = new Uint32Array(n), degreeOut = new Uint32Array(n);
  const present = new Uint8Array(n);
  for (let edge = 0; edge < chosen; edge++) {
    present[source[edge]] = present[reader[edge]] = 1;
    degreeIn[reader[edge]]++;
    degreeOut[source[edge]]++;
    inflow[reader[edge]] += strength[edge];
    sumIn[reader[edge]] += shown[edge];
    sumOut[source[edge]] += shown[edge];
    sumStrength[source[edge]] += strength[edge];
    sumStrength[reader[edge]] += strength[edge];
  }
  const index = new Map(names.map((name, node) => [name, node]));
  const component = data.components || names;
  return {
    names, n, m, chosen, source, reader, port, score: shown, other, here: score, member, strength, total: data.edges.total,
    incoming, outgoing, degreeIn, degreeOut, inflow, sumIn, sumOut, sumStrength, index, present,
    component, ...crossings(data, component, port, reader, incoming),
    kind: component.map((name) => (name.includes(".h") ? "head" : name[0] === "m" ? "mlp" : name)),
    beside: (edge) => edge >= chosen, largest: m ? strength[0] : 0, nameOf: (node) => names[node],
    share(edge) {                             // of what flows into its reader; an edge beside the circuit would join it
      const all = inflow[reader[edge]] + (edge < chosen ? 0 : strength[edge]);
      return all ? strength[edge] / all : 0;
    },
    edgeName: (edge) => component[source[edge]] + "->" + data.targets[target[edge]] + spanOf(data, source[edge]),
    selectionOf(edge) { return this.edgeName(edge); },
    sourceOf: (name) => (data.spans ? name.split("->")[0] + name.slice(name.lastIndexOf("@")) : name.split("->")[0]),
    arrow: (edge) => names[source[edge]] + " \u2192 " + names[reader[edge]]
      + (port[edge] < 3 ? " (" + PORTS[port[edge]] + ")" : ""),
  };
}

function spanOf(data, node) { return data.spans ? "@" + data.spans.names[data.spans.of[node]] : ""; }

// Where columns are spans, attention carries what keys and values read at one span to the head at all that see it:
// which nodes an edge feeds, and which edges feed a node.
function crossings(data, component, port, reader, incoming) {
  if (!data.spans) return { fed: (edge) => [reader[edge]], into: (node) => edgesOf(incoming, node) };
  const { of, sees } = data.spans, same = new Map();
  component.forEach((name, node) => same.set(name, [...(same.get(name) || []), node]));
  const crosses = (edge) => port[edge] === 1 || port[edge] === 2;
  return {
    fed: (edge) => (crosses(edge) ? same.get(component[reader[edge]]).filter((node) => sees[of[reader[edge]]][of[node]]) : [reader[edge]]),
    * into(node) {
      for (const other of same.get(component[node]))
        for (const edge of edgesOf(incoming, other))
          if (crosses(edge) ? sees[of[other]][of[node]] : other === node) yield edge;
    },
  };
}

function rows(of, n) {                        // edges by node: edges start[node] .. start[node + 1] of list
  const start = new Uint32Array(n + 1), list = new Uint32Array(of.length);
  for (const node of of) start[node + 1]++;
  for (let node = 0; node < n; node++) start[node + 1] += start[node];
  const next = start.slice(0, n);
  for (let edge = 0; edge < of.length; edge++) list[next[of[edge]]++] = edge;
  return { start, list };
}

function* edgesOf(side, node) {
  for (let at = side.start[node]; at < side.start[node + 1]; at++) yield side.list[at];
}
