// What is drawn: nodes, groups of nodes joined to one, and links between these, whose weights are summed.

function wordOf(data, node, names) {          // what a node is called in the picture
  const name = data.nodes.name[node], kind = data.nodes.kind[node], moved = data.moved[name];
  if (kind === "token" || kind === "logit") return visible(data.nodes.text[node]);
  if (data.labels[name]) return data.labels[name];
  if (kind === "error" || kind === "remainder") return kind;
  if (names === "words" && moved && moved[0].length) return "\u201c" + visible(moved[0][0][0]).replace(/^\u00b7/, "") + "\u201d";
  return name.replace(/^m\d+\./, "").replace(/@\d+$/, "");
}

function joined(app, state, cut) {
  const { trace, data } = app, member = new Map(), pins = new Set(state.pins.map((name) => trace.index.get(name)));
  state.groups.forEach(({ nodes }, group) => nodes.forEach((name) => member.set(trace.index.get(name), group)));
  const picked = (node) => pins.has(node) || member.has(node);
  const only = state.only && (pins.size > 0 || member.size > 0);
  const seen = (node) => (only ? picked(node) || trace.rest[node] : cut.kept[node] || picked(node));
  const things = [], of = new Int32Array(trace.n).fill(-1);
  state.groups.forEach(({ label, nodes }, group) => {
    things.push({ name: nodes[0], group, kind: "group", word: label, nodes: nodes.map((name) => trace.index.get(name)) });
  });
  for (const [node, group] of member) of[node] = group;
  for (let node = 0; node < trace.n; node++) {
    if (of[node] >= 0 || !seen(node)) continue;
    of[node] = things.length;
    things.push({ name: trace.names[node], group: -1, kind: trace.kind[node], word: wordOf(data, node, state.names), nodes: [node] });
  }
  for (const thing of things) {
    const first = thing.nodes.reduce((a, b) => (trace.influence[b] > trace.influence[a] ? b : a));
    Object.assign(thing, {
      influence: thing.nodes.reduce((sum, node) => sum + trace.influence[node], 0), missed: trace.missed[first] && thing.kind !== "group",
      layer: thing.kind === "remainder" ? null : Math.round(thing.nodes.reduce((sum, node) => sum + layerOf(trace, node), 0) / thing.nodes.length),
      position: Math.max(0, data.nodes.position[first]), explained: 0, pinned: thing.nodes.some((node) => pins.has(node)), links: [],
    });
  }
  const links = linksOf(trace, state, cut, of, (link) => cut.links[link] || only || picked(trace.source[link]) || picked(trace.target[link]));
  for (const link of links) {
    things[link.source].links.push(link);
    things[link.target].links.push(link);
  }
  return { things, of, links, only };
}

function layerOf(trace, node) { return trace.kind[node] === "token" ? -1 : trace.nodes.layer[node]; }

function linksOf(trace, state, cut, of, drawn) {
  const found = new Map();
  for (let link = 0; link < trace.m; link++) {
    const source = of[trace.source[link]], target = of[trace.target[link]];
    if (source < 0 || target < 0 || source === target || !drawn(link)) continue;
    const key = source * of.length + target, known = found.get(key) || { source, target, weight: 0, carried: 0, count: 0, missed: trace.missed[trace.source[link]] };
    known.weight += trace.weight[link];
    known.carried += cut.carried[link];
    known.count += 1;
    found.set(key, known);
  }
  const sign = { adds: (weight) => weight > 0, takes: (weight) => weight < 0, both: () => true }[state.sign];
  return [...found.values()].filter(({ weight, missed }) => missed || sign(weight)).sort((a, b) => b.carried - a.carried);
}

function explainedShare(trace, node, shown) { // of what a node is made of, by the nodes that are drawn
  let sum = 0;
  for (const link of trace.incoming[node]) if (!trace.missed[trace.source[link]] && shown(link)) sum += Math.abs(trace.weight[link]);
  return trace.magnitude[node] > 0 ? Math.min(1, sum / trace.magnitude[node]) : 0;
}
