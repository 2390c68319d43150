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
  if (state.selection) fragment.set("select", state.selection);
  if (state.pins.length) fragment.set("pins", state.pins.join(","));
  if (state.groups.length) fragment.set("groups", JSON.stringify(state.groups.map(({ label, nodes }) => [label, ...nodes])));
  return fragment.toString();
}

function fragmentToState(text) {
  const fragment = new URLSearchParams(text), given = {};
  for (const by of CUTS) if (fragment.has(by)) given.cut = { by, value: Number(fragment.get(by)) };
  for (const key of ["sign", "ports", "members", "mode", "search"]) if (fragment.has(key)) given[key] = fragment.get(key);
  if (fragment.has("select")) given.selection = fragment.get("select");
  if (fragment.has("pins")) given.pins = fragment.get("pins").split(",");
  try {
    if (fragment.has("groups"))
      given.groups = JSON.parse(fragment.get("groups")).map(([label, ...nodes]) => ({ label, nodes }));
  } catch { /* a damaged link still shows the circuit */ }
  return given;
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
  if (Array.isArray(given.pins)) state.pins = [...new Set(given.pins.filter(known))];
  if (Array.isArray(given.groups))
    state.groups = given.groups.filter((group) => group && Array.isArray(group.nodes))
      .map((group) => ({ label: String(group.label ?? ""), nodes: [...new Set(group.nodes.filter(known))] }))
      .filter((group) => group.nodes.length);
  return state;
}

function parseSelection(graph, name) {        // a node's or an edge's name -> where to trace from, or null
  if (graph.index.has(name)) {
    const node = graph.index.get(name);
    return { name, node, from: node, to: node };
  }
  const [source] = name.split("->");
  const node = graph.index.get(source);
  if (node === undefined) return null;
  for (const edge of edgesOf(graph.outgoing, node))
    if (graph.edgeName(edge) === name) return { name, edge, from: node, to: graph.reader[edge] };
  return null;
}

function rememberState(state) {
  const fragment = stateToFragment(state);
  try {
    history.replaceState(null, "", fragment ? "#" + fragment : location.pathname + location.search);
  } catch { /* a frame without an address, as in a notebook: the view can be exported instead */ }
}
