// The view: what is cut, filtered, selected, pinned and grouped. Kept in the URL's fragment, and exported as JSON.

function freshState() {
  return {
    cut: null, sign: "both", ports: PORTS.join(""), members: "012", mode: "layer", search: "",
    selection: null, pins: [], groups: [],
  };
}

const MODES = ["layer", "position"], SIGNS = ["both", "positive", "negative"], CUTS = ["top", "threshold", "mass"];

function stateToFragment(state) {
  const fragment = new URLSearchParams(), fresh = freshState();
  if (state.cut) fragment.set(state.cut.by, String(Number(state.cut.value.toPrecision(6))));
  for (const key of ["sign", "ports", "members", "mode", "search"])
    if (state[key] !== fresh[key]) fragment.set(key, state[key]);
  keptToFragment(fragment, state);
  return fragment.toString();
}

function fragmentToState(text) {
  const fragment = new URLSearchParams(text), given = {};
  for (const by of CUTS) if (fragment.has(by)) given.cut = { by, value: Number(fragment.get(by)) };
  for (const key of ["sign", "ports", "members", "mode", "search"]) if (fragment.has(key)) given[key] = fragment.get(key);
  return { ...given, ...keptFromFragment(fragment) };
}

// What came from a link or a file: only what this circuit has, of the types it must have.
function checkedState(given, graph, modes) {
  const state = freshState(), known = (name) => typeof name === "string" && graph.index.has(name);
  const letters = (text, all) => [...all].filter((letter) => typeof text === "string" && text.includes(letter)).join("");
  const cut = given.cut;
  if (cut && CUTS.includes(cut.by) && Number.isFinite(cut.value) && cut.value >= 0) state.cut = { by: cut.by, value: cut.value };
  if (SIGNS.includes(given.sign)) state.sign = given.sign;
  if (given.ports !== undefined) state.ports = letters(given.ports, PORTS.join(""));
  if (given.members !== undefined) state.members = letters(given.members, "012");
  if (modes.includes(given.mode)) state.mode = given.mode;
  if (typeof given.search === "string") state.search = given.search;
  if (typeof given.selection === "string" && parseSelection(graph, given.selection)) state.selection = given.selection;
  return { ...state, ...checkedKept(given, known) };
}

function parseSelection(graph, name) {        // a node's or an edge's name -> where to trace from, or null
  if (graph.index.has(name)) {
    const node = graph.index.get(name);
    return { name, node, from: node, to: node };
  }
  const node = graph.index.get(graph.sourceOf(name));
  if (node === undefined) return null;
  for (const edge of edgesOf(graph.outgoing, node))
    if (graph.edgeName(edge) === name) return { name, edge, from: node, to: graph.reader[edge] };
  return null;
}
