// What is told of nodes and links on hovering.

function nodeLines(app, thing) {
  const { trace, data } = app, [node] = thing.nodes;
  if (thing.kind === "group") return [thing.word, counted(thing.nodes.length, "node") + " joined", "influence " + shareOf(app, thing.influence)];
  const { activation } = data.nodes, lines = [titleOf(app, node)];
  if (data.labels[trace.names[node]]) lines.push(data.labels[trace.names[node]]);
  if (activation[node] !== null) lines.push((trace.logit[node] ? "value " : "activation ") + signed(activation[node]));
  if (trace.logit[node]) lines.push("probability or weight " + percent(trace.chances[node]));
  else lines.push("influence " + shareOf(app, trace.influence[node]));
  if (thing.kind !== "token" && !trace.missed[node]) lines.push(percent(thing.explained) + " of it is explained by what is drawn");
  const moved = data.moved[trace.names[node]];
  if (moved) lines.push("promotes " + moved[0].slice(0, 4).map(([token]) => visible(token)).join(" "));
  return lines;
}

function shareOf(app, influence) { return percent(influence / app.trace.total); }

function titleOf(app, node) {
  const { data } = app, { kind, layer, position, unit, text, name } = data.nodes, token = position[node] >= 0 ? "\u201c" + visible(data.tokens[position[node]]) + "\u201d" : "";
  if (kind[node] === "token") return "token " + token;
  if (kind[node] === "logit") return "logit \u201c" + visible(text[node]) + "\u201d";
  if (kind[node] === "error") return "error of layer " + layer[node] + " at " + token;
  if (kind[node] === "remainder") return "what is not shown";
  return unit[node] >= 0 ? kind[node] + " " + unit[node] + " of layer " + layer[node] + " at " + token : name[node];
}

function linkLines(app, link) {
  const { things } = app.view, name = (thing) => (thing.kind === "group" ? thing.word : titleOf(app, thing.nodes[0]));
  const lines = [name(things[link.source]) + " \u2192 " + name(things[link.target]), (link.weight < 0 ? "takes " : "adds ") + signed(link.weight)];
  if (link.count > 1) lines.push("the sum of " + link.count + " links");
  const target = things[link.target], magnitude = target.nodes.reduce((sum, node) => sum + app.trace.magnitude[node], 0);
  if (magnitude > 0 && !link.missed) lines.push(percent(Math.abs(link.weight) / magnitude) + " of all that goes into it");
  return lines;
}

function startTouch(app) {
  const { svg } = app.drawing, tip = makeTip(byId("tip"));
  const inside = (event) => {
    const box = svg.getBoundingClientRect(), { x, y, k } = app.drawing.zoom();
    return [(event.clientX - box.left - x) / k, (event.clientY - box.top - y) / k];
  };
  const moving = startMoving(app, tip);
  svg.addEventListener("mousemove", (event) => {
    if (moving.pressed()) return;
    const thing = thingAt(app, event.target), link = thing ? null : nearestLink(app.view.links, ...inside(event));
    if (thing) tip.show(nodeLines(app, thing).join("\n"), event.clientX, event.clientY);
    else if (link) tip.show(linkLines(app, link).join("\n"), event.clientX, event.clientY);
    else tip.hide();
  });
  startArrows(app, tip, nodeLines, ({ kind }) => kind === "logit");
}
