// Pinned nodes, and groups of them under a name of one's own.

function startGroups(app, box) {
  const label = element("input", { type: "text", id: "group-label", placeholder: "name, e.g. name movers", maxlength: 60, "aria-label": "Name of the group" });
  const make = element("button", { type: "submit", id: "group" }, "Group pinned");
  const form = element("form", { class: "row" }, label, make);
  const pins = element("div", { id: "pins", class: "chips" }), groups = element("ul", { id: "groups" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { pins: nodes, groups: held } = app.state, name = label.value.trim() || "group " + (held.length + 1);
    if (!nodes.length) return;
    label.value = "";
    // a node is in one group at most
    const rest = held.map((group) => ({ ...group, nodes: group.nodes.filter((node) => !nodes.includes(node)) })).filter(({ nodes: left }) => left.length);
    app.change({ groups: [...rest, { label: name, nodes: nodes.slice() }], pins: [] });
  });
  const hint = element("p", { class: "hint" }, "Shift-click nodes to pin them; then give them a name.");
  box.append(element("section", { class: "card", id: "pinned" }, element("h2", {}, "Pins and groups"), hint, pins, form, groups));
  const together = element("div", {});
  if (app.knock) pins.after(together);
  return function show(state, view) {
    if (app.knock) together.replaceChildren(...[app.knock(state.pins.length > 1 ? state.pins : [])].filter(Boolean));
    form.hidden = state.pins.length === 0;
    hint.hidden = state.pins.length > 0 || state.groups.length > 0;
    pins.replaceChildren(...state.pins.map((name) => element("span", { class: "chip" },
      element("button", { type: "button", class: "link", onclick: () => app.select(name) }, name),
      element("button", { type: "button", class: "remove", "aria-label": "Unpin " + name, onclick: () => app.pin(name) }, "\u00d7"))));
    groups.replaceChildren(...state.groups.map((group, at) => {
      const name = element("input", { type: "text", value: group.label, maxlength: 60, "aria-label": "Name of group " + (at + 1) });
      name.addEventListener("change", () => app.change({ groups: state.groups.map((each, place) => (place === at ? { ...each, label: name.value } : each)) }));
      const close = app.closes ? element("button", { type: "button", class: "link close", "aria-pressed": String(Boolean(group.closed)), title: "Draw the group as one node, with the sums of its edges", onclick: () => app.change({ groups: state.groups.map((each, place) => (place === at ? { ...each, closed: !each.closed } : each)) }) }, group.closed ? "open" : "close") : null;
      return element("li", {}, element("i", { class: "swatch group-" + (at % 6) }), name, close,
        element("button", { type: "button", class: "link", title: group.nodes.join(", "), onclick: () => app.change({ pins: group.nodes.slice() }) }, counted(group.nodes.length, "node")),
        element("button", { type: "button", class: "remove", "aria-label": "Remove group " + group.label, onclick: () => app.change({ groups: state.groups.filter((_, place) => place !== at) }) }, "\u00d7"));
    }));
  };
}
