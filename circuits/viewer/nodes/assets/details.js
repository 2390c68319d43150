// What is selected and what is known of it; then the report, sums by layer, and where the circuit came from.

const LISTED = 8, NOUNS = { neuron: ["neuron", "neurons"], head: ["head", "heads"], node: ["head or MLP", "heads and MLPs"], feature: ["feature", "features"] };

function nodeButton(app, node) {
  return element("button", { type: "button", class: "link", onclick: () => app.select(app.nodes.names[node]) }, app.nodes.names[node]);
}

function scoreText(value) { return element("span", { class: "score " + (value < 0 ? "negative" : "positive") }, signed(value, 3)); }

function startDetails(app) {
  const box = byId("details"), selected = element("div", { id: "selected" }), kept = element("div", { id: "kept" });
  box.append(selected, kept);
  const showGroups = startGroups(app, kept);
  kept.append(reportCard(app), layersCard(app), provenanceCard(app));
  let before = null;
  return function show(state, view) {
    showGroups(state, view);
    const key = JSON.stringify([state.selection, view.kept, state.sign, state.pins, state.groups, state.labels]);
    if (key === before) return;
    if (before === null || JSON.parse(before)[0] !== state.selection) box.scrollTop = 0;
    before = key;
    selected.replaceChildren(...(view.selected === null ? [overview(app, view)] : nodeCards(app, state, view.selected)));
  };
}

function overview(app, view) {
  const first = [...view.list.subarray(0, LISTED)], row = (node) => element("li", {}, element("span", {}, nodeButton(app, node), hinted(promotedText(app.nodes, node, 2))), scoreText(app.nodes.score[node]));
  return element("section", { class: "card", id: "overview" }, element("h2", {}, "Largest |score|"),
    first.length ? element("ul", { class: "edges" }, ...first.map(row)) : element("p", { class: "hint" }, "This circuit has no nodes here."),
    element("p", { class: "hint" }, "Click a node for what is known of it; shift-click pins it."));
}

function hinted(text) { return text ? element("span", { class: "told" }, " " + text) : null; }

function nodeCards(app, state, node) {
  const { nodes, data } = app, name = nodes.names[node], group = state.groups.find(({ nodes: held }) => held.includes(name)), pinned = state.pins.includes(name);
  const rows = [["score", signed(nodes.score[node])], ["rank", count(node + 1) + " of " + count(nodes.total) + " by |score|"],
    ["share", percent(nodes.mass ? nodes.strength[node] / nodes.mass : 0) + " of the sum of |score|"], [data.level === "feature" ? "of" : "layer", data.rows.name[nodes.row[node]]]];
  if (nodes.span) rows.push(["at", placeName(data, nodes.span[node])]);
  if (group) rows.push(["group", group.label]);
  const buttons = [element("button", { type: "button", id: "pin", class: "quiet", "aria-pressed": String(pinned), title: "p", onclick: () => app.pin(name) }, pinned ? "Unpin" : "Pin"),
    element("button", { type: "button", id: "clear", class: "quiet", title: "Esc", onclick: () => app.select(null) }, "Clear")];
  const card = element("section", { class: "card" }, element("div", { class: "row" }, element("h2", { id: "selection" }, calledBy(state, name)), element("span", { class: "buttons" }, ...buttons)), figures(rows), labelField(app, name));
  return [card, knockCard(app, [name]), positionsCard(app, node), movedCard(app, node), activeCard(app, node)].filter(Boolean);
}

function positionsCard(app, node) {           // the same unit elsewhere
  const { nodes, data } = app, all = nodes.alike.get(nodes.own[node]);
  if (!nodes.span || all.length < 2) return null;
  const order = all.slice().sort((a, b) => nodes.span[a] - nodes.span[b]);
  return element("section", { class: "card", id: "elsewhere" }, element("h3", {}, "At " + all.length + " positions"),
    element("ul", { class: "edges" }, ...order.map((one) => element("li", {}, element("button", { type: "button", class: "link", onclick: () => app.select(nodes.names[one]) }, placeName(data, nodes.span[one])), scoreText(nodes.score[one])))));
}

