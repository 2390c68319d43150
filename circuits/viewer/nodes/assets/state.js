// The view: cut, sign, columns, scale, search, order of the table, selection, pins and groups. Kept in the URL's fragment.

const CUTS = ["top", "threshold", "mass"], CHOICES = { sign: ["both", "positive", "negative"], scale: ["root", "linear"], mode: [] };
const ORDERS = ["name", "row", "position", "score", "promotes"];

function freshState() {
  return { cut: null, sign: "both", mode: CHOICES.mode[0], scale: "root", search: "", order: "", selection: null, pins: [], groups: [], labels: {} };
}

function stateToFragment(state) {
  const fragment = new URLSearchParams(), fresh = freshState();
  if (state.cut) fragment.set(state.cut.by, String(Number(state.cut.value.toPrecision(6))));
  for (const key of ["sign", "mode", "scale", "search", "order"]) if (state[key] !== fresh[key]) fragment.set(key, state[key]);
  keptToFragment(fragment, state);
  return fragment.toString();
}

function fragmentToState(text) {
  const fragment = new URLSearchParams(text), given = {};
  for (const by of CUTS) if (fragment.has(by)) given.cut = { by, value: Number(fragment.get(by)) };
  for (const key of ["sign", "mode", "scale", "search", "order"]) if (fragment.has(key)) given[key] = fragment.get(key);
  return { ...given, ...keptFromFragment(fragment) };
}

// What came from a link or a file: only what this circuit has, of the types it must have.
function checkedState(given, nodes) {
  const state = freshState(), { cut } = given, known = (name) => typeof name === "string" && nodes.index.has(name);
  if (cut && CUTS.includes(cut.by) && Number.isFinite(cut.value) && cut.value >= 0) state.cut = { by: cut.by, value: cut.value };
  for (const [key, options] of Object.entries(CHOICES)) if (options.includes(given[key])) state[key] = given[key];
  if (typeof given.search === "string") state.search = given.search;
  if (typeof given.order === "string" && ORDERS.includes(given.order.replace(/^-/, ""))) state.order = given.order;
  if (known(given.selection)) state.selection = given.selection;
  return { ...state, ...checkedKept(given, known) };
}
