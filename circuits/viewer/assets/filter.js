// Which edges may be kept: by sign, port and membership, and of pinned nodes and groups alone.

function pickedNames(state) { return [...new Set([...state.pins, ...state.groups.flatMap(({ nodes }) => nodes)])]; }

function passesOf(graph, state) {
  const ports = PORTS.map((port) => state.ports.includes(port));
  const members = [0, 1, 2].map((member) => state.members.includes(String(member)));
  const picked = state.only ? new Set(pickedNames(state).map((name) => graph.index.get(name))) : null;
  return (edge) => (!picked || (picked.has(graph.source[edge]) && picked.has(graph.reader[edge]))) && ports[graph.port[edge]] && ofSign(graph.score[edge], state.sign) && (!graph.member || members[graph.member[edge]]);
}
