"""`find_program`: from a trained network to a program that was checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Generator

from circuits.programs.automaton import Table, clustered, minimal, restarted, tabulated
from circuits.programs.lattice import OFF, Lattice, gcd_lattice, linear_lattice
from circuits.programs.maps import Maps, fitted, shortest
from circuits.programs.normalising import normalised
from circuits.programs.result import Program
from circuits.programs.rnn import RNN
from circuits.programs.source import compiled, output_names, state_names
from circuits.programs.tasks import Numbers, SequenceTask
from interp.errors import InputError
from interp.numbers import BETWEEN, COUNT, checked
from metrics.statistics import share

Whole = NDArray[np.int64]
LARGE = 256  # clusters that an automaton is made of
MANY = 400  # states that Euclid's algorithm is run on


@checked(sequences=COUNT, fresh=COUNT, confidence=BETWEEN)
def find_program(
    rnn: RNN,
    task: SequenceTask,
    *,
    sequences: int = 600,
    fresh: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Program:
    """The program that a network computes (MIPS; Michaud et al. 2024, arXiv:2402.05110).

    The network is normalised; its hidden states become whole numbers: points of the lattice that a linear f spans, or
    of one found by Euclid's algorithm, or the states of a finite automaton. Maps from state and input to the next
    state, and from states to outputs, become formulas. The program that is right most often on fresh sequences is kept,
    of equals the shortest. (The paper's code compares rounding errors there.)

    Args:
        rnn: a network that does the task, as `smallest_rnn` gives it.
        task: what it was trained on.
        sequences: whose states are read.
        fresh: sequences, drawn afterwards, on which programs are checked.
        confidence: of the intervals.
        seed: of the sequences.

    Returns:
        `Program`: `.source`, `.solved`, `.accuracy`, `.to_frame()`.

    Cost: seconds; two runs of the network.

    Raises:
        InputError: a network of other inputs or outputs than the task's.
    """
    generator = Generator().manual_seed(seed)
    x, y = task.sample(sequences, generator)
    if (rnn.inputs, rnn.shape.outputs) != (x.shape[2], y.shape[2]):
        raise InputError(
            f"rnn has {rnn.inputs} inputs and {rnn.shape.outputs} outputs; the task {task.name!r} has {x.shape[2]} and "
            f"{y.shape[2]}"
        )
    normal = normalised(rnn, x)
    seen = _Seen(normal.states(x).numpy(), x.numpy(), normal(x).round().long().numpy())
    x, y = task.sample(fresh, generator)
    found, tried = [], []
    for name, way in WAYS.items():
        maps, count = way(normal, seen)
        if isinstance(maps, str):
            tried.append({"states": name, "result": maps})
            continue
        one = _Found(maps, maps.source(rnn.inputs, f"{task.name}: {task.description}".strip(": ")), name, count)
        right = one.right(x, y)
        tried.append({"states": name, "result": f"{maps.length} words, right on {right.mean():.3f}"})
        found.append((right.mean(), -maps.length, one))
    said, answers = rnn(x).round().long(), y.flatten(0, 1).numpy()
    best = max(found, key=lambda row: row[:2])[2] if found else None
    return Program(
        source=best.source if best else "",
        maps=_frame(best.maps if best else None),
        states=best.name if best else "",
        n_states=best.count if best else 0,
        accuracy=share(best.right(x, y) if best else [], confidence),
        agreement=share(best.right(x, said) if best else [], confidence),
        network_accuracy=share((said == y).flatten(1).all(1), confidence),
        chance=float(np.unique(answers, axis=0, return_counts=True)[1].max() / len(answers)),
        tried=pd.DataFrame(tried, columns=["states", "result"]),
        task=task.name,
        shape=rnn.shape,
        sequences=fresh,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """Hidden states [n, pos, hidden], what was read [n, pos, inputs], and what was said [n, pos, outputs]."""

    states: NDArray[np.float64]
    x: Whole
    y: Whole

    def table(self, states: Whole, start: tuple[int, ...]) -> Table | None:
        """By states that are whole numbers [n * pos, dim]."""
        return tabulated(states.reshape(*self.states.shape[:2], -1), self.x, self.y, start)


@dataclass(frozen=True, eq=False)
class _Found:
    maps: Maps
    source: str
    name: str
    count: int

    def right(self, x: Numbers, y: Numbers) -> NDArray[np.bool_]:
        """Of each sequence whether the source gives all of its answers."""
        run = compiled(self.source)
        reads, answers = ((t[..., 0] if t.shape[2] == 1 else t).tolist() for t in (x, y))
        pairs = zip(reads, answers, strict=True)
        return np.array([[list(out) if isinstance(out, tuple) else out for out in run(own)] == to for own, to in pairs])


def _linear(rnn: RNN, seen: _Seen) -> tuple[Maps | str, int]:
    lattice = linear_lattice(rnn)
    if lattice is None:
        return "f is not linear", 0
    return _on_lattice(lattice, seen)


def _euclid(rnn: RNN, seen: _Seen) -> tuple[Maps | str, int]:
    points, _ = clustered(seen.states.reshape(-1, seen.states.shape[2]))
    if len(points) < 2:
        return "there is one state", 0
    lattice = gcd_lattice(points[np.random.default_rng(0).permutation(len(points))[:MANY]])
    return ("the states lie on no lattice", 0) if lattice is None else _on_lattice(lattice, seen)


def _on_lattice(lattice: Lattice, seen: _Seen) -> tuple[Maps | str, int]:
    states = seen.states.reshape(-1, seen.states.shape[2])
    if lattice.error(states) > OFF:
        return "the states lie on no lattice", 0
    whole = lattice.encode(states)
    count = len(np.unique(whole, axis=0))
    zero = np.zeros((1, states.shape[1]))
    nearest = tuple(lattice.encode(zero)[0].tolist())
    starts = [nearest] if lattice.error(zero) < OFF else []
    table = None
    for start in [
        *starts,
        (0,) * whole.shape[1],
    ]:  # h_0, or the origin, which is as good where f forgets the difference
        table = table or seen.table(whole, start)
    if table is None:
        table = _begun(seen.table(whole, (int(np.abs(whole).max()) + 1,) * whole.shape[1]))
    return ("states go on in two ways, or none can be the first", 0) if table is None else (fitted(table), count)


def _begun(table: Table | None) -> Table | None:
    """The table that begins in one of its own states instead: of those that go where that went, the most seen."""
    if table is None:
        return None
    reads = {read for state, read in table.rows if state == table.start}
    for state in sorted(table.outputs, key=lambda one: -sum((one, read) in table.rows for read in reads)):
        if (state, next(iter(reads))) in table.rows and (found := restarted(table, state)) is not None:
            return found
    return None


def _automaton(rnn: RNN, seen: _Seen) -> tuple[Maps | str, int]:
    points, which = clustered(seen.states.reshape(-1, seen.states.shape[2]))
    if len(points) > LARGE:
        return f"{len(points)} states are too many for an automaton", 0
    table = seen.table(which[:, None], (len(points),))
    if table is None:
        return "states go on in two ways", 0
    small = minimal(table)
    return shortest(small, _order(small, points, which, seen)), len({*small.outputs, small.start})


def _order(small: Table, points: NDArray[np.float64], which: Whole, seen: _Seen) -> list[int]:
    """An automaton's states in the order of their mean hidden states along the direction in which these differ most."""
    means: dict[int, list[NDArray[np.float64]]] = {}
    paths = [[int(cluster) for cluster in path] for path in which.reshape(seen.x.shape[:2])]
    for path, read in zip(paths, seen.x.tolist(), strict=True):
        state = small.start
        for cluster, inputs in zip(path, read, strict=True):
            state = small.rows[state, tuple(inputs)]
            means.setdefault(state[0], []).append(points[cluster])
    centres = {state: np.mean(own, 0) for state, own in means.items()}
    spread = np.array(list(centres.values()))
    along = np.linalg.svd(spread - spread.mean(0))[2][0]
    unseen = sorted({small.start[0]} - set(centres))
    return [*unseen, *sorted(centres, key=lambda state: float(centres[state] @ along))]


WAYS: dict[str, Callable[[RNN, _Seen], tuple[Maps | str, int]]] = {
    "linear lattice": _linear, "gcd lattice": _euclid, "automaton": _automaton,
}  # fmt: skip


def _frame(maps: Maps | None) -> pd.DataFrame:
    if maps is None:
        return pd.DataFrame(columns=["variable", "kind", "formula"], dtype=str)
    names = [*state_names(len(maps.start)), *output_names(len(maps.outputs))]
    rows = zip(names, (*maps.steps, *maps.outputs), strict=True)
    return pd.DataFrame([{"variable": name, "kind": one.kind, "formula": one.text} for name, one in rows])
