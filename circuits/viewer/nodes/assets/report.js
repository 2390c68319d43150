// How faithful the circuit is: with its interval, beside random circuits of its size and all that it leaves out; and by size.

function faithfulness(app) {
  const { points, ladder } = app.data.report;
  if (!points.length && ladder.length < 2) return [];
  const bySize = ladder.length > 1 ? [element("h4", {}, "By size, on the prompts that chose it"), ladderPicture(app, ladder)] : [];
  return [element("section", { id: "faithfulness", "aria-label": "Faithfulness" }, element("h2", {}, "Faithfulness"), ...(points.length ? [pointsPicture(points)] : []), ...bySize)];
}

function pointsPicture(points) {              // a line each: the value, and its interval
  const width = 236, left = 8, right = 8, values = points.flatMap(([, value, interval]) => [value, ...(interval || [])]);
  const low = Math.min(0, ...values), high = Math.max(1, ...values), at = (value) => left + (width - left - right) * (value - low) / (high - low);
  const height = 38 * points.length + 18, parts = [];
  for (const [value, text] of [[0, "0"], [1, "1"]])
    parts.push(shape("line", { x1: at(value), x2: at(value), y1: 0, y2: height - 16, class: "rule" }), shape("text", { x: at(value), y: height - 4, "text-anchor": "middle" }, text));
  points.forEach(([name, value, interval], line) => {
    const y = 38 * line + 26, kind = line ? "other" : "own";
    parts.push(shape("text", { x: 2, y: y - 12, class: "called" }, name), shape("text", { x: width - 2, y: y - 12, "text-anchor": "end", class: "called" }, intervalText(value, interval)));
    if (interval) parts.push(shape("line", { x1: at(interval[0]), x2: at(interval[1]), y1: y, y2: y, class: "whisker " + kind }));
    parts.push(shape("circle", { cx: at(value), cy: y, r: 4.5, class: "point " + kind }));
  });
  const told = points.map(([name, value, interval]) => name + " " + intervalText(value, interval)).join("; ");
  return shape("svg", { id: "points", viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "Faithfulness with 95 % intervals: " + told }, ...parts);
}

function ladderPicture(app, ladder) {         // over log size; a line at what the circuit has
  const width = 236, height = 92, most = Math.max(...ladder.map(([size]) => size)), least = Math.min(...ladder.map(([size]) => size));
  const values = ladder.map(([, value]) => value), low = Math.min(0, ...values), high = Math.max(1, ...values);
  const x = (size) => 26 + (width - 36) * Math.log(size / least) / Math.max(Math.log(most / least), 1e-9), y = (value) => 8 + (height - 26) * (high - value) / (high - low);
  const parts = [[0, "0"], [1, "1"]].flatMap(([value, text]) => [shape("line", { x1: 26, x2: width - 4, y1: y(value), y2: y(value), class: "rule" }), shape("text", { x: 20, y: y(value) + 3.5, "text-anchor": "end" }, text)]);
  const size = Math.min(most, Math.max(least, app.nodes.total));
  parts.push(shape("line", { x1: x(size), x2: x(size), y1: 4, y2: height - 18, class: "here" }), shape("path", { d: ladder.map(([one, value], at) => (at ? "L" : "M") + x(one).toFixed(1) + " " + y(value).toFixed(1)).join(""), class: "curve" }));
  for (const [one, value] of ladder) parts.push(shape("circle", { cx: x(one), cy: y(value), r: 2.6, class: "step" }, shape("title", {}, counted(one, "node") + ": " + value.toFixed(3))));
  parts.push(shape("text", { x: 26, y: height - 4 }, count(least)), shape("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, count(most)));
  return shape("svg", { id: "ladder", viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "Faithfulness by number of nodes: " + ladder.map(([one, value]) => one + ": " + value.toFixed(2)).join(", ") }, ...parts);
}
