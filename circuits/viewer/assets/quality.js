// How good the circuit is: what was measured of it, line by line, and what must be known of the page's prompts.

function qualityCard({ quality }) {
  if (!quality || !quality.lines.length) return null;
  const lines = quality.lines.map(([name, value, meaning]) => element("div", { title: meaning }, element("dt", {}, name), element("dd", {}, value, element("small", {}, meaning))));
  return element("section", { class: "card", id: "quality" }, element("h2", {}, "How good is it"), element("dl", { class: "figures wide" }, ...lines), element("p", { class: "hint", id: "unit" }, quality.unit));
}

function showNotes({ notes }) {
  const box = byId("notes");
  box.hidden = !notes || !notes.length;
  if (!box.hidden) box.textContent = notes.join(" ");
}
