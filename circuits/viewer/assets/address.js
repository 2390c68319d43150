// What is selected, pinned and grouped, in the URL's fragment and out of it.

function keptToFragment(fragment, state) {
  if (state.selection) fragment.set("select", state.selection);
  if (state.pins.length) fragment.set("pins", state.pins.join(","));
  if (state.groups.length) fragment.set("groups", JSON.stringify(state.groups.map(({ label, nodes }) => [label, ...nodes])));
  const closed = state.groups.flatMap((group, at) => (group.closed ? [at] : []));
  if (closed.length) fragment.set("closed", closed.join(","));
  const moved = state.groups.flatMap(({ shift }, at) => (shift ? [[at, ...shift.map((by) => Number(by.toFixed(3)))]] : []));
  if (moved.length) fragment.set("moved", JSON.stringify(moved));
  if (Object.keys(state.labels).length) fragment.set("labels", JSON.stringify(state.labels));
}

function keptFromFragment(fragment) {
  const given = {};
  if (fragment.has("select")) given.selection = fragment.get("select");
  if (fragment.has("pins")) given.pins = fragment.get("pins").split(",");
  const closed = (fragment.get("closed") || "").split(",");
  try {
    if (fragment.has("groups"))
      given.groups = JSON.parse(fragment.get("groups")).map(([label, ...nodes], at) => ({ label, nodes, closed: closed.includes(String(at)) }));
    if (fragment.has("moved")) for (const [at, ...shift] of JSON.parse(fragment.get("moved"))) if (given.groups?.[at]) given.groups[at].shift = shift;
    if (fragment.has("labels")) given.labels = JSON.parse(fragment.get("labels"));
  } catch { /* a damaged link still shows the graph */ }
  return given;
}

function checkedKept(given, known) {          // pins and groups of nodes that are there
  const kept = {};
  if (Array.isArray(given.pins)) kept.pins = [...new Set(given.pins.filter(known))];
  if (Array.isArray(given.groups))
    kept.groups = given.groups.filter((group) => group && Array.isArray(group.nodes))
      .map((group) => ({ label: String(group.label ?? ""), nodes: [...new Set(group.nodes.filter(known))], ...(group.closed === true ? { closed: true } : {}), ...(isShift(group.shift) ? { shift: group.shift } : {}) }))
      .filter((group) => group.nodes.length);
  if (given.labels && typeof given.labels === "object")
    kept.labels = Object.fromEntries(Object.entries(given.labels).filter(([name, text]) => known(name) && typeof text === "string" && text).map(([name, text]) => [name, text.slice(0, LONGEST_LABEL)]));
  return kept;
}

function isShift(shift) { return Array.isArray(shift) && shift.length === 2 && shift.every((by) => Number.isFinite(by) && Math.abs(by) < 1e4); }

function rememberState(state) {
  const fragment = stateToFragment(state);
  try {
    history.replaceState(null, "", fragment ? "#" + fragment : location.pathname + location.search);
  } catch { /* a frame without an address, as in a notebook: the view can be exported instead */ }
}
