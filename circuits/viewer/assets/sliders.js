// Three sliders for one cut: the smallest |score|, how many, and which share of the sum of |score|. Each moves the others.

function startSliders(app, graph, what) {     // `what`: edges or nodes
  const sliders = [
    ["threshold", "Threshold", "Smallest |score| that is drawn"],
    ["top", "Top k", "How many of the strongest " + what + " are drawn" + (graph.m > (graph.chosen ?? graph.m) ? "; beyond the circuit it grows by the strongest beside it" : "")],
    ["mass", "Mass", "Share of the sum of |score| that is drawn"],
  ].map(([by, text, title]) => {
    const most = by === "top" && graph.m > (graph.chosen ?? graph.m) ? STEPS + BEYOND : STEPS;
    const input = element("input", { type: "range", id: by, min: 0, max: most, step: 5, value: 0, title, disabled: graph.m === 0 });
    const output = element("output", { id: by + "-value", for: by });
    input.addEventListener("input", () => {
      app.lastSlider = input;
      const at = Number(input.value), value = SCALES[by].value(graph, app.view.pass, at);
      const all = by === "threshold" ? at === 0 : at === STEPS;
      app.change({ cut: all ? null : { by, value } });
    });
    return { by, input, output, row: element("div", { class: "slider" }, element("label", { for: by }, text), output, input) };
  });
  app.lastSlider = sliders[1].input;
  return {
    rows: sliders.map(({ row }) => row),
    show(state, view) {
      const kept = view.kept, n = view.pass.chosen;
      const value = kept < n && kept > 0 ? graph.strength[view.pass.list[kept - 1]] : 0;
      const cutValue = state.cut && state.cut.by === "threshold" ? state.cut.value : value;
      const texts = {
        threshold: cutValue > 0 ? "|score| \u2265 " + Number(cutValue.toPrecision(3)) : "none",
        top: kept > n ? count(n) + " and " + count(kept - n) + " more" : count(kept) + " of " + count(n),
        mass: percent(kept >= n ? 1 : massOf(view.pass, kept)),
      };
      for (const { by, input, output } of sliders) {
        output.textContent = texts[by];
        input.setAttribute("aria-valuetext", texts[by]);
        if (input !== document.activeElement || !state.cut || state.cut.by !== by) input.value = SCALES[by].position(graph, view.pass, kept);
      }
    },
  };
}
