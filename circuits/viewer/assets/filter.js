// Which edges may be kept: by sign, port and membership.

function passesOf(graph, state) {
  const ports = PORTS.map((port) => state.ports.includes(port));
  const members = [0, 1, 2].map((member) => state.members.includes(String(member)));
  return (edge) => ports[graph.port[edge]] && ofSign(graph.score[edge], state.sign) && (!graph.member || members[graph.member[edge]]);
}
