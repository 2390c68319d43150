// Which prompt is shown: one of those that the page holds, or the mean over all of them.

function makePrompts(data) {
  const all = data.linked ? [data.linked, ...data.others].sort((a, b) => a.example - b.example) : [];
  for (const one of all) one.runs = { clean: decode(one.patterns, Uint8Array), corrupted: decode(one.corruptedPatterns, Uint8Array) };
  const mean = all.length > 1 ? meanPrompt(all) : null;
  return {
    all, known: (chosen) => chosen === "mean" ? mean !== null : all.some(({ example }) => String(example) === chosen),
    of: (chosen) => (chosen === "mean" && mean) || all.find(({ example }) => String(example) === chosen) || data.linked,
  };
}

// Direct effects and, where all prompts are of one length and a head is held in each, attention, averaged over prompts.
function meanPrompt(all) {
  const [first] = all, same = all.every(({ clean }) => clean.length === first.clean.length), size = first.clean.length ** 2;
  const common = (texts) => texts.map((token, at) => (texts.length && all.every((one) => one[texts === first.clean ? "clean" : "corrupted"][at] === token) ? token : "\u2026"));
  const heads = same ? first.heads.filter((name) => all.every((one) => one.heads.includes(name))) : [];
  const runs = Object.fromEntries(["clean", "corrupted"].map((run) => {
    const sums = new Float32Array(heads.length * size);
    heads.forEach((name, place) => all.forEach((one) => {
      const from = one.heads.indexOf(name) * size;
      for (let at = 0; at < size; at++) sums[place * size + at] += one.runs[run][from + at] / all.length;
    }));
    return [run, sums];
  }));
  const mean = (value) => all.reduce((sum, one) => sum + value(one), 0) / all.length;
  const effects = Object.fromEntries(Object.keys(first.effects).map((name) => [name, { direct: mean((one) => one.effects[name].direct), promotes: [], suppresses: [] }]));
  return { example: "mean", clean: same ? common(first.clean) : [], corrupted: same ? common(first.corrupted) : [], correct: [], incorrect: [], heads, runs, effects, logits: mean(({ logits }) => logits), n: all.length };
}

function promptMenu(app) {
  const { all } = app.prompts, text = ({ example, clean, correct }) => example + ": " + clean.slice(-7).join("").trim() + " \u2192 " + correct.slice(0, 1).join("");
  const menu = element("select", { id: "prompt-menu", title: "The prompt whose tokens, attention and direct effects are shown" }, ...all.map((one) => element("option", { value: String(one.example) }, text(one))),
    ...(all.length > 1 ? [element("option", { value: "mean" }, "mean over these " + count(all.length))] : []));
  menu.addEventListener("change", () => app.change({ prompt: menu.value }));
  return menu;
}
