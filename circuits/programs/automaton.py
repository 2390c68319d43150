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

    They begin as one for each output, and are parted where the same input leads them to different ones; what was never
    seen parts nothing. The start says nothing: it is one with states that go where it goes, of several with those that
    share most inputs with it.
    """
    silent = table.start not in table.outputs
    known = {out: index for index, out in enumerate(sorted(set(table.outputs.values())))}
    group = {state: known[out] for state, out in table.outputs.items()}
    if silent:
        group[table.start] = len(known)
    while (parted := _parted(table, group)) is not None:
        group = parted
    if silent:
        rows = {(group[state], read): group[following] for (state, read), following in table.rows.items()}
        onward = {read: to for (one, read), to in rows.items() if one == group[table.start]}
        shared = {one: {read for read in onward if (one, read) in rows} for one in group.values()}
        alike = [
            one for one, reads in shared.items()
            if one != group[table.start] and reads and all(rows[one, read] == onward[read] for read in reads)
        ]  # fmt: skip
        group[table.start] = max(alike, key=lambda one: len(shared[one]), default=group[table.start])
    order = {old: index for index, old in enumerate(dict.fromkeys(group.values()))}
    name: dict[tuple[int, ...], tuple[int, ...]] = {state: (order[one],) for state, one in group.items()}
    merged = {(name[state], read): name[following] for (state, read), following in table.rows.items()}
    return Table(merged, {name[state]: out for state, out in table.outputs.items()}, name[table.start])


def _parted(table: Table, group: dict[tuple[int, ...], int]) -> dict[tuple[int, ...], int] | None:
    """Groups of states of which one is split, by where an input leads; None where all go together."""
    leads: dict[tuple[int, tuple[int, ...]], int] = {}
    for (state, read), following in table.rows.items():
        if leads.setdefault((group[state], read), group[following]) != group[following]:
            new = max(group.values()) + 1
            away = {
                one for (one, other), to in table.rows.items()
                if other == read and group[one] == group[state] and group[to] == group[following]
            }  # fmt: skip
            return {one: new if one in away else old for one, old in group.items()}
    return None
