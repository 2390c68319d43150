// One state, one view derived from it, and everything on the page shown from those two.

const OPENS_WHOLE = 1000, OPENS_AT = 200;     // edges: of larger circuits the page shows the strongest first
const data = JSON.parse(byId("circuit-data").textContent);
const graph = makeGraph(data), plot = byId("plot");
graph.hoverText = (edge) => edgeText(graph, data, edge);
const modes = MODES.filter((mode) => data.layouts[mode]);
const saved = byId("view-state");
if (graph.chosen > OPENS_WHOLE) opening = { by: "top", value: OPENS_AT };

const prompts = makePrompts(data);
const app = {
  closes: true, knock: (names) => knockCard(app, names), graph, data, plot, pristine: byId("app").innerHTML, view: null,
  prompts,
  picture: makePicture(graph, data, plot, byId("drawing")),
  state: checkedState({ ...(saved ? JSON.parse(saved.textContent) : {}), ...fragmentToState(location.hash.slice(1)) }, graph, modes, prompts),
  change(changes) { app.state = { ...app.state, ...changes }; request(); },
  pinAll(names) { app.change({ pins: names.every((name) => app.state.pins.includes(name)) ? app.state.pins.filter((name) => !names.includes(name)) : [...new Set([...app.state.pins, ...names])] }); },
  select(name) { app.change({ selection: name }); },
  pin(name) {
    const { pins } = app.state, focus = parseSelection(graph, name, app.state.groups);
    if (focus && focus.group) app.pinAll(focus.group.nodes);
    else if (graph.index.has(name)) app.change({ pins: pins.includes(name) ? pins.filter((each) => each !== name) : [...pins, name] });
  },
  load(state) { app.state = checkedState(state, graph, modes, prompts); request(); },
  reset() { app.load({ groups: app.state.groups }); },
  say(text) { byId("shown").textContent = text; },
};

let pass = null, passKey = "";
function derive(state) {
  const only = state.only && pickedNames(state).length > 0, key = JSON.stringify([state.sign, state.ports, state.members, only ? pickedNames(state) : null]);
  if (key !== passKey) { pass = passing(graph, passesOf(graph, { ...state, only })); passKey = key; }
  const kept = keptBy(graph, pass, only ? null : state.cut), flags = new Uint8Array(graph.m);
  for (let at = 0; at < kept; at++) flags[pass.list[at]] = 1;
  const focus = state.selection ? parseSelection(graph, state.selection, state.groups) : null;
  const found = focus ? reach(graph, flags, focus) : null;
  const drawn = pass.list.subarray(0, Math.min(kept, app.picture.limit)), shown = graph.present.slice();
  for (const edge of drawn) shown[graph.source[edge]] = shown[graph.reader[edge]] = 1;
  const list = found ? drawn.filter((edge) => found.lit[edge]) : drawn;
  const alive = new Uint8Array(graph.n);
  for (const edge of list) alive[graph.source[edge]] = alive[graph.reader[edge]] = 1;
  for (const name of state.pins) alive[graph.index.get(name)] = 1;
  if (focus) for (const node of [...focus.from, ...focus.to]) alive[node] = 1;
  const pinned = new Set(state.pins.map((name) => graph.index.get(name))), picked = new Set(pickedNames(state).map((name) => graph.index.get(name)));
  const found_names = matchesOf(graph, state);
  const view = {
    pinned, pass, kept, flags, focus, found, drawn, list, alive, found_names, selected: focus && focus.node !== undefined ? focus.node : null,
    matches: new Set(found_names.nodes.map((name) => graph.index.get(name))),
    shown, nodes: graph.names.map((_, node) => node).filter((node) => (only ? picked.has(node) : shown[node])),
  };
  view.picture = contracted(graph, data.layouts[state.mode], { ...state, only }, view);
  return view;
}

function showStatus(view) {
  const nodes = new Set();
  for (const edge of view.drawn) { nodes.add(graph.source[edge]); nodes.add(graph.reader[edge]); }
  const part = view.drawn.length < view.kept ? "drawn: the strongest " + count(view.drawn.length) + " of " + count(view.kept)
    : view.kept > view.pass.chosen ? "the circuit\u2019s " + count(view.pass.chosen) + " edges and " + count(view.kept - view.pass.chosen) + " beside it"
    : count(view.kept) + " of " + count(graph.total) + " edges";
  app.say(part + " \u00b7 " + count(nodes.size) + " nodes" + (graph.chosen < graph.total ? " \u00b7 this page holds the strongest " + count(graph.chosen) + " of " + count(graph.total) : ""));
}

function startMore() {                        // as many again and a half, until all are drawn
  const button = byId("more");
  button.addEventListener("click", () => {
    const { kept, pass } = app.view, next = Math.round(2.5 * kept);
    app.change({ cut: next >= pass.chosen ? null : { by: "top", value: next } });
  });
  return (state, view) => { button.hidden = state.only || view.kept >= view.pass.chosen || view.kept === 0; };
}

function showLegend(state) {
  const compare = data.compare, items = compare
    ? [["member-0", "in both"], ["member-1", "only " + compare.names[0]], ["member-2", "only " + compare.names[1]], ["hurts", "dashed: hurts"]]
    : [["positive", "helps (positive score)"], ["negative", "hurts (negative score)"]];
  byId("legend").replaceChildren(...[...items, ...state.groups.map(({ label }, at) => ["group-" + (at % 6), label])]
    .map(([kind, text]) => element("span", { class: "key" }, element("i", { class: "swatch " + kind }), text)));
}

const parts = [startControls(app), startFaithfulness(app), startPrompt(app), startDetails(app), startMore()];
function request() {
  const { state } = app, view = (app.view = derive(state));
  for (const show of parts) show(state, view);
  showStatus(view);
  plot.setAttribute("aria-label", describe(app, view));
  showLegend(state);
  rememberState(state);
  app.picture.draw(state, view.picture);
}

showNotes(data);
startTheme(request);
startExport(app);
startKeyboard(app);
window.addEventListener("hashchange", () => app.load(fragmentToState(location.hash.slice(1))));
request();
startHover(app);
startNodeKeys(app);
plot.seen = app.picture.seen;                 // what stands where: for a page around this one, and for tests
document.documentElement.dataset.ready = "yes";