function movedCard(app, node) {
  const { nodes, data } = app, moved = nodes.moved(node), direct = nodes.direct(node), run = direct !== null;
  if (!moved) return noRoom(data.known.moved, "what it promotes is");
  const hint = run ? "What it writes at the last position of prompt " + data.known.example + ", in logits, through the final norm held at its scale."
    : "What it writes where it is positive, read straight through the final norm, in standard deviations over the vocabulary; where it is negative the other way round. What later layers make of it is not in this.";
  return element("section", { class: "card", id: "moved" }, element("h3", {}, run ? "Direct effect" : "Moves these logits"),
    run ? element("p", { class: "direct" }, scoreText(direct), " on the logits of the answer") : null,
    element("div", { class: "pair" }, tokenList("promotes", moved[0], "up"), tokenList("suppresses", moved[1], "down")), element("p", { class: "hint" }, hint));
}

function noRoom(held, what) {                 // a page has it of the strongest alone
  const kept = Object.keys(held).length;
  return kept ? element("section", { class: "card" }, element("p", { class: "hint" }, "No room: " + what + " held of the strongest " + count(kept) + ".")) : null;
}

function activeCard(app, node) {              // on the prompt that was run
  const { nodes, data } = app, runs = nodes.activations(node);
  if (!runs) return noRoom(data.known.activations, "activations are");
  const most = Math.max(...runs.flat().map(Math.abs), 1e-30), { clean, corrupted } = data.known;
  const cell = (tokens, run, at, which) => element("span", { class: "token active " + (run[at] < 0 ? "below " : "") + (clean[at] === corrupted[at] ? "" : "differs"),
    style: "--looks:" + (Math.abs(run[at]) / most).toFixed(3), title: which + ", position " + at + ": " + signed(run[at], 3) }, visible(tokens[at]));
  const line = (tokens, run, which) => element("div", { class: "run" }, element("h4", {}, which), element("p", {}, ...tokens.map((_, at) => cell(tokens, run, at, which))));
  return element("section", { class: "card", id: "activations" }, element("h3", {}, "Active on prompt " + data.known.example), line(clean, runs[0], "clean"), line(corrupted, runs[1], "corrupted"),
    element("p", { class: "hint" }, "The stronger the colour, the larger its activation, at most " + signed(most, 3).slice(1) + "; orange: negative. Hover for values. Framed: tokens that differ."));
}

function reportCard(app) {
  const { lines } = app.data.report;
  return element("section", { class: "card", id: "report" }, element("h2", {}, "Report"),
    lines.length ? element("dl", { class: "lines" }, ...lines.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])) : element("p", { class: "hint" }, "Nothing was measured."));
}

function layersCard(app) {
  const { data, nodes } = app, { rows } = data, shown = rows.name.map((_, row) => row).filter((row) => rows.nodes[row]).reverse();
  const line = (row) => element("tr", {}, element("th", { scope: "row" }, rows.name[row]), element("td", {}, count(rows.nodes[row])), element("td", {}, scoreText(rows.helps[row] + rows.hurts[row])),
    element("td", {}, rows.largest[row] < nodes.m ? nodeButton(app, rows.largest[row]) : "\u2013"));
  return element("section", { class: "card", id: "layers" }, element("h2", {}, data.level === "feature" ? "By dictionary" : "By layer"),
    element("table", {}, element("thead", {}, element("tr", {}, ...[data.level === "feature" ? "dictionary" : "layer", "nodes", "sum", "largest"].map((text) => element("th", { scope: "col" }, text)))), element("tbody", {}, ...shown.map(line))));
}

function provenanceCard(app) {
  return element("section", { class: "card", id: "provenance" }, element("h2", {}, "Where it came from"), figures(app.data.provenance));
}
