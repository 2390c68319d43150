// What is known of a node beside the graph: tokens that it moves, where it is active, what silencing it does.

function movedCard(app, name) {
  const moved = app.data.moved[name];
  if (!moved) return [];
  return [element("section", { class: "card", id: "moved" }, element("h3", {}, "Moves these logits"),
    element("div", { class: "pair" }, tokenList("promotes", moved[0], "up"), tokenList("suppresses", moved[1], "down")),
    element("p", { class: "hint" }, "What it writes, read straight through the final norm, less the mean over the vocabulary. What later layers make of it is not in this."))];
}

function contextCard(app, name) {
  const found = app.data.contexts && app.data.contexts[name];
  if (!found) return [];
  const line = ([activation, prompt, position, before, token, after]) => element("li", { title: "prompt " + prompt + ", position " + position },
    element("span", { class: "score" }, signed(activation, 3)), element("span", { class: "text" }, before.map(visible).join(""), element("mark", {}, visible(token)), after.map(visible).join("")));
  return [element("section", { class: "card", id: "contexts" }, element("h3", {}, "Most active in the prompts given"),
    found.length ? element("ol", { class: "contexts" }, ...found.map(line)) : element("p", { class: "hint" }, "It is active in none of them, in the direction that it has here."))];
}

function measuredCard(app, name) {
  const { measured } = app.data, point = measured && measured.points.find(([label]) => label === name);
  if (!point) return [];
  return [element("section", { class: "card", id: "measured" }, element("h3", {}, "Silenced in the real model"),
    figures([["predicted", signed(point[1]) + " that the logits fall, by its score"], ["measured", signed(point[2]) + " that they fell"]]))];
}

function agreementCard(app) {                 // predicted against measured, of all that were silenced
  const { measured } = app.data;
  if (!measured) return [];
  const values = measured.points.flatMap(([, a, b]) => [a, b]), low = Math.min(0, ...values), high = Math.max(0, ...values), size = 200;
  const at = (value) => 14 + (size - 28) * (value - low) / Math.max(high - low, 1e-30);
  const svg = shape("svg", { viewBox: "0 0 " + size + " " + size, width: "100%", role: "img", "aria-label": "Predicted against measured effects" },
    shape("line", { x1: 14, y1: size - at(0), x2: size - 8, y2: size - at(0), class: "axis" }), shape("line", { x1: at(0), y1: 8, x2: at(0), y2: size - 14, class: "axis" }),
    shape("line", { x1: at(low), y1: size - at(low), x2: at(high), y2: size - at(high), class: "equal" }),
    shape("text", { x: size - 8, y: size - 2, "text-anchor": "end" }, "predicted"), shape("text", { x: 9, y: 8, transform: "rotate(-90 9 8)", "text-anchor": "end" }, "measured"));
  for (const [label, predicted, real, group] of measured.points) {
    const mark = shape("circle", { cx: at(predicted), cy: size - at(real), r: 3.6, class: "point " + (group === "top" ? "top" : "random") }, shape("title", {}, label + ": predicted " + signed(predicted, 3) + ", measured " + signed(real, 3)));
    if (app.trace.index.has(label)) mark.addEventListener("click", () => app.select(label));
    svg.append(mark);
  }
  const line = ([group, n, value, low, high]) => element("li", {}, element("span", {}, element("i", { class: "dot " + (group === "top" ? "top" : "random") }), (group === "top" ? "largest" : group) + ", n = " + n),
    element("span", { class: "score" }, value === null ? "r unknown" : "r = " + value.toFixed(2) + (low === null ? "" : " [" + low.toFixed(2) + ", " + high.toFixed(2) + "]")));
  return [element("section", { class: "card", id: "agreement" }, element("h3", {}, "Silenced in the real model, one at a time"), svg,
    element("ul", { class: "edges" }, ...measured.agreement.map(line)), element("p", { class: "hint" }, "By how much the explained logits fall; " + percent(measured.confidence) + " bootstrap intervals. The largest: those of largest influence."))];
}
