// The prompt's tokens and direct effects, where the page was made with a model and a task.

function startPrompt(app) {
  const box = byId("prompt");
  if (!app.data.linked) return () => {};
  box.hidden = false;
  const note = element("p", { class: "hint", id: "prompt-note" }), strip = element("div", { class: "strip", tabindex: 0, "aria-label": "Tokens, clean above corrupted" });
  const all = element("button", { type: "button", class: "quiet", id: "all-heads", title: "The attention of every head that the page holds, as thumbnails", onclick: () => showAllHeads(app) }, "All heads");
  const menu = promptMenu(app);
  box.append(element("div", { class: "row" }, element("label", { for: "prompt-menu" }, "Prompt"), menu, all, note), strip);
  let drawn = null, cells = [];
  return function show(state, view) {         // on a head: where its last position looks
    const head = view.selected === null ? null : app.graph.component[view.selected];
    const linked = app.prompts.of(state.prompt), row = lastRow(linked, head, "clean");
    if (drawn !== linked) {
      strip.replaceChildren(tokenColumns(linked));
      cells = [...strip.querySelectorAll(".token.clean:not(.answer)")];
      const first = strip.querySelector(".differs");   // what long prompts share stands before it
      strip.scrollLeft = first ? Math.max(0, first.offsetLeft - strip.offsetLeft - strip.clientWidth / 3) : 0;
      drawn = linked;
    }
    menu.value = String(linked.example);
    cells.forEach((each, at) => each.style.setProperty("--looks", row ? row[at] / 255 : 0));
    note.textContent = row ? "Shaded: where " + head + " looks from the last position." : linked.clean.length ? "Framed: tokens that differ." : "The prompts are of different lengths: direct effects are averaged.";
  };
}

function tokenColumns({ clean, corrupted, correct, incorrect }) {
  const cell = (token, at, which) => element("span", { class: "token " + which + (clean[at] === corrupted[at] ? "" : " differs"), title: which + ", token " + at + ": " + JSON.stringify(token) }, visible(token));
  const column = (kind, ...held) => element("span", { class: "column " + kind }, ...held);
  const answer = (tokens, which, title) => element("span", { class: "token answer " + which, title }, tokens.length ? "\u2192 " + tokens.slice(0, 4).map(visible).join(" / ") : " ");
  return element("div", { class: "columns" }, column("names", element("span", { class: "name" }, "clean"), element("span", { class: "name" }, "corrupted")),
    ...clean.map((token, at) => column("", cell(token, at, "clean"), cell(corrupted[at], at, "corrupted"))),
    column("answers", answer(correct, "clean", "the correct answer"), answer(incorrect, "corrupted", "the incorrect answer")));
}

const NEEDS_MODEL = "Attention patterns, direct effects and knocking out need the model: circuit.show(model=model, task=task).";

function linkedCards(app, node) {             // what a node does on the prompt
  const { data, graph } = app, name = graph.component[node], kind = graph.kind[node];
  if (kind === "logits") return [];
  if (!data.linked) return [element("section", { class: "card", id: "needs-model" }, element("p", { class: "hint" }, NEEDS_MODEL))];
  return [knockCard(app, [name]), kind === "head" ? patternCard(app, name) : null, effectCard(app.prompts.of(app.state.prompt), name)].filter(Boolean);
}

function effectCard(linked, name) {
  const effect = linked.effects[name];
  if (!effect) return null;
  const answers = (tokens) => tokens.slice(0, 3).map(visible).join(" / "), mean = linked.example === "mean";
  const question = linked.incorrect.length ? answers(linked.correct) + " over " + answers(linked.incorrect) : answers(linked.correct);
  const over = mean ? ["the answer, the mean over " + count(linked.n) + " prompts"] : [element("q", {}, question)];
  return element("section", { class: "card", id: "direct-effect" }, element("h3", {}, "Direct effect"),
    element("p", {}, element("strong", { class: effect.direct < 0 ? "negative" : "positive" }, signed(effect.direct, 3)),
      " on the logits of ", ...over, ", of " + signed(linked.logits, 3) + " in all."),
    mean ? null : element("div", { class: "pair" }, tokenList("Promotes", effect.promotes, "up"), tokenList("Suppresses", effect.suppresses, "down")),
    element("p", { class: "hint" }, "What it writes at the last position, through the final norm held at its scale."));
}
