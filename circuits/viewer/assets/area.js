// Which part of the layout is in sight, and where on the page it lies: numbers to pixels and back, zoom and moves.

const EDGES_ROOM = { left: 58, right: 14, top: 26, bottom: 34, words: 78 };  // pixels around the picture; below it for words
const CLOSEST = 40;                           // times that a zoom enlarges at most

function makeArea(plot) {
  let zoom = null;                            // { mode, x, y }: ranges, as long as the columns stay

  // Of a picture of a size, `above` pixels below its top.
  function of(layout, mode, words, { width, height }, above = 0) {
    const [x, y] = zoom && zoom.mode === mode ? [zoom.x, zoom.y] : [layout.opening || layout.xRange, layout.yRange];
    const { left, right, bottom, words: deep } = EDGES_ROOM, top = EDGES_ROOM.top + above;
    const wide = Math.max(1, width - left - right), tall = Math.max(1, height - EDGES_ROOM.top - (words ? deep : bottom));
    const perX = wide / (x[1] - x[0]), perY = tall / (y[1] - y[0]);
    return {
      left, top, width: wide, height: tall, x, y, perX, perY, toX: (value) => left + (value - x[0]) * perX, toY: (value) => top + (y[1] - value) * perY,
      fromX: (pixel) => x[0] + (pixel - left) / perX, fromY: (pixel) => y[1] - (pixel - top) / perY,
    };
  }

  return {
    of, size: () => plot.getBoundingClientRect(), whole(layout, mode) { zoom = layout.opening ? { mode, x: layout.xRange, y: layout.yRange } : null; },
    shift(area, mode, dx, dy) { zoom = { mode, x: area.x.map((end) => end - dx / area.perX), y: area.y.map((end) => end + dy / area.perY) }; },
    scale(area, layout, mode, times, px, py) {  // around a pixel
      const least = (layout.xRange[1] - layout.xRange[0]) / CLOSEST, by = Math.max(times, least / (area.x[1] - area.x[0]));
      const around = (range, at) => range.map((end) => at + (end - at) * by);
      zoom = { mode, x: around(area.x, area.fromX(px)), y: around(area.y, area.fromY(py)) };
    },
  };
}
