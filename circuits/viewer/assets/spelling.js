// The spellings of a component in papers and other programs, as this page's names.

// { layer }: a whole layer; { name }: a head (a23.h3, a23h3, L23H3, 23.3) or an MLP (m20, MLP 20, L20 MLP); else null.
function spelled(text) {
  const written = text.trim().toLowerCase(), number = (digits) => String(Number(digits));
  const layer = /^l(?:ayer)? ?(\d+)$/.exec(written);
  if (layer) return { layer: Number(layer[1]) };
  const head = /^(?:a|l|layer )? ?(\d+)(?: ?\.? ?h(?:ead)? ?|\.)(\d+)$/.exec(written);
  if (head) return { name: "a" + number(head[1]) + ".h" + number(head[2]) };
  const mlp = /^(?:m|mlp) ?\.?(\d+)$/.exec(written) || /^l(?:ayer )?(\d+)[ .]?mlp$/.exec(written);
  return mlp ? { name: "m" + number(mlp[1]) } : null;
}
