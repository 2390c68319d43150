// The picture by keyboard: one stop of the tab key, arrows lead from node to node, Enter selects, p pins, + and - zoom, 0 shows all.

const ZOOMS = { "+": 0.8, "-": 1.25, 0: 1 };

function startNodeKeys(app) {
  const { plot } = app, tip = makeTip(byId("tip")), spoken = byId("spoken");
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let here = null;                            // a node of the graph as it is drawn
  const places = () => app.picture.places(app.view.picture);
  const go = (place) => {
    here = place.node;
    const name = app.view.picture.graph.nameOf(here), group = parseSelection(app.graph, name, app.state.groups).group;
    const text = group ? groupText(app, group) : nodeText(app.graph, app.state, app.prompts.of(app.state.prompt), here), box = plot.getBoundingClientRect();
    spoken.textContent = text.replace(/\n/g, "; ");
    tip.show(text, box.left + place.x, box.top + place.y);
    app.picture.mark(place);
  };
  plot.tabIndex = 0;
  plot.addEventListener("keydown", (event) => {
    const all = places(), now = all.find(({ node }) => node === here);
    if (event.key in ways && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      event.stopPropagation();
      const next = now ? nearestThat(all, now, ways[event.key]) : all[0];
      if (next) go(next);
    } else if (event.key in ZOOMS) {
      event.stopPropagation();
      const box = plot.getBoundingClientRect();
      if (event.key === "0") app.picture.whole(); else app.picture.scale(ZOOMS[event.key], now ? now.x : box.width / 2, now ? now.y : box.height / 2);
    } else if (now && ["Enter", " ", "p"].includes(event.key)) {
      event.preventDefault();
      event.stopPropagation();
      const name = app.view.picture.graph.nameOf(here);
      if (event.key === "p" || event.shiftKey) app.pin(name); else app.select(name);
    }
  });
  plot.addEventListener("blur", () => { tip.hide(); app.picture.mark(null); });
}

function nearestThat(all, here, [wx, wy]) {    // in a direction; what lies aside counts three times
  let best = null, least = Infinity;
  for (const place of all) {
    const dx = place.x - here.x, dy = place.y - here.y, ahead = dx * wx + dy * wy, aside = Math.abs(dx * wy) + Math.abs(dy * wx);
    if (place.node !== here.node && ahead > 1 && ahead + 3 * aside < least) { least = ahead + 3 * aside; best = place; }
  }
  return best;
}

function describe(app, view) {                // the picture in a sentence, for who does not see it
  const { graph } = app, first = Array.from(view.drawn.subarray(0, 3), (edge) => graph.arrow(edge) + " " + signed(graph.score[edge], 3));
  const nodes = new Set(Array.from(view.drawn).flatMap((edge) => [graph.source[edge], graph.reader[edge]]));
  return "Circuit of " + counted(view.drawn.length, "edge") + " between " + counted(nodes.size, "node") + (first.length ? "; the strongest: " + first.join(", ") : "") + ". Arrow keys go from node to node, Enter selects, p pins.";
}
