// Two circuits: how much they share, and where their scores differ most.

function startComparison(app) {
  const { data, graph } = app, compare = data.compare;
  if (!compare) return () => [];
  const difference = (edge) => graph.here[edge] - graph.other[edge];
  const order = Array.from({ length: graph.m }, (_, edge) => edge).sort((a, b) => Math.abs(difference(b)) - Math.abs(difference(a))).slice(0, 20);
  return function show() {
    const [here, there] = compare.names, [both, onlyHere, onlyThere] = compare.counts;
    const rows = order.map((edge) => element("tr", {}, element("td", {}, edgeButton(app, edge)),
      element("td", {}, element("i", { class: "swatch member-" + graph.member[edge], title: ["in both", "only in " + here, "only in " + there][graph.member[edge]] })),
      ...[graph.here[edge], graph.other[edge], difference(edge)].map((value) => element("td", { class: "score" }, signed(value, 3)))));
    return [element("section", { class: "card", id: "comparison" }, element("h2", {}, "Comparison"),
      figures([["Jaccard", compare.jaccard.toFixed(3)], ["in both", count(both)], ["only " + here, count(onlyHere)], ["only " + there, count(onlyThere)],
        ...compare.names.map((name, at) => ["faithfulness of " + name, compare.faithfulness[at]]),
        ...(compare.samePrompts ? compare.names.map((name, at) => [name + " on these prompts", compare.samePrompts[at]]) : [])]),
      element("p", { class: "hint", id: "whose" }, "Scores, widths and signs are those of " + here + "; of edges that only " + there + " has, its own. Dashed edges hurt."),
      element("h3", {}, "Largest differences of scores"),
      element("table", {}, element("thead", {}, element("tr", {}, ...["edge", "", here, there, "diff."].map((text) => element("th", { scope: "col" }, text)))), element("tbody", {}, ...rows)),
      compare.note ? element("p", { class: "hint" }, compare.note) : null)];
  };
}
