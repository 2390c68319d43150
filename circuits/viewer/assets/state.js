// The view: what is cut, filtered, selected, pinned and grouped. Kept in the URL's fragment, and exported as JSON.

let opening = null;                           // the cut that this circuit's page opens with

function freshState() {
  return {
    cut: opening, sign: "both", ports: PORTS.join(""), members: "012", mode: "layer", search: "",
    size: "same", only: false, prompt: "", run: "clean", selection: null, pins: [], groups: [], labels: {},
  };
}

const MODES = ["layer", "position"], SIGNS = ["both", "positive", "negative"], CUTS = ["top", "threshold", "mass"], NODE_SIZES = ["same", "importance"];

function stateToFragment(state) {
  const fragment = new URLSearchParams(), fresh = freshState();
  if (state.cut === null && fresh.cut) fragment.set("top", "all");
  if (state.cut && state.cut !== fresh.cut) fragment.set(state.cut.by, String(Number(state.cut.value.toPrecision(6))));
  for (const key of ["sign", "ports", "members", "mode", "search", "size", "prompt", "run"])
    if (state[key] !== fresh[key]) fragment.set(key, state[key]);
  if (state.only) fragment.set("only", "pinned");
  keptToFragment(fragment, state);
  return fragment.toString();
}

function fragmentToState(text) {
  const fragment = new URLSearchParams(text), given = {};
  for (const by of CUTS) if (fragment.has(by)) given.cut = { by, value: Number(fragment.get(by)) };
  if (fragment.get("top") === "all") given.cut = null;
  if (fragment.get("only") === "pinned") given.only = true;
  for (const key of ["sign", "ports", "members", "mode", "search", "size", "prompt", "run"]) if (fragment.has(key)) given[key] = fragment.get(key);
  return { ...given, ...keptFromFragment(fragment) };
}

// What came from a link or a file: only what this circuit has, of the types it must have.
function checkedState(given, graph, modes, prompts) {
  const state = freshState(), known = (name) => typeof name === "string" && graph.index.has(name);
  const letters = (text, all) => [...all].filter((letter) => typeof text === "string" && text.includes(letter)).join("");
  const cut = given.cut;
  if (cut === null) state.cut = null;
  if (NODE_SIZES.includes(given.size)) state.size = given.size;
  state.only = given.only === true;
  if (prompts.known(given.prompt)) state.prompt = given.prompt;
  if (RUNS.some(([run]) => run === given.run)) state.run = given.run;
  if (cut && CUTS.includes(cut.by) && Number.isFinite(cut.value) && cut.value >= 0) state.cut = { by: cut.by, value: cut.value };
  if (SIGNS.includes(given.sign)) state.sign = given.sign;
  if (given.ports !== undefined) state.ports = letters(given.ports, PORTS.join(""));
  if (given.members !== undefined) state.members = letters(given.members, "012");
  if (modes.includes(given.mode)) state.mode = given.mode;
  if (typeof given.search === "string") state.search = given.search;
  Object.assign(state, checkedKept(given, known));
  if (typeof given.selection === "string" && parseSelection(graph, given.selection, state.groups)) state.selection = given.selection;
  return state;
}

// A node's or an edge's name, or "group:0" for the first group -> where to trace from, or null.
function parseSelection(graph, name, groups) {
  const group = /^group:(\d+)$/.exec(name);
  if (group) {
    const held = groups[Number(group[1])], nodes = held && held.nodes.map((each) => graph.index.get(each));
    return held ? { name, group: held, from: nodes, to: nodes } : null;
  }
  if (graph.index.has(name)) {
    const node = graph.index.get(name);
    return { name, node, from: [node], to: [node] };
  }
  const node = graph.index.get(graph.sourceOf(name));
  if (node === undefined) return null;
  for (const edge of edgesOf(graph.outgoing, node))
    if (graph.edgeName(edge) === name) return { name, edge, from: [node], to: [graph.reader[edge]] };
  return null;
}
