// Search, the sliders, signs, ports, memberships and layouts.

function startControls(app) {
  const { graph, data } = app, form = byId("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const search = element("input", { type: "search", id: "search", placeholder: "a5.h3, L5H3, m2, L7, a1.h0->", spellcheck: "false", title: "A node (a5.h3, L5H3, 5.3, m2), a layer (L7), an edge (m0->a5), a group or a label of your own; Enter selects the first", "aria-describedby": "found" });
  const found = element("div", { id: "found", "aria-live": "polite" });
  search.addEventListener("input", () => app.change({ search: search.value }));
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") found.querySelector("button")?.click(); });

  const sliders = startSliders(app, graph, "edges");
  const sign = choices("sign", "Sign", "radio", [["both", "both"], ["positive", "helps"], ["negative", "hurts"]], ([value]) => app.change({ sign: value }), "The objective falls when an edge that helps is ablated, and rises when one that hurts is");
  const ports = choices("ports", "Into", "checkbox", [["q", "q", "Queries"], ["k", "k", "Keys"], ["v", "v", "Values"], ["m", "MLP", "MLPs"], ["l", "logits", "The logits"]],
    (values) => app.change({ ports: values.join("") }), "What of its reader an edge feeds: a head\u2019s queries, keys or values, an MLP, the logits");
  const why = "Needs scores by position: to_html(model=, task=), or positions=";
  const mode = !data.spans && choices("mode", "Columns", "radio", [["layer", "heads"], ["position", "positions", data.layouts.position ? "" : why, !data.layouts.position]], ([value]) => app.change({ mode: value }), "What stands side by side: heads, or the positions of the prompt");
  const size = choices("size", "Nodes", "radio", [["same", "one size"], ["importance", "by importance", "As large as the sum of |score| of a node\u2019s edges"]], ([value]) => app.change({ size: value }), "How large nodes are drawn");
  const only = choices("only", "Shown", "radio", [["all", "all"], ["pinned", "pinned alone", "Only pinned nodes and groups, with all edges between them"]], ([value]) => app.change({ only: value === "pinned" }), "All that passes the filters, or the subgraph of what you pinned and grouped");
  const members = data.compare && choices("members", "In", "checkbox", [["0", "both"], ["1", "only " + data.compare.names[0]], ["2", "only " + data.compare.names[1]]],
    (values) => app.change({ members: values.join("") }), "Which of the two circuits has an edge");

  form.append(
    element("div", { class: "search" }, element("label", { for: "search" }, "Search"), search, found),
    element("fieldset", { class: "cuts" }, element("legend", {}, "Strength"), ...sliders.rows),
    element("section", { id: "faithfulness", "aria-label": "Faithfulness curve" }),
    ...[members, sign, ports, mode, size, only].filter(Boolean).map(({ set }) => set),
    element("button", { type: "button", id: "reset", class: "quiet", title: "All filters, cuts, pins and labels away; groups stay", onclick: () => app.reset() }, "Reset the view"),
  );

  return function show(state, view) {
    if (search.value !== state.search) search.value = state.search;
    showFound(found, app, state, view);
    sliders.show(state, view);
    sign.show([state.sign]);
    ports.show([...state.ports]);
    if (mode) mode.show([state.mode]);
    size.show([state.size]);
    only.show([state.only ? "pinned" : "all"]);
    if (members) members.show([...state.members]);
  };
}

// Names of nodes and edges that a search finds, in any of the field's spellings; also groups and labels of one's own.
function matchesOf(graph, state) {
  const text = state.search.trim().toLowerCase().replace(/\s*(\u2192|->)\s*/, "->");
  if (!text) return { nodes: [], edges: [] };
  const known = spelled(text), grouped = new Set(state.groups.filter(({ label }) => label.toLowerCase().includes(text)).flatMap(({ nodes }) => nodes));
  const fits = (name, node) => (known && known.layer !== undefined ? layerOf(graph.component[node]) === known.layer : (known ? name.includes(known.name) : name.toLowerCase().includes(text)) || labelFits(state, name, text));
  const nodes = graph.names.filter((name, node) => graph.present[node] && (fits(name, node) || grouped.has(name)));
  const exact = (name) => Number(Boolean(known && graph.component[graph.index.get(name)] === known.name));
  nodes.sort((a, b) => exact(b) - exact(a));
  const edges = [];
  if (text.includes("->")) {
    const wanted = text.split("->").map((end) => (spelled(end) || {}).name || end).join("->");
    for (let edge = 0; edge < graph.m && edges.length < 8; edge++) if (graph.edgeName(edge).toLowerCase().includes(wanted)) edges.push(graph.edgeName(edge));
  }
  return { nodes, edges };
}

function layerOf(name) {                      // of a head or an MLP
  const layer = /^[am](\d+)/.exec(name);
  return layer ? Number(layer[1]) : null;
}

function showFound(box, app, state, view) {
  if (!state.search.trim()) { box.replaceChildren(); return; }
  const { nodes, edges } = view.found_names, names = [...edges, ...nodes];
  const buttons = names.slice(0, 8).map((name) => element("button", { type: "button", class: "link", onclick: () => app.select(name) }, name.replace("->", " \u2192 ")));
  const rest = names.length > 8 ? " and " + count(names.length - 8) + " more" : "";
  box.replaceChildren(...(names.length ? [...buttons, rest] : ["Nothing in this circuit is called that."]));
}
