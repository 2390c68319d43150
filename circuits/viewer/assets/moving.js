// Mouse and keyboard in an SVG of marks: a click selects, shift pins, dragging moves, the wheel zooms, arrows lead from
// mark to mark. `app.view.things` are the marks, those of the picture have their number as data-thing.

function moveTo(inner, { x, y, k }) { if (inner) inner.setAttribute("transform", "translate(" + x + " " + y + ") scale(" + k + ")"); }

function showAll(app, shows, focused) {       // what the state comes to, in every part of the page; the focus stays
  const { state, view, drawing } = app, plot = byId("plot");
  for (const show of shows) show(state, view);
  rememberState(state);
  drawing.draw(view);
  if (focused) plot.querySelector("[data-name='" + CSS.escape(focused) + "']")?.focus();
  plot.dataset.draws = plot.dataset.settled = String(1 + Number(plot.dataset.draws || 0));
}

function thingAt(app, target) {
  const mark = target.closest && target.closest("[data-thing]");
  return mark ? app.view.things[Number(mark.dataset.thing)] : null;
}

function startMoving(app, tip) {
  const { svg } = app.drawing;
  let pressed = null;
  const drag = (event) => {
    const dx = event.clientX - pressed.x, dy = event.clientY - pressed.y;
    if (pressed.moved || Math.hypot(dx, dy) > 4) {
      pressed.moved = true;
      app.drawing.move({ ...pressed.zoom, x: pressed.zoom.x + dx, y: pressed.zoom.y + dy });
      tip.hide();
    }
  };
  svg.addEventListener("mouseleave", () => tip.hide());
  svg.addEventListener("mousedown", (event) => {
    if (event.button) return;
    pressed = { x: event.clientX, y: event.clientY, zoom: app.drawing.zoom(), thing: thingAt(app, event.target), moved: false };
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
  return { pressed: () => pressed !== null };
}

// One stop of the tab key; arrows lead from mark to mark, the nearest in that direction, from the first that `starts`.
function startArrows(app, tip, lines, starts) {
  const { plot } = app, { svg } = app.drawing;
  plot.tabIndex = 0;
  const go = (index) => {
    const mark = svg.querySelector("[data-thing='" + index + "']");
    if (!mark) return;
    mark.focus();
    const box = mark.getBoundingClientRect();
    tip.show(lines(app, app.view.things[index]).join("\n"), box.right, box.bottom);
  };
  plot.addEventListener("keydown", (event) => {
    const { things } = app.view, here = thingAt(app, event.target), ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in ways && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      event.stopPropagation();
      if (!here) { go(things.findIndex(starts)); return; }
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
