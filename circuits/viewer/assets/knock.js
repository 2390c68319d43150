// What the objective loses when nodes are knocked out of the whole model, as it was measured when the page was made.

function knockCard(app, names) {
  const { knocked } = app.data;
  if (!knocked || !names.length) return null;
  const change = knocked.changes[names.slice().sort().join(",")], card = (...content) => element("section", { class: "card", id: "knock-out" }, element("h3", {}, "Knock it out"), ...content);
  const what = names.length > 1 ? "these " + count(names.length) + " nodes" : names[0];
  if (change !== undefined) {
    return card(element("p", {}, element("strong", { class: change > 0 ? "negative" : "positive" }, signed(change, 3)),
      " on " + knocked.objective + " without " + what + ": " + signed(knocked.clean, 3) + " becomes " + signed(knocked.clean + change, 3) + "."),
    element("p", { class: "hint" }, "Measured on " + counted(knocked.prompts, "prompt") + " (" + knocked.of + ") in the whole model, ablation: " + knocked.ablation + "."));
  }
  const alone = names.map((name) => knocked.changes[name]), known = alone.every((value) => value !== undefined);
  const ask = "Not measured: show(model=model, task=task, knock=[(" + names.map((name) => JSON.stringify(name)).join(", ") + (names.length === 1 ? "," : "") + ")]) does.";
  if (names.length === 1) return card(element("p", { class: "hint" }, names[0] === "input" || names[0] === "logits" ? "The input and the logits cannot be knocked out." : ask));
  return card(element("p", { class: "hint" }, ask + (known ? " Their changes one by one add up to " + signed(alone.reduce((sum, value) => sum + value, 0), 3) + "; together they may do more or less." : "")));
}
