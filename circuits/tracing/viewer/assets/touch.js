// Mouse and keyboard in the picture: hovering tells, a click selects, shift pins, dragging moves and the wheel zooms.

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
  const { svg } = app.drawing, tip = makeTip(byId("tip")), { plot } = app;
  const thingAt = (target) => { const group = target.closest && target.closest("g.node"); return group ? app.view.things[Number(group.dataset.thing)] : null; };
  const inside = (event) => {
    const box = svg.getBoundingClientRect(), { x, y, k } = app.drawing.zoom();
    return [(event.clientX - box.left - x) / k, (event.clientY - box.top - y) / k];
  };
  let pressed = null;
  const drag = (event) => {
    const dx = event.clientX - pressed.x, dy = event.clientY - pressed.y;
    if (pressed.moved || Math.hypot(dx, dy) > 4) {
      pressed.moved = true;
      app.drawing.move({ ...pressed.zoom, x: pressed.zoom.x + dx, y: pressed.zoom.y + dy });
      tip.hide();
    }
  };
  svg.addEventListener("mousemove", (event) => {
    if (pressed) return;
    const thing = thingAt(event.target), link = thing ? null : nearestLink(app.view.links, ...inside(event));
    if (thing) tip.show(nodeLines(app, thing).join("\n"), event.clientX, event.clientY);
    else if (link) tip.show(linkLines(app, link).join("\n"), event.clientX, event.clientY);
    else tip.hide();
  });
  svg.addEventListener("mouseleave", () => tip.hide());
  svg.addEventListener("mousedown", (event) => {
    if (event.button) return;
    pressed = { x: event.clientX, y: event.clientY, zoom: app.drawing.zoom(), thing: thingAt(event.target), moved: false };
  });
  window.addEventListener("mousemove", (event) => { if (pressed) drag(event); });
  window.addEventListener("mouseup", (event) => {
    const press = pressed;
    pressed = null;
    if (!press || press.moved) return;
    if (press.thing) (event.shiftKey ? app.pinThing : app.selectThing)(press.thing);
    else if (app.state.selection) app.select(null);
  });
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = svg.getBoundingClientRect(), [px, py] = [event.clientX - box.left, event.clientY - box.top], { x, y, k } = app.drawing.zoom();
    const next = Math.max(0.5, Math.min(12, k * Math.exp(-0.0015 * event.deltaY)));
    app.drawing.move({ k: next, x: px - (px - x) * next / k, y: py - (py - y) * next / k });
  }, { passive: false });
  svg.addEventListener("dblclick", () => app.drawing.move({ x: 0, y: 0, k: 1 }));
  window.addEventListener("resize", () => app.change({}));
  startArrows(app, svg, plot, thingAt, tip);
}

// One stop of the tab key; arrows lead from node to node, the nearest in that direction.
function startArrows(app, svg, plot, thingAt, tip) {
  plot.tabIndex = 0;
  const go = (index) => {
    const group = svg.querySelector("[data-thing='" + index + "']");
    if (!group) return;
    group.focus();
    const box = group.getBoundingClientRect();
    tip.show(nodeLines(app, app.view.things[index]).join("\n"), box.right, box.bottom);
  };
  plot.addEventListener("keydown", (event) => {
    const { things } = app.view, here = thingAt(event.target), ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in ways && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      event.stopPropagation();
      if (!here) { go(things.findIndex(({ kind }) => kind === "logit")); return; }
      const [wx, wy] = ways[event.key];
      let best = null, least = Infinity;
      things.forEach((thing, index) => {
        const dx = thing.x - here.x, dy = thing.y - here.y, ahead = dx * wx + dy * wy, aside = Math.abs(dx * wy) + Math.abs(dy * wx);
        if (thing !== here && ahead > 1 && ahead + 3 * aside < least) { least = ahead + 3 * aside; best = index; }
      });
      if (best !== null) go(best);
    } else if (here && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      (event.shiftKey ? app.pinThing : app.selectThing)(here);
    } else if (here && event.key === "p") {
      event.stopPropagation();
      app.pinThing(here);
    }
  });
  plot.addEventListener("focusout", () => tip.hide());
}
