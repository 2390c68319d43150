// The strongest of what passes the filters, by one of three cuts: a threshold, a number, a share of the sum of |score|.

const STEPS = 1000;                           // of each slider up to the circuit
const BEYOND = 250;                           // further ones of the number, for edges beside the circuit

function ofSign(score, sign) { return sign === "both" || (sign === "positive") === score >= 0; }

// Strongest first, as the graph has them, with running sums of strength. The first `chosen` are those of the circuit;
// behind them stand those that it can grow by, which only a number of edges reaches.
function passing(graph, passes) {
  const list = new Uint32Array(graph.m), sums = new Float64Array(graph.m), most = graph.chosen ?? graph.m;
  let length = 0, sum = 0, chosen = 0;
  for (let one = 0; one < graph.m; one++) {
    if (!passes(one)) continue;
    if (one < most) { sum += graph.strength[one]; chosen++; }
    list[length] = one;
    sums[length++] = sum;
  }
  return { list: list.subarray(0, length), sums: sums.subarray(0, length), total: sum, chosen };
}

function lastPositive(graph, { list, chosen }) {   // the smallest strength above zero
  let at = chosen - 1;
  while (at > 0 && graph.strength[list[at]] <= 0) at--;
  return at >= 0 ? graph.strength[list[at]] : 0;
}

function firstBelow(length, enough) {         // how many of a sorted list pass
  let low = 0, high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (enough(middle)) low = middle + 1; else high = middle;
  }
  return low;
}

function keptBy(graph, pass, cut) {           // how many of those that pass a cut keeps
  const n = pass.chosen;
  if (cut !== null && cut.by === "top") return Math.min(pass.list.length, Math.round(cut.value));
  if (cut === null || n === 0) return n;
  if (cut.by === "threshold") return firstBelow(n, (at) => graph.strength[pass.list[at]] >= cut.value);
  return cut.value >= 1 ? n : Math.min(n, 1 + firstBelow(n, (at) => pass.sums[at] < cut.value * pass.total * (1 - 1e-9)));
}

// slider position <-> value; threshold and top-k on logarithmic scales
const SCALES = {
  threshold: {
    value(graph, pass, at) {
      const n = pass.chosen;
      if (at === 0 || n === 0) return 0;
      const largest = graph.strength[pass.list[0]], smallest = lastPositive(graph, pass) || largest;
      return Math.min(largest, smallest * Math.pow(largest / smallest, at / STEPS));
    },
    position(graph, pass, kept) {
      const n = pass.chosen;
      if (kept >= n || n === 0) return 0;
      const largest = graph.strength[pass.list[0]], smallest = lastPositive(graph, pass) || largest;
      const weakest = kept ? graph.strength[pass.list[kept - 1]] : largest;
      return largest > smallest && weakest > 0 ? Math.round(STEPS * Math.log(weakest / smallest) / Math.log(largest / smallest)) : 0;
    },
  },
  top: {
    value(graph, { list, chosen }, at) {
      const own = Math.max(1, chosen);
      return Math.round(at <= STEPS ? Math.pow(own, at / STEPS) : own * Math.pow(list.length / own, (at - STEPS) / BEYOND));
    },
    position(graph, { list, chosen }, kept) {
      const own = Math.max(1, chosen);
      if (kept > own) return STEPS + Math.round(BEYOND * Math.log(kept / own) / Math.log(list.length / own));
      return own > 1 ? Math.round(STEPS * Math.log(Math.max(1, kept)) / Math.log(own)) : STEPS;
    },
  },
  mass: {
    value: (graph, pass, at) => at / STEPS,
    position: (graph, pass, kept) => (kept >= pass.chosen ? STEPS : Math.round(STEPS * massOf(pass, kept))),
  },
};

function massOf(pass, kept) { return kept === 0 || pass.total === 0 ? 0 : pass.sums[kept - 1] / pass.total; }
