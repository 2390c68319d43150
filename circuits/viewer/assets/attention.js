// Attention: of a head on the clean and on the corrupted prompt and their difference, large at a click, and of all heads as
// thumbnails. Patterns are in steps of 1/255.

const RUNS = [["clean", "clean"], ["corrupted", "corrupted", "The same head on the corrupted prompt"], ["difference", "difference", "Clean less corrupted"]];
const PATTERN = { left: 78, below: 72 };      // pixels for the tokens' names
const GAPLESS = 40;                           // tokens, from which cells are drawn without a gap

function patternOf(linked, name, run = "clean") {   // [query * length + key], or null
  const place = linked.heads.indexOf(name), size = linked.clean.length ** 2;
  if (place < 0) return null;
  if (run !== "difference") return linked.runs[run].subarray(place * size, (place + 1) * size);
  const [clean, corrupted] = ["clean", "corrupted"].map((one) => patternOf(linked, name, one));
  return Float32Array.from(clean, (value, at) => value - corrupted[at]);
}

function lastRow(linked, name, run) {
  const pattern = name && patternOf(linked, name, run);
  return pattern ? pattern.subarray(-linked.clean.length) : null;
}

function patternCard(app, name) {
  const linked = app.prompts.of(app.state.prompt), { run } = app.state, pattern = patternOf(linked, name, run);
  const card = element("section", { class: "card", id: "attention" }, element("h3", {}, "Attention"));
  if (!pattern) {
    card.append(element("p", { class: "hint" }, linked.example === "mean" ? "No mean: the prompts are of different lengths, or there is no room for this head in each." : "No room: patterns of the strongest " + count(linked.heads.length) + " heads are kept."));
    return card;
  }
  const which = choices("run", "Prompt", "radio", RUNS, ([value]) => app.change({ run: value }));
  which.show([run]);
  const plot = element("div", { id: "pattern", role: "img", tabindex: 0, "aria-label": "Attention pattern of " + name + ", " + run + "; Enter or a click enlarges it" });
  card.append(which.set, plot, element("p", { class: "hint" }, run === "difference" ? "Rows look at columns: blue more, orange less than on the corrupted prompt. Click to enlarge." : "Rows look at columns: the more, the stronger the colour. Click to enlarge."), layerHeads(app, name));
  const enlarge = () => showLarge(app, name);
  plot.addEventListener("click", enlarge);
  plot.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(); });
  requestAnimationFrame(() => plot.isConnected && drawPattern(app, plot, linked, pattern, run, 24, 11));
  return card;
}

function drawPattern(app, plot, linked, pattern, run, labelled, letters) {
  const n = linked.clean.length, palette = app.picture.palette(), tokens = linked.clean.map((token) => visible(token.length > letters ? token.slice(0, letters - 1) + "\u2026" : token));
  const canvas = element("canvas", {}), tip = element("div", { class: "tip", hidden: true }), shown = makeTip(tip);
  plot.replaceChildren(canvas, tip);
  const { width, height } = plot.getBoundingClientRect(), side = Math.max(1, Math.min(width - PATTERN.left - 4, height - PATTERN.below - 4)), cell = side / n, gap = n < GAPLESS ? 1 : 0, pen = freshPen(canvas);
  const toX = (key) => PATTERN.left + key * cell, toY = (query) => 4 + query * cell;
  for (let query = 0; query < n; query++)
    for (let key = 0; key <= query; key++) {
      const value = pattern[query * n + key] / 255;
      pen.box(toX(key), toY(query), cell - gap, cell - gap, { fill: value < 0 ? palette.negative : palette.positive, alpha: Math.abs(value) });
    }
  pen.line([toX(0), toY(0), toX(0), toY(n), toX(n), toY(n)], { colour: palette.faint });
  for (let at = 0; at < n; at += Math.ceil(n / labelled)) {
    pen.text(toX(0) - 4, toY(at + 0.5) + 4, tokens[at], { colour: palette.ink, anchor: "end" });
    pen.text(toX(at + 0.5) + 4, toY(n) + 9, tokens[at], { colour: palette.ink, anchor: "end", turn: -60 });
  }
  plot.dataset.gap = gap;
  plot.values = Array.from({ length: n }, (_, query) => Array.from({ length: n }, (_, key) => (key > query ? null : pattern[query * n + key] / 255)));
  plot.onmousemove = (event) => {
    const box = canvas.getBoundingClientRect(), key = Math.floor((event.clientX - box.left - PATTERN.left) / cell), query = Math.floor((event.clientY - box.top - 4) / cell), value = plot.values[query]?.[key];
    if (value === undefined || value === null) shown.hide(); else shown.show(tokens[query] + " \u2192 " + tokens[key] + ": " + value.toFixed(2), event.clientX, event.clientY);
  };
  plot.onmouseleave = () => shown.hide();
}

function openSheet(title, ...content) {       // over the page until Esc or its button
  const close = element("button", { type: "button", class: "quiet", onclick: () => sheet.close() }, "Close");
  const sheet = element("dialog", { class: "large", "aria-label": title }, element("div", { class: "row" }, element("h2", {}, title), close), element("div", { class: "scrolled" }, ...content));
  sheet.addEventListener("close", () => sheet.remove());
  sheet.addEventListener("keydown", (event) => event.stopPropagation());  // the page's own keys rest
  byId("app").append(sheet);
  sheet.showModal();
  return sheet;
}

function showLarge(app, name) {               // four pixels a token at least, and a label for each where there is room
  const linked = app.prompts.of(app.state.prompt), { run } = app.state, n = linked.clean.length, cell = Math.max(4, Math.min(26, Math.floor(900 / n)));
  const plot = element("div", { id: "large-pattern", role: "img", "aria-label": "Attention pattern of " + name, style: "width:" + (cell * n + 90) + "px;height:" + (cell * n + 84) + "px" });
  openSheet("Attention of " + name + ", " + run, plot);
  drawPattern(app, plot, linked, patternOf(linked, name, run), run, Math.floor(cell * n / 14), 14);
}

function thumbnail(app, linked, name) {       // a pixel for each pair of tokens
  const n = linked.clean.length, pattern = patternOf(linked, name, app.state.run), canvas = element("canvas", { width: n, height: n }), context = canvas.getContext("2d");
  const palette = app.picture.palette(), image = context.createImageData(n, n), [more, less] = [rgb(palette.positive), rgb(palette.negative)];
  pattern.forEach((value, at) => image.data.set([...(value < 0 ? less : more), Math.min(255, Math.abs(value))], 4 * at));
  context.putImageData(image, 0, 0);
  return element("button", { type: "button", class: "thumbnail", title: "Attention of " + name, "data-head": name, onclick: () => { document.querySelector("dialog.large")?.close(); app.select(name); } }, canvas, element("span", {}, name));
}

function layerHeads(app, name) {
  const linked = app.prompts.of(app.state.prompt), layer = layerOf(name), heads = linked.heads.filter((one) => layerOf(one) === layer).sort(byNumber);
  return element("details", { id: "layer-heads" }, element("summary", {}, "All heads of layer " + layer), element("div", { class: "thumbnails" }, ...heads.map((one) => thumbnail(app, linked, one))));
}

function showAllHeads(app) {
  const linked = app.prompts.of(app.state.prompt), heads = linked.heads.slice().sort((a, b) => layerOf(a) - layerOf(b) || byNumber(a, b));
  openSheet("Attention of all heads", element("div", { class: "thumbnails" }, ...heads.map((one) => thumbnail(app, linked, one))));
}

function byNumber(a, b) { return Number(a.split(".h")[1]) - Number(b.split(".h")[1]); }
