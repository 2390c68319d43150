"""Hidden states as a finite automaton: which are one but for noise, and which no later answer tells apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]
Whole = NDArray[np.int64]
SAME = 1e-7  # of the largest entry: rounding
GAP = 8.0  # distances within a cluster and between clusters differ by at least this factor
SURE = 1000.0  # the same where most clusters are single points, which say little of the noise
MOST = 1500  # points that are clustered; others go to the nearest


def clustered(points: Points) -> tuple[Points, Whole]:
    """Means [cluster, hidden] of points [n, hidden] that are one state but for noise, and each point's cluster [n].

    Single linkage, cut where the distances of merging make their largest jump; where none is larger than `GAP` (than
    `SURE`, if that would join less than half of the points), every point is a state of its own, but for rounding.
    """
    grain = SAME * max(float(np.abs(points).max()), 1e-300)
    unique, which = np.unique((points / grain).round(), axis=0, return_inverse=True)
    unique, which = unique * grain, which.reshape(-1)
    if len(unique) < 3:
        return unique, which
    chosen = np.random.default_rng(0).permutation(len(unique))[:MOST]
    merges = linkage(unique[chosen], "single")
    steps = np.maximum(merges[:, 2], 10 * grain)
    jumps = steps[1:] / steps[:-1]
    largest = int(jumps.argmax())
    many = 2 * (len(chosen) - 1 - largest) > len(chosen)
    if jumps[largest] < (SURE if many else GAP):
        return unique, which
    labels = fcluster(merges, np.sqrt(steps[largest] * steps[largest + 1]), "distance") - 1
    means = np.array([unique[chosen][labels == label].mean(0) for label in range(labels.max() + 1)])
    return means, cdist(unique, means).argmin(1)[which]


@dataclass(frozen=True, eq=False)
class Table:
    """What a network does from state to state, by state and input as far as they were seen.

    Attributes:
        rows: [(state, input)] to the next state; states and inputs as tuples of whole numbers.
        outputs: what is said in each state.
        start: the state before anything was read.
    """

    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]
    outputs: dict[tuple[int, ...], tuple[int, ...]]
    start: tuple[int, ...]


def tabulated(states: Whole, x: Whole, y: Whole, start: tuple[int, ...]) -> Table | None:
    """A table of states [n, pos, dim] behind inputs [n, pos, inputs] with outputs [n, pos, outputs].

    None where one state goes to two under one input, or says two things: it is no state then.
    """
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}
    outputs: dict[tuple[int, ...], tuple[int, ...]] = {}
    for path, read, said in zip(states.tolist(), x.tolist(), y.tolist(), strict=True):
        before = start
        for state, inputs, out in zip(map(tuple, path), map(tuple, read), map(tuple, said), strict=True):
            if rows.setdefault((before, inputs), state) != state or outputs.setdefault(state, out) != out:
                return None
            before = state
    return Table(rows, outputs, start)


def restarted(table: Table, start: tuple[int, ...]) -> Table | None:
    """The table that begins in the state `start`; None where that goes on otherwise than the old beginning did."""
    for (state, read), following in table.rows.items():
        if state == table.start and table.rows.get((start, read), following) != following:
            return None
    rows = {key: value for key, value in table.rows.items() if key[0] != table.start or table.start in table.outputs}
    return Table(rows, table.outputs, start)


def minimal(table: Table) -> Table:
    """States that say the same now and later are one (Moore 1956); they are numbered as they first come.

    An input that was never seen in a state counts as a way of its own. The start says nothing, and is one with any
    state that goes where it goes.
    """
    states = sorted({*table.outputs, table.start})
    reads = sorted({read for _, read in table.rows})
    silent = table.start not in table.outputs
    said = {state: table.outputs.get(state) for state in states}
    group = {state: sorted({str(out) for out in said.values()}).index(str(said[state])) for state in states}
    while True:
        keys = {
            state: (group[state], *(group.get(table.rows.get((state, read), ()), -1) for read in reads))
            for state in states
        }
        finer = {key: index for index, key in enumerate(sorted(set(keys.values())))}
        new = {state: finer[keys[state]] for state in states}
        if len(set(new.values())) == len(set(group.values())):
            break
        group = new
    if silent:
        onward = {read: group[table.rows[table.start, read]] for read in reads if (table.start, read) in table.rows}
        for state in states:
            goes = {read: group[table.rows[state, read]] for read in onward if (state, read) in table.rows}
            if state != table.start and goes == onward:
                group[table.start] = group[state]
                break
    order = {old: index for index, old in enumerate(dict.fromkeys(group[state] for state in states))}
    name: dict[tuple[int, ...], tuple[int, ...]] = {state: (order[group[state]],) for state in states}
    rows = {(name[state], read): name[following] for (state, read), following in table.rows.items()}
    outputs = {name[state]: out for state, out in table.outputs.items()}
    return Table(rows, outputs, name[table.start])
