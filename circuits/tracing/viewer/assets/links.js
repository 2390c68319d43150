// Links as curves from the top of what gives to the bottom of what takes; a few paths in all, one a colour and width.

const LEVELS = [[0.6, 4.2, 0.9], [0.3, 3.2, 0.85], [0.12, 2.3, 0.75], [0.04, 1.6, 0.6], [0.012, 1.1, 0.45], [0, 0.7, 0.28]];   // share, width, opacity
const DRAWN_LIMIT = 4000, SAMPLES = 14;

function curveOf(link, things) {              // four points of a Bezier curve
  const a = things[link.source], b = things[link.target], reach = (thing) => (thing.tall ? thing.tall / 2 : thing.r + 2);
  if (link.missed && a.kind === "remainder") {
    const x = a.x + a.wide / 2, y = Math.min(b.y + 14, a.y + a.tall / 2), end = b.x - (b.tall ? b.wide / 2 : b.r + 2);
    return [x, y, x + 0.6 * (end - x), y, end - 24, b.y + 3, end, b.y];
  }
  const y0 = a.y - reach(a), y1 = b.y + reach(b), bend = Math.max(16, 0.45 * Math.abs(y0 - y1));
  return [a.x, y0, a.x, y0 - bend, b.x, y1 + bend, b.x, y1];
}

function along([x0, y0, x1, y1, x2, y2, x3, y3], t) {
  const u = 1 - t, a = u * u * u, b = 3 * u * u * t, c = 3 * u * t * t, d = t * t * t;
  return [a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3];
}

function pathText(curve) {
  const [x0, y0, ...rest] = curve.map((value) => value.toFixed(1));
  return "M" + x0 + " " + y0 + "C" + rest.join(" ");
}

// Paths with their colours, the weakest first: what is not explained is grey and dashed, below everything else.
function pathsOf(links, things, palette, lit) {
  const largest = (missed) => Math.max(...links.filter((link) => link.missed === missed).map(({ carried }) => carried), 1e-30);
  const most = [largest(0), largest(1)], buckets = new Map();
  for (const link of links) {
    const level = LEVELS.findIndex(([share]) => link.carried >= share * most[link.missed]);
    const tone = link.missed ? "missed" : link.weight < 0 ? "negative" : "positive", bright = !lit || lit(link);
    const key = [bright ? 1 : 0, link.missed ? 0 : 1, LEVELS.length - level, tone].join("/");
    if (!buckets.has(key)) buckets.set(key, { level, tone, bright, parts: [] });
    buckets.get(key).parts.push(pathText(link.curve));
  }
  return [...buckets].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { level, tone, bright, parts }]) => {
    const missed = tone === "missed", [, width, opacity] = LEVELS[level];
    return { d: parts.join(""), fill: "none", stroke: missed ? palette.missed : palette[tone], "stroke-width": missed ? Math.min(width, 1.4) : width,
      "stroke-opacity": (missed ? Math.min(0.4, opacity) : opacity) * (bright ? 1 : 0.13), "stroke-dasharray": missed ? "2 4" : null, "stroke-linecap": "round", class: "links " + tone };
  });
}

function nearestLink(links, x, y, least = 7) {
  let best = null, distance = least * least;
  for (const link of links) {
    const [x0, y0, , , , , x3, y3] = link.curve;
    if (x < Math.min(x0, x3) - 60 || x > Math.max(x0, x3) + 60 || y < Math.min(y0, y3) - 30 || y > Math.max(y0, y3) + 30) continue;
    link.samples ||= Array.from({ length: SAMPLES + 1 }, (_, at) => along(link.curve, at / SAMPLES));
    for (let at = 0; at < SAMPLES; at++) {
      const [ax, ay] = link.samples[at], [bx, by] = link.samples[at + 1], dx = bx - ax, dy = by - ay;
      const t = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / Math.max(dx * dx + dy * dy, 1e-9)));
      const d = (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2;
      if (d < distance) { distance = d; best = link; }
    }
  }
  return best;
}
