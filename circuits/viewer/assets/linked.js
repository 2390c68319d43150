// The prompt's tokens, attention patterns and direct effects, where the page was made with a model and a task.

function startPrompt(app) {
  const box = byId("prompt"), linked = app.data.linked;
  if (!linked) return () => {};
  box.hidden = false;
  const { clean, corrupted } = linked;
  const cell = (token, at, which) => element("span", { class: "token " + which + (clean[at] === corrupted[at] ? "" : " differs"), title: which + ", token " + at + ": " + JSON.stringify(token) }, visible(token));
  const column = (kind, ...cells) => element("span", { class: "column " + kind }, ...cells);
  const answer = (tokens, which, title) => element("span", { class: "token answer " + which, title }, tokens.length ? "\u2192 " + tokens.slice(0, 4).map(visible).join(" / ") : " ");
  const note = element("p", { class: "hint", id: "prompt-note" });
  box.append(element("div", { class: "columns" }, column("names", element("span", { class: "name" }, "clean"), element("span", { class: "name" }, "corrupted")),
    ...clean.map((token, at) => column("", cell(token, at, "clean"), cell(corrupted[at], at, "corrupted"))),
    column("answers", answer(linked.correct, "clean", "the correct answer"), answer(linked.incorrect, "corrupted", "the incorrect answer"))), note);
  const cells = [...box.querySelectorAll(".token.clean:not(.answer)")];
  return function show(state, view) {         // on a head: where its last position looks
    const row = lastRow(linked, view.selected === null ? null : app.graph.component[view.selected]);
    cells.forEach((each, at) => each.style.setProperty("--looks", row ? row[at] / 255 : 0));
    note.textContent = row ? "Shaded: where " + app.graph.component[view.selected] + " looks from the last position." : "Prompt " + linked.example + ". Framed: tokens that differ.";
  };
}

function patternOf(linked, name) {            // [query * length + key], in steps of 1/255, or null
  const place = linked.heads.indexOf(name), size = linked.clean.length ** 2;
  if (place < 0) return null;
  linked.bytes ??= decode(linked.patterns, Uint8Array);
  return linked.bytes.subarray(place * size, (place + 1) * size);
}

function lastRow(linked, name) {
  const pattern = name && patternOf(linked, name);
  return pattern ? pattern.subarray(-linked.clean.length) : null;
}

const NEEDS_MODEL = "Attention patterns and direct effects need the model: circuit.show(model=model, task=task).";

function linkedCards(app, node) {             // what a node does on the prompt
  const { data, graph } = app, name = graph.component[node], kind = graph.kind[node];
  if (kind === "logits") return [];
  if (!data.linked) return [element("section", { class: "card", id: "needs-model" }, element("p", { class: "hint" }, NEEDS_MODEL))];
  return [kind === "head" ? patternCard(app, name) : null, effectCard(data.linked, name)].filter(Boolean);
}

function patternCard(app, name) {
  const linked = app.data.linked, pattern = patternOf(linked, name), n = linked.clean.length;
  const card = element("section", { class: "card", id: "attention" }, element("h3", {}, "Attention"));
  if (!pattern) {
    card.append(element("p", { class: "hint" }, "No room: patterns of the strongest " + count(linked.heads.length) + " heads are kept."));
    return card;
  }
  const plot = element("div", { id: "pattern", role: "img", "aria-label": "Attention pattern of " + name });
  card.append(plot, element("p", { class: "hint" }, "Rows look at columns: the more, the stronger the colour."));
  const palette = app.picture.palette(), tokens = linked.clean.map((token) => plotlyText(visible(token.length > 11 ? token.slice(0, 10) + "\u2026" : token)));
  const step = Math.ceil(n / 24), ticks = Array.from({ length: Math.ceil(n / step) }, (_, at) => at * step);
  const axis = { tickvals: ticks, ticktext: ticks.map((at) => tokens[at]), tickfont: { size: 11, color: palette.ink }, fixedrange: true, showgrid: false, zeroline: false, ticks: "" };
  const z = Array.from({ length: n }, (_, query) => Array.from({ length: n }, (_, key) => (key > query ? null : pattern[query * n + key] / 255)));
  const text = z.map((row, query) => row.map((value, key) => (value === null ? "" : tokens[query] + " \u2192 " + tokens[key] + ": " + value.toFixed(2))));
  requestAnimationFrame(() => plot.isConnected && Plotly.newPlot(plot, [{
    type: "heatmap", z, text, hovertemplate: "%{text}<extra></extra>", hoverongaps: false, showscale: false, zmin: 0, zmax: 1, xgap: 1, ygap: 1,
    colorscale: [[0, palette.panel], [1, palette.positive]],
  }], {
    xaxis: { ...axis, tickangle: -60, side: "bottom" }, yaxis: { ...axis, autorange: "reversed", scaleanchor: "x" }, autosize: true,
    margin: { l: 78, r: 4, t: 4, b: 72 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: palette.ink, font: { color: palette.panel } }, dragmode: false,
  }, { displayModeBar: false, responsive: true }));
  return card;
}

function effectCard(linked, name) {
  const effect = linked.effects[name];
  if (!effect) return null;
  const answers = (tokens) => tokens.slice(0, 3).map(visible).join(" / ");
  const question = linked.incorrect.length ? answers(linked.correct) + " over " + answers(linked.incorrect) : answers(linked.correct);
  return element("section", { class: "card", id: "direct-effect" }, element("h3", {}, "Direct effect"),
    element("p", {}, element("strong", { class: effect.direct < 0 ? "negative" : "positive" }, signed(effect.direct, 3)),
      " on the logits of ", element("q", {}, question), ", of " + signed(linked.logits, 3) + " in all."),
    element("div", { class: "pair" }, tokenList("Promotes", effect.promotes, "up"), tokenList("Suppresses", effect.suppresses, "down")),
    element("p", { class: "hint" }, "What it writes at the last position, through the final norm held at its scale."));
}
