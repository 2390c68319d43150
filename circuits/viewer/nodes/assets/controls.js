// Search, how many are drawn, signs, columns and scale.

function startControls(app) {
  const { nodes, data } = app, form = byId("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const search = element("input", { type: "search", id: "search", placeholder: { neuron: "m3.n120", head: "a3.h5", node: "a3.h5, m3", feature: "f120, mlp3" }[data.level] + ", L7, " + (data.spans ? "@5" : "Paris"), spellcheck: "false", title: "A node, a layer (L7), a position (@5), a token that is promoted, a group or a label of your own; Enter selects the first", "aria-describedby": "found" });
  const found = element("div", { id: "found", "aria-live": "polite" });
  search.addEventListener("input", () => app.change({ search: search.value }));
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") found.querySelector("button")?.click(); });
  const sliders = startSliders(app, nodes, "nodes");
  const sign = choices("sign", "Sign", "radio", [["both", "both"], ["positive", "helps"], ["negative", "hurts"]], ([value]) => app.change({ sign: value }), "The objective falls when a node that helps is ablated, and rises when one that hurts is");
  const texts = { score: "scores", position: "positions", grid: "heads" };
  const mode = choices("mode", "Columns", "radio", CHOICES.mode.map((value) => [value, texts[value]]), ([value]) => app.change({ mode: value }), "What marks stand at: their score, their position in the prompt, or their head");
  const scale = choices("scale", "Scale", "radio", [["root", "root", "Distances from zero as square roots: small scores are told apart"], ["linear", "linear"]], ([value]) => app.change({ scale: value }), "How distances along the axis of scores grow");
  form.append(
    element("div", { class: "search" }, element("label", { for: "search" }, "Search"), search, found),
    element("fieldset", { class: "cuts" }, element("legend", {}, "Strength"), ...sliders.rows),
    ...[sign, ...(CHOICES.mode.length > 1 ? [mode] : []), ...(CHOICES.mode.includes("score") ? [scale] : [])].map(({ set }) => set),
    element("button", { type: "button", id: "reset", class: "quiet", title: "All filters, cuts, pins and labels away; groups stay", onclick: () => app.reset() }, "Reset the view"),
    ...faithfulness(app),
  );
  return function show(state, view) {
    if (search.value !== state.search) search.value = state.search;
    showFound(found, app, state, view);
    sliders.show(state, view);
    sign.show([state.sign]);
    mode.show([state.mode]);
    scale.show([state.scale]);
    scale.set.hidden = state.mode !== "score";
  };
}

function matchesOf(app, state) {              // by name, layer (L7), position (@5), group and promoted token; null: no search
  const { nodes, data } = app, text = state.search.trim().toLowerCase(), known = spelled(text), layer = known && known.layer !== undefined ? known.layer : null, place = /^@(\d+)$/.exec(text);
  if (!text) return null;
  const grouped = new Set(state.groups.filter(({ label }) => label.toLowerCase().includes(text)).flatMap(({ nodes: held }) => held));
  const promotes = new Map([...nodes.alike].map(([name, [node]]) => [name, (nodes.moved(node) || [[]])[0].some(([token]) => token.toLowerCase().includes(text))]));
  const fits = (node) => {
    if (layer !== null) return data.level === "feature" ? Number(/\d*$/.exec(data.rows.name[nodes.row[node]])[0]) === layer : nodes.row[node] === layer;
    if (place && nodes.span) return data.spans.position[nodes.span[node]] === Number(place[1]);
    return nodes.names[node].toLowerCase().includes(text) || (known && nodes.own[node] === known.name) || labelFits(state, nodes.names[node], text) || grouped.has(nodes.names[node]) || promotes.get(nodes.own[node]);
  };
  const matches = nodes.names.map((_, node) => node).filter(fits), exact = (node) => ([text, known && known.name].some((one) => nodes.names[node] === one || nodes.own[node] === one) ? 1 : 0);
  return matches.sort((a, b) => exact(b) - exact(a) || a - b);
}

function showFound(box, app, state, view) {
  if (view.found === null) { box.replaceChildren(); return; }
  const buttons = view.found.slice(0, 6).map((node) => nodeButton(app, node)), rest = view.found.length > 6 ? " and " + count(view.found.length - 6) + " more" : "";
  box.replaceChildren(...(view.found.length ? [...buttons, rest] : ["Nothing in this circuit is called that."]));
}
