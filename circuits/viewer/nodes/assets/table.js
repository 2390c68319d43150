// All nodes that are drawn or found as a table: a heading sorts by its column, a second click turns the order.

const AT_ONCE = 100;                          // rows that are added at a time

function startTable(app) {
  const { nodes, data } = app, box = byId("listing"), promoted = Object.keys(data.known.moved).length > 0;
  const columns = [["name", "node"], ["row", data.level === "feature" ? "dictionary" : "layer"], ...(nodes.span ? [["position", "position"]] : []), ["score", "score"], ...(promoted ? [["promotes", "promotes"]] : [])];
  const titles = Object.fromEntries(columns), heads = columns.map(([key, text]) => element("th", { scope: "col" }, element("button", { type: "button", class: "sort", "data-sort": key, onclick: () => app.change({ order: nextOrder(app.state.order, key) }) }, text)));
  const caption = element("caption", {}), body = element("tbody", {}), more = element("button", { type: "button", class: "link more", onclick: () => { most += AT_ONCE; app.change({}); } });
  box.append(element("table", {}, caption, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "#"), ...heads)), body), more);
  let most = AT_ONCE, before = "";
  const line = (node, view) => element("tr", { "data-name": nodes.names[node], "aria-selected": String(node === view.selected), class: view.inside[node] ? "" : "hidden-node", onclick: () => app.select(nodes.names[node]) },
    element("td", { class: "rank" }, count(node + 1)), ...columns.map(([key]) => cellOf(app, node, key)));
  return function show(state, view) {
    const rows = ordered(app, view.found === null ? view.list : view.found, state.order), key = JSON.stringify([state.search, state.order, state.cut, state.sign]);
    if (key !== before) { most = AT_ONCE; box.scrollTop = 0; }
    before = key;
    caption.textContent = (view.found === null ? counted(rows.length, "node") : counted(rows.length, "node") + " found") + ", by " + (state.order ? (state.order.startsWith("-") ? "falling " : "") + titles[state.order.replace("-", "")] : "falling |score|");
    columns.forEach(([name], at) => heads[at].setAttribute("aria-sort", state.order === name ? "ascending" : state.order === "-" + name ? "descending" : "none"));
    body.replaceChildren(...Array.from(rows.slice(0, most), (node) => line(node, view)));
    more.hidden = rows.length <= most;
    more.textContent = "more: " + count(Math.max(0, rows.length - most)) + " are left";
  };
}

function nextOrder(order, key) {              // numbers fall first, names rise
  const first = key === "score" ? "-" + key : key, second = key === "score" ? key : "-" + key;
  return order === first ? second : order === second ? "" : first;
}

function ordered(app, list, order) {          // as they come, the strongest first, where nothing else is asked for
  const { nodes } = app, key = order.replace(/^-/, ""), turned = order.startsWith("-") ? -1 : 1;
  if (!order) return Array.from(list);
  const values = { name: (node) => nodes.names[node], row: (node) => nodes.row[node], position: (node) => (nodes.span ? nodes.span[node] : 0), score: (node) => nodes.score[node], promotes: (node) => promotedText(nodes, node, 1) || "\uffff" }[key];
  const compared = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  return Array.from(list).sort((a, b) => turned * compared(values(a), values(b)) || a - b);
}

function cellOf(app, node, key) {
  const { nodes, data } = app;
  if (key === "name") return element("td", {}, nodeButton(app, node));
  if (key === "score") return element("td", {}, scoreText(nodes.score[node]));
  return element("td", {}, key === "row" ? data.rows.name[nodes.row[node]] : key === "position" ? placeName(data, nodes.span[node]).replace("position ", "") : promotedText(nodes, node, 5));
}
