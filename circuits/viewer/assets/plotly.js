// All that this page asks of plotly.js beyond its public functions. plotly has no public word for where on the page its
// plotting area lies, nor for the ranges that it shows after a zoom; both are needed to draw WebGL's edges exactly below
// it, to find the edge under the pointer, and to export what is in sight. When a release of plotly.js renames one of
// these, tests/browser/test_views.py and test_exports.py fail.

// `_fullLayout` (with `_size`: margins and size in pixels) and an axis' `l2p`, from a number to pixels within the area.
function drawnArea(plot) {
  const full = plot._fullLayout;
  if (!full) return null;                     // nothing was drawn yet
  const { l: left, t: top, w: width, h: height } = full._size, { xaxis, yaxis } = full;
  return { left, top, width, height, x: xaxis.range, y: yaxis.range, revision: full.uirevision,
    toX: (value) => xaxis.l2p(value), toY: (value) => yaxis.l2p(value) };
}
