// Search, how much is shown, signs, names, and the pinned nodes alone.

const STEPS = 1000, SHARES = [
  ["nodes", "Nodes", "The share of all influence that the nodes drawn hold, the strongest first"],
  ["edges", "Links", "The share of the influence between them that the links drawn hold"],
];

function startControls(app) {
  const { trace, data } = app, form = byId("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const search = element("input", { type: "search", id: "search", placeholder: "Paris, m29, n1512, L7", spellcheck: "false", title: "A unit (m29.n1512), a layer (L7), a token, a promoted token or a label; Enter selects the first", "aria-describedby": "found" });
  const found = element("div", { id: "found", "aria-live": "polite" });
  search.addEventListener("input", () => app.change({ search: search.value }));
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") found.querySelector("button")?.click(); });
  const sliders = SHARES.map(([by, text, title]) => {
    const input = element("input", { type: "range", id: by, min: 10, max: STEPS, step: 5, title });
    const output = element("output", { id: by + "-value", for: by });
    input.addEventListener("input", () => { app.lastSlider = input; app.change({ [by]: Number(input.value) / STEPS }); });
    return { by, input, output, row: element("div", { class: "slider" }, element("label", { for: by }, text), output, input) };
  });
  app.lastSlider = sliders[0].input;
  const sign = choices("sign", "Sign", "radio", [["both", "both"], ["adds", "adds"], ["takes", "takes"]], ([value]) => app.change({ sign: value }), "Links that add to what they lead to, or take away from it");
  const names = choices("names", "Names", "radio", [["words", "promoted", "Labels, or the token that a unit promotes most"], ["numbers", "numbers"]], ([value]) => app.change({ names: value }), "What stands beside units");
  const only = choices("only", "Shown", "radio", [["all", "all"], ["pinned", "pinned alone", "Only pinned nodes and groups, with all links between them"]], ([value]) => app.change({ only: value === "pinned" }), "All that passes the cut-offs, or the subgraph of what you pinned and grouped");
  form.append(
    element("div", { class: "search" }, element("label", { for: "search" }, "Search"), search, found),
    element("fieldset", { class: "cuts" }, element("legend", {}, "Influence shown"), ...sliders.map(({ row }) => row)),
    ...[sign, names, only].map(({ set }) => set),
    element("button", { type: "button", id: "reset", class: "quiet", title: "All cut-offs, pins and labels away; groups stay", onclick: () => app.reset() }, "Reset the view"),
    element("section", { id: "quality", "aria-label": "How much is explained" }, ...qualityOf(app)),
  );
  return function show(state, view) {
    if (search.value !== state.search) search.value = state.search;
    showFound(found, app, state, view);
    for (const { by, input, output } of sliders) {
      if (input !== document.activeElement) input.value = Math.round(STEPS * state[by]);
      output.textContent = percent(state[by]);
      input.setAttribute("aria-valuetext", output.textContent);
    }
    sign.show([state.sign]);
    names.show([state.names]);
    only.show([state.only ? "pinned" : "all"]);
  };
}

function qualityOf({ trace, data }) {         // what of the model's answer the graph accounts for, and what not
  const { replacement, completeness } = data.scores, known = [];
  const missed = trace.names.reduce((sum, _, node) => sum + (trace.missed[node] ? trace.influence[node] : 0), 0) / trace.total;
  const meter = (name, share, text) => element("div", { class: "meter" }, element("div", { class: "row" }, element("span", {}, name), element("span", { class: "score" }, percent(share))),
    element("div", { class: "track" }, element("i", { style: "width:" + (100 * Math.max(0, Math.min(1, share))).toFixed(1) + "%" })), element("p", { class: "hint" }, text));
  if (completeness !== null) known.push(meter("Completeness", completeness, "of what nodes are made of is tokens and units of the graph, weighted by influence"));
  if (replacement !== null) known.push(meter("Replacement", replacement, "of the influence that starts somewhere starts at tokens, and not at errors or what is not shown"));
  if (!data.pruned) known.push(meter("Not explained", missed, "of all influence is that of errors and of what is not shown"));
  return known.length ? [element("h2", {}, "How much is explained"), ...known] : [];
}

function matchesOf(app, state) {              // by name, label, token and promoted token; L7 is a whole layer
  const { trace, data } = app, text = state.search.trim().toLowerCase(), known = spelled(text), layer = known && known.layer !== undefined ? known.layer : null;
  if (!text) return [];
  const promotes = (name) => (data.moved[name] ? data.moved[name][0].some(([token]) => token.toLowerCase().includes(text)) : false);
  const fits = (name, node) => name.toLowerCase().includes(text) || data.nodes.text[node].toLowerCase().includes(text)
    || (data.labels[name] || "").toLowerCase().includes(text) || promotes(name);
  const named = trace.names.map((name, node) => ({ name, node })).filter(({ name, node }) => (layer !== null ? trace.unit[node] && data.nodes.layer[node] === layer : fits(name, node) || Boolean(known && name.startsWith(known.name))));
  const exact = ({ name }) => (name === text ? 1 : 0);
  return named.sort((a, b) => exact(b) - exact(a) || trace.influence[b.node] - trace.influence[a.node]).map(({ node }) => node);
}

function showFound(box, app, state, view) {
  if (!state.search.trim()) { box.replaceChildren(); return; }
  const { matches } = view, buttons = matches.slice(0, 8).map((node) => nodeButton(app, node));
  const rest = matches.length > 8 ? " and " + count(matches.length - 8) + " more" : "";
  box.replaceChildren(...(matches.length ? [...buttons, rest] : ["Nothing in this graph is called that."]));
}
