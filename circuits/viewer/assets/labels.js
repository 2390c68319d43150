// Names beside marks, in the order given, each where it runs into nothing. Boxes are [left, top, right, bottom].

function boxOf({ x, y, r }) { return [x - r - 1, y - r - 1, x + r + 1, y + r + 1]; }

function namesBeside(marks, taken, within, always, most = 110) {   // `always`: also where it runs into something; `most`: pixels
  const named = [];
  for (const mark of marks) {
    const text = clipped(mark.word, most), long = LETTER * 0.97 * [...text].length, gap = mark.r + 5;
    const spots = [[gap, 4, "start"], [-gap, 4, "end"], [0, -gap - 2, "middle"], [0, gap + 10, "middle"]];
    const boxes = spots.map(([x, y, anchor]) => {
      const left = mark.x + x - (anchor === "end" ? long : anchor === "middle" ? long / 2 : 0);
      return [left, mark.y + y - 10, left + long, mark.y + y + 2];
    });
    const free = (box) => within(box) && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    let at = boxes.findIndex(free);
    if (at < 0 && !always(mark)) continue;
    at = at < 0 ? Math.max(boxes.findIndex(within), 0) : at;
    taken.push(boxes[at]);
    const [x, y, anchor] = spots[at];
    named.push({ mark, text, at: { x: (mark.x + x).toFixed(1), y: (mark.y + y).toFixed(1), "text-anchor": anchor } });
  }
  return named;
}
