// The view: cut-offs, signs, names, search, selection, pins and groups. Kept in the URL's fragment, and exported as JSON.

const LINK_SIGNS = ["both", "adds", "takes"], NAMES = ["words", "numbers"];
let defaults = { nodes: 1, edges: 1 };        // of the graph's own

function freshState() {
  return { ...defaults, sign: "both", names: "words", only: false, search: "", selection: null, pins: [], groups: [], labels: {} };
}

function stateToFragment(state) {
  const fragment = new URLSearchParams(), fresh = freshState();
  for (const key of ["nodes", "edges", "sign", "names", "search"]) if (state[key] !== fresh[key]) fragment.set(key, state[key]);
  if (state.only) fragment.set("only", "pinned");
  keptToFragment(fragment, state);
  return fragment.toString();
}

function fragmentToState(text) {
  const fragment = new URLSearchParams(text), given = {};
  for (const key of ["nodes", "edges"]) if (fragment.has(key)) given[key] = Number(fragment.get(key));
  for (const key of ["sign", "names", "search"]) if (fragment.has(key)) given[key] = fragment.get(key);
  if (fragment.get("only") === "pinned") given.only = true;
  return { ...given, ...keptFromFragment(fragment) };
}

// What came from a link or a file: only what this graph has, of the types it must have.
function checkedState(given, trace) {
  const state = freshState(), known = (name) => typeof name === "string" && trace.index.has(name);
  for (const key of ["nodes", "edges"]) if (given[key] > 0 && given[key] <= 1) state[key] = given[key];
  if (LINK_SIGNS.includes(given.sign)) state.sign = given.sign;
  if (NAMES.includes(given.names)) state.names = given.names;
  state.only = given.only === true;
  if (typeof given.search === "string") state.search = given.search;
  Object.assign(state, checkedKept(given, known));
  if (known(given.selection) || groupOf(given.selection, state)) state.selection = given.selection;
  return state;
}

function groupOf(selection, state) {          // "group:0" is the first
  const found = typeof selection === "string" && /^group:(\d+)$/.exec(selection);
  return found ? state.groups[Number(found[1])] || null : null;
}
