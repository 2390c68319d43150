// The circuit as arrays: nodes by number, the strongest first. What is known of a node stands by its name without position.

function makeNodes(data) {
  const { nodes, known } = data, names = nodes.name, m = names.length, own = names.map((name) => name.replace(/@\d+$/, ""));
  const score = Float64Array.from(decode(nodes.score, Float32Array)), alike = new Map();
  own.forEach((name, node) => alike.set(name, [...(alike.get(name) || []), node]));
  return {
    names, own, m, alike, score, strength: score.map(Math.abs), total: nodes.total, mass: nodes.mass,
    row: decode(nodes.row, Uint16Array), unit: decode(nodes.unit, Uint32Array), span: nodes.span === null ? null : decode(nodes.span, Uint16Array),
    index: new Map(names.map((name, node) => [name, node])),
    moved: (node) => known.moved[own[node]] || null,
    direct: (node) => known.direct[own[node]] ?? null,
    activations: (node) => known.activations[own[node]] || null,
  };
}

function rowName(data, row) { return data.level === "feature" ? data.rows.name[row] : "layer " + data.rows.name[row]; }

function placeName(data, span) {              // a position, and the token that stands there in the prompt that was run
  const { position, token } = data.spans;
  return "position " + position[span] + (token[span] === null ? "" : " \u201c" + visible(token[span]) + "\u201d");
}

function promotedText(nodes, node, most) {
  const moved = nodes.moved(node);
  return moved ? moved[0].slice(0, most).map(([token]) => visible(token)).join(" ") : "";
}
