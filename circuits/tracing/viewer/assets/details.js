// What is selected: its figures, what goes into it and out of it, and what is known of it.

const LISTED = 10;

function shortName(app, node) {
  const { trace, data } = app, name = trace.names[node];
  if (trace.unit[node]) return data.labels[name] || data.moved[name] ? name + " " + wordOf(data, node, "words") : name;
  return trace.missed[node] ? name : wordOf(data, node, "words");
}

function nodeButton(app, node) {
  return element("button", { type: "button", class: "link", onclick: () => app.select(app.trace.names[node]) }, shortName(app, node));
}

function startDetails(app) {
  const box = byId("details"), selected = element("div", { id: "selected" }), kept = element("div", { id: "kept" });
  box.append(selected, kept);
  const showGroups = startGroups(app, kept);
  let before = null, all = false;
  const again = () => { all = !all; before = null; app.change({}); };
  return function show(state, view) {
    showGroups(state, view);
    const key = JSON.stringify([state.selection, state.nodes, state.edges, state.only, state.groups, state.pins, state.labels, state.sign, isDark()]);
    if (key === before) return;
    if (before === null || JSON.parse(before)[0] !== state.selection) { if (before !== null) all = false; box.scrollTop = 0; }
    before = key;
    const group = view.selected === null && view.picked !== null ? view.things[view.picked] : null;
    selected.replaceChildren(...(group ? groupCards(app, view, group) : view.selected === null ? overview(app, view) : nodeCards(app, state, view, view.selected, all, again)));
  };
}

function overview(app, view) {
  const { trace } = app, nodes = trace.names.map((_, node) => node).filter((node) => trace.unit[node] && view.of[node] >= 0);
  nodes.sort((a, b) => trace.influence[b] - trace.influence[a]);
  const row = (node) => element("li", {}, nodeButton(app, node), element("span", { class: "score" }, shareOf(app, trace.influence[node])));
  return [element("section", { class: "card", id: "overview" }, element("h2", {}, "Largest influence"),
    element("ul", { class: "edges" }, ...nodes.slice(0, LISTED).map(row)), element("p", { class: "hint" }, "Click a node for what goes into it and out of it; shift-click pins it.")), ...agreementCard(app)];
}

function nodeCards(app, state, view, node, all, again) {
  const { trace, data } = app, name = trace.names[node];
  return [headingCard(app, state, view, node), linkCard(app, view, node, "incoming", all, again), linkCard(app, view, node, "outgoing", all, again),
    ...movedCard(app, name), ...contextCard(app, name), ...measuredCard(app, name)].filter(Boolean);
}

function headingCard(app, state, view, node) {
  const { trace, data } = app, { activation, score, layer, position } = data.nodes, name = trace.names[node], rows = [["name", name]];
  const group = state.groups.find(({ nodes }) => nodes.includes(name)), thing = view.of[node] >= 0 ? view.things[view.of[node]] : null;
  if (data.labels[name]) rows.push(["label", data.labels[name]]);
  if (position[node] >= 0) rows.push(["token", visible(data.tokens[position[node]]) + " (position " + position[node] + ")"]);
  if (activation[node] !== null) rows.push([trace.logit[node] ? "value" : "activation", signed(activation[node])]);
  if (trace.logit[node]) rows.push(["weight", percent(trace.chances[node])]);
  else rows.push(["influence", shareOf(app, trace.influence[node]) + " of all"]);
  if (score[node] !== null) rows.push(["score", signed(score[node]) + ", its total effect on the explained logits"]);
  if (trace.incoming[node].length && !trace.missed[node]) rows.push(["explained", percent(explainedOf(trace, view, node)) + " by the nodes drawn"]);
  if (trace.rest[node]) rows.push(["meaning", "everything that units which are not in the graph give to its nodes"]);
  if (trace.kind[node] === "error") rows.push(["meaning", "what the dictionary misses of this MLP's output"]);
  if (group) rows.push(["group", group.label]);
  if (!thing) rows.push(["drawn", "no: it is cut off"]);
  const pinned = state.pins.includes(name);
  const buttons = [element("button", { type: "button", id: "pin", class: "quiet", "aria-pressed": String(pinned), title: "p", onclick: () => app.pin(name) }, pinned ? "Unpin" : "Pin"),
    element("button", { type: "button", id: "clear", class: "quiet", title: "Esc", onclick: () => app.select(null) }, "Clear")];
  return element("section", { class: "card" }, element("div", { class: "row" }, element("h2", { id: "selection" }, titleOf(app, node)), element("span", { class: "buttons" }, ...buttons)), figures(rows), trace.unit[node] ? labelField(app, name) : null);
}

// All links of a node that the page holds, those that are drawn in full ink; then what biases add.
function linkCard(app, view, node, side, all, again) {
  const { trace, data } = app, links = trace[side][node], inputs = side === "incoming", bias = inputs && data.nodes.bias ? data.nodes.bias[node] : null;
  if (!links.length && !bias) return null;
  const other = (link) => (inputs ? trace.source[link] : trace.target[link]);
  const row = (link) => element("li", { class: view.of[other(link)] >= 0 ? "" : "hidden-node" }, nodeButton(app, other(link)),
    element("span", { class: "score " + (trace.missed[trace.source[link]] ? "missed" : trace.weight[link] < 0 ? "negative" : "positive") }, signed(trace.weight[link], 3)));
  const rows = (all ? links : links.slice(0, LISTED)).map(row), sum = links.reduce((total, link) => total + trace.weight[link], bias || 0);
  if (bias) rows.push(element("li", {}, element("span", {}, "biases"), element("span", { class: "score missed" }, signed(bias, 3))));
  const more = links.length > LISTED ? [element("button", { type: "button", class: "link more", onclick: again }, all ? "fewer" : "all " + count(links.length))] : [];
  const total = inputs && !trace.pruned ? [element("p", { class: "hint" }, "They add up to " + signed(sum) + ", its " + (trace.logit[node] ? "value" : "activation") + ".")] : [];
  return element("section", { class: "card", id: side }, element("h3", {}, inputs ? "Goes into it" : "Goes out of it"), element("ul", { class: "edges" }, ...rows), ...more, ...total);
}

// A group as one node: its members, and the sums of their links with everything else that is drawn.
function groupCards(app, view, thing) {
  const list = (title, links, end) => (links.length ? [element("section", { class: "card" }, element("h3", {}, title), element("ul", { class: "edges" }, ...links.map((link) => {
    const other = view.things[link[end]];
    return element("li", {}, element("button", { type: "button", class: "link", onclick: () => app.selectThing(other) }, other.kind === "group" ? other.word : shortName(app, other.nodes[0])),
      element("span", { class: "score " + (link.missed ? "missed" : link.weight < 0 ? "negative" : "positive") }, signed(link.weight, 3)));
  })))] : []);
  const links = thing.links.slice().sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)), own = view.picked;
  return [element("section", { class: "card" }, element("div", { class: "row" }, element("h2", { id: "selection" }, thing.word),
    element("button", { type: "button", id: "clear", class: "quiet", title: "Esc", onclick: () => app.select(null) }, "Clear")),
  figures([["nodes", count(thing.nodes.length) + ", joined: weights are sums"], ["influence", shareOf(app, thing.influence) + " of all"]]),
  element("ul", { class: "edges" }, ...thing.nodes.map((node) => element("li", {}, nodeButton(app, node), element("span", { class: "score" }, shareOf(app, app.trace.influence[node])))))),
  ...list("Goes into it", links.filter(({ target }) => target === own), "source"), ...list("Goes out of it", links.filter(({ source }) => source === own), "target")];
}
