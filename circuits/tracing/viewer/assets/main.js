// One state, one view derived from it, and everything on the page shown from those two.

const data = JSON.parse(byId("circuit-data").textContent), trace = makeTrace(data), plot = byId("plot"), saved = byId("view-state");
trace.total = Math.max(trace.influence.reduce((a, b) => a + b, 0), 1e-30);
const explanations = data.labels;             // those that the page was made with; one's own go before
defaults = data.pruned ? defaults : data.defaults;

const app = {
  trace, data, plot, pristine: byId("app").innerHTML, view: null,
  state: checkedState({ groups: data.groups, ...(saved ? JSON.parse(saved.textContent) : {}), ...fragmentToState(location.hash.slice(1)) }, trace),
  change(changes) { app.state = { ...app.state, ...changes }; request(); },
  select(name) { app.change({ selection: name }); },
  selectThing(thing) { app.select(thing.kind === "group" ? "group:" + thing.group : thing.name); },
  pin(name) {
    const { pins } = app.state;
    if (trace.index.has(name)) app.change({ pins: pins.includes(name) ? pins.filter((each) => each !== name) : [...pins, name] });
  },
  pinThing(thing) { for (const node of thing.nodes) app.pin(trace.names[node]); },
  load(state) { app.state = checkedState(state, trace); request(); },
  reset() { app.load({ groups: app.state.groups }); },
  say(text) { byId("shown").textContent = text; },
};
app.drawing = makeDrawing(app, plot);

let cut = null, cutKey = "";
function derive(state) {
  data.labels = { ...explanations, ...state.labels };
  const key = state.nodes + "/" + state.edges;
  if (key !== cutKey) { cut = cutOf(trace, state.nodes, state.edges); cutKey = key; }
  const matches = matchesOf(app, state), found = new Set(matches);
  const view = { ...joined(app, state, cut), matches }, box = plot.getBoundingClientRect();
  view.selected = trace.index.get(state.selection) ?? null;
  const selected = view.selected === null ? view.things.findIndex(({ kind, group }) => kind === "group" && state.selection === "group:" + group) : view.of[view.selected];
  view.picked = selected >= 0 ? selected : null;
  view.things.forEach((thing, index) => {
    thing.selected = index === selected;
    thing.found = thing.nodes.some((node) => found.has(node));
    if (!thing.missed && thing.kind !== "token") thing.explained = thing.nodes.reduce((sum, node) => sum + explainedOf(trace, view, node), 0) / thing.nodes.length;
  });
  view.n = view.links.length;
  view.links = view.links.slice(0, DRAWN_LIMIT);
  view.places = placed(view, data, Math.max(420, box.width), Math.max(360, box.height));
  for (const link of view.links) link.curve = curveOf(link, view.things);
  return view;
}

function explainedOf(trace, view, node) { return explainedShare(trace, node, (link) => view.of[trace.source[link]] >= 0); }

function showStatus(view) {
  const nodes = view.things.length, held = trace.pruned && data.links.total > trace.m ? " \u00b7 this page holds what prune() keeps of " + count(data.links.total) + " links" : "";
  app.say((view.links.length < view.n ? "the strongest " + count(view.links.length) + " of " : "") + counted(view.n, "link") + " between " + counted(nodes, "node") + held);
}

function showLegend(state) {
  const kinds = [...new Set(trace.kind)].filter((kind) => UNIT_KINDS.includes(kind) || kind === "error").map((kind) => ["key-" + (kind === "error" ? "error" : "unit"), kind]);
  const items = [["positive", "adds"], ["negative", "takes"], ["missed", "not explained"]].map(([kind, text]) => [kind, text]);
  byId("legend").replaceChildren(...[...items, ...kinds, ...state.groups.map(({ label }, at) => ["group-" + (at % 6), label])]
    .map(([kind, text]) => element("span", { class: "key" }, element("i", { class: "swatch " + kind }), text)));
}

const parts = [startControls(app), startDetails(app), (state, view) => showStatus(view), showLegend];
function request() {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.name : undefined;
  const view = (app.view = derive(app.state));
  plot.dataset.shown = String(view.links.length);
  showAll(app, parts, focused);
}

startTheme(request);
startExport(app);
startKeyboard(app);
startTouch(app);
window.addEventListener("hashchange", () => app.load(fragmentToState(location.hash.slice(1))));
request();
document.documentElement.dataset.ready = "yes";
