// Influence and what is cut off by it, as `AttributionGraph.prune` does it: N = rows normalised, infl = p (N + N^2 + ...).

function sharesOf(trace, counted) {           // of the row of each link's target
  const sums = new Float64Array(trace.n);
  for (let link = 0; link < trace.m; link++) sums[trace.target[link]] += counted[link];
  return counted.map((value, link) => value / Math.max(sums[trace.target[link]], 1e-10));
}

function flowOf(trace, shares, chances) {
  const total = new Float64Array(trace.n);
  let step = chances, left = true;
  for (let round = 0; left && round < trace.n; round++) {
    const next = new Float64Array(trace.n);
    for (let link = 0; link < trace.m; link++) next[trace.source[link]] += step[trace.target[link]] * shares[link];
    left = next.some((value) => value > 0);
    next.forEach((value, node) => { total[node] += value; });
    step = next;
  }
  return total;
}

function least(values, share) {               // the smallest of the largest values that hold a share of the sum
  const ordered = Float64Array.from(values).sort().reverse();
  const sum = ordered.reduce((a, b) => a + b, 0);
  if (!sum) return Infinity;
  if (share >= 1) return Number.MIN_VALUE;
  let held = 0, at = 0;
  while (at < ordered.length - 1 && (held += ordered[at]) / sum < share) at++;
  return ordered[at];
}

// The nodes and links that hold these shares of the influence, and how much of it each link carries.
function cutOf(trace, nodes, edges) {
  const { n, m, source, target, rest, missed, unit } = trace, everything = trace.pruned && nodes >= 1 && edges >= 1;
  const found = flowOf(trace, sharesOf(trace, trace.counted), trace.chances).map((value, node) => (rest[node] ? 0 : value));
  const enough = least(found, nodes);
  const kept = Uint8Array.from(found, (value, node) => everything || value >= enough || rest[node] || trace.token[node] || trace.logit[node]);
  const inside = trace.counted.map((value, link) => (kept[source[link]] && kept[target[link]] ? value : 0));
  const shares = sharesOf(trace, inside), flow = flowOf(trace, shares, trace.chances);
  const carried = shares.map((value, link) => value * (flow[target[link]] + trace.chances[target[link]]));
  const counted = carried.map((value, link) => (rest[source[link]] ? 0 : value)), strong = least(counted, edges);
  const links = Uint8Array.from(counted, (value, link) => everything
    || (rest[source[link]] ? carried[link] > 0 || trace.pruned : value >= strong && value > 0));
  for (let lost = !everything; lost;) {       // what leads nowhere, and units that come from nowhere
    const leads = new Uint8Array(n), comes = new Uint8Array(n);
    for (let link = 0; link < m; link++) {
      if (!kept[source[link]] || !kept[target[link]]) links[link] = 0;
      if (links[link]) leads[source[link]] = comes[target[link]] = 1;
    }
    lost = false;
    for (let node = 0; node < n; node++)
      if (kept[node] && !rest[node] && (((unit[node] || missed[node]) && !leads[node]) || (unit[node] && !comes[node]))) { kept[node] = 0; lost = true; }
  }
  return { kept, links, carried };
}
