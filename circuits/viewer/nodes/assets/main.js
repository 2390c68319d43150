// One state, one view derived from it, and everything on the page shown from those two.

const DRAWN_LIMIT = 2500;                     // marks; of more nodes the strongest, and those that are found or picked
const data = JSON.parse(byId("circuit-data").textContent), nodes = makeNodes(data), plot = byId("plot"), saved = byId("view-state");
CHOICES.mode = [data.grid ? "grid" : "score", ...(data.spans ? ["position"] : [])];
if (data.spans && !data.grid) CHOICES.mode.reverse();

const app = {
  knock: (names) => knockCard(app, names),
  data, nodes, plot, pristine: byId("app").innerHTML, view: null, grid: data.grid ? decode(data.grid.score, Float32Array) : null,
  state: checkedState({ ...(saved ? JSON.parse(saved.textContent) : {}), ...fragmentToState(location.hash.slice(1)) }, nodes),
  change(changes) { app.state = { ...app.state, ...changes }; request(); },
  select(name) { app.change({ selection: name }); },
  selectThing(thing) { app.select(thing.name); },
  pin(name) {
    const { pins } = app.state;
    if (nodes.index.has(name)) app.change({ pins: pins.includes(name) ? pins.filter((each) => each !== name) : [...pins, name] });
  },
  pinThing(thing) { app.pin(thing.name); },
  load(state) { app.state = checkedState(state, nodes); request(); },
  reset() { app.load({ groups: app.state.groups }); },
  say(text) { byId("shown").textContent = text; },
};
app.most = Math.max(...(app.grid || [0]).map(Math.abs), 1e-30);
app.drawing = makeDrawing(app, plot);

function derive(state) {
  const pass = passing(nodes, (node) => ofSign(nodes.score[node], state.sign)), kept = keptBy(nodes, pass, state.cut), list = pass.list.subarray(0, kept);
  const found = matchesOf(app, state), selected = nodes.index.get(state.selection) ?? null, inside = new Uint8Array(nodes.m);
  for (const node of list) inside[node] = 1;
  const picked = [...state.pins.map((name) => nodes.index.get(name)), ...(selected === null ? [] : [selected])];
  const drawn = new Set([...list.subarray(0, DRAWN_LIMIT), ...(found || []).slice(0, DRAWN_LIMIT), ...picked]);
  const view = { data, nodes, pass, kept, list, found, selected, inside, things: thingsOf(state, [...drawn].sort((a, b) => a - b)) };
  const matches = new Set(found), pins = new Set(state.pins), box = plot.getBoundingClientRect();
  for (const thing of view.things) Object.assign(thing, {
    selected: thing.nodes.includes(selected), pinned: thing.nodes.some((node) => pins.has(nodes.names[node])), found: thing.nodes.some((node) => matches.has(node)),
    group: state.groups.findIndex((group) => thing.nodes.some((node) => group.nodes.includes(nodes.names[node]))),
  });
  view.drawn = drawn.size;
  view.places = placed(view, state, Math.max(420, box.width), Math.max(240, box.height));
  return view;
}

function thingsOf(state, drawn) {             // a mark for each node; in a grid one for each head, whatever its positions
  const cells = new Map(), word = (node, name) => name + (nodes.moved(node) && !data.grid ? " \u201c" + promotedText(nodes, node, 1).replace(/^\u00b7/, "") + "\u201d" : "");
  for (const node of drawn) {
    const key = state.mode === "grid" ? nodes.own[node] : nodes.names[node];
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(node);
  }
  return [...cells].map(([name, held]) => {
    const score = held.reduce((sum, node) => sum + nodes.score[node], 0), [first] = held;
    return { name: nodes.names[first], nodes: held, score, strength: Math.abs(score), word: state.labels[nodes.names[first]] ? calledBy(state, nodes.names[first]) : word(first, name) };
  });
}

function showStatus(view) {
  const shares = nodes.mass ? percent(massOf(view.pass, view.kept) * view.pass.total / nodes.mass) + " of the sum of |score|" : "";
  const part = view.kept > DRAWN_LIMIT ? "drawn: the strongest " + count(DRAWN_LIMIT) + " of " + count(view.kept) : count(view.kept) + " of " + count(nodes.total) + " " + NOUNS[data.level][nodes.total === 1 ? 0 : 1];
  app.say([part, shares, nodes.m < nodes.total ? "this page holds the strongest " + count(nodes.m) + " of " + count(nodes.total) : ""].filter(Boolean).join(" \u00b7 "));
}

function showLegend(state) {
  const items = [["positive", "helps (positive score)"], ["negative", "hurts (negative score)"], ...(state.mode === "grid" ? [["framed", "in the circuit"]] : []), ...state.groups.map(({ label }, at) => ["group-" + (at % 6), label])];
  byId("legend").replaceChildren(...items.map(([kind, text]) => element("span", { class: "key" }, element("i", { class: "swatch " + kind }), text)));
}

const parts = [startControls(app), startDetails(app), startTable(app), (state, view) => showStatus(view), showLegend];
function request() {
  const focused = document.activeElement && document.activeElement.closest("#plot") ? document.activeElement.dataset.name : undefined;
  const view = (app.view = derive(app.state));
  plot.dataset.shown = String(view.drawn);
  showAll(app, parts, focused);
}

showNotes(data);
startTheme(request);
startExport(app);
startKeyboard(app);
startHover(app);
window.addEventListener("hashchange", () => app.load(fragmentToState(location.hash.slice(1))));
request();
document.documentElement.dataset.ready = "yes";
