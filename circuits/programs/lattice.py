"""`Lattice`: whole numbers for hidden states, from a linear f's weights or from the states by Euclid's algorithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuits.programs.rnn import RNN
from interp.errors import InputError

Points = NDArray[np.float64]
Whole = NDArray[np.int64]
NEAR = 0.2  # of the smallest distance between two states: what may be noise
STEADY = 1e3  # condition number of 1 - W_h up to which states without input come to rest
OFF = 0.25  # of a step of the lattice: how far from a whole coordinate a state may lie


@dataclass(frozen=True, eq=False)
class Lattice:
    """h = z `basis` + `origin` with whole z: the integer autoencoder of arXiv:2402.05110, section 3.3.

    Attributes:
        basis: float [dim, hidden], a step in each direction; `dim` may be smaller than `hidden`.
        origin: float [hidden].
    """

    basis: Points
    origin: Points

    def real(self, states: ArrayLike) -> Points:
        """Coordinates [n, dim] of states [n, hidden], before they are rounded."""
        return (np.asarray(states, dtype=np.float64) - self.origin) @ np.linalg.pinv(self.basis)

    def encode(self, states: ArrayLike) -> Whole:
        """Whole coordinates [n, dim] of states [n, hidden]."""
        return self.real(states).round().astype(np.int64)

    def decode(self, coordinates: ArrayLike) -> Points:
        """States [n, hidden] of whole coordinates [n, dim]."""
        return np.asarray(coordinates, dtype=np.float64) @ self.basis + self.origin

    def error(self, states: ArrayLike) -> float:
        """The largest distance of a state from its lattice point, over the shortest step."""
        off = np.asarray(states, dtype=np.float64) - self.decode(self.encode(states))
        return float(np.linalg.norm(off, axis=1).max() / np.linalg.norm(self.basis, axis=1).min())

    def fitted(self, states: ArrayLike) -> Lattice:
        """The same coordinates with the basis and origin that fit the states best (least squares)."""
        states = np.asarray(states, dtype=np.float64)
        whole = np.column_stack((self.encode(states), np.ones(len(states))))
        if np.linalg.matrix_rank(whole) < whole.shape[1]:
            return self
        both = np.asarray(np.linalg.lstsq(whole, states, rcond=None)[0], dtype=np.float64)
        return Lattice(both[:-1], both[-1])


def linear_lattice(rnn: RNN) -> Lattice | None:
    """The lattice of a network with linear f: its states are sums of columns W_h^i W_x times whole inputs.

    The basis is taken from these columns from i = 0 on, each that is independent of those before it, so that a
    coordinate is an input of some positions ago where the network is a shift register. (The paper takes the largest
    columns; of a network that sums twice, those span a coarser lattice than the states'.) The origin is where states
    without input come to rest, or 0 where they do not; the bias is then one more input. None where f is not linear or
    reads no input. Whether states lie there, `Lattice.error` says.
    """
    if len(rnn.transition) > 1:
        return None
    weight, bias = (tensor.detach().numpy().astype(np.float64) for tensor in rnn.transition[0])
    back, into = weight[:, : rnn.hidden], list(weight[:, rnn.hidden :].T)
    forgets = np.eye(rnn.hidden) - back
    driven = _spanned(back, into, 1e-3 * np.abs(weight).max())
    if len(driven) == rnn.hidden and np.linalg.cond(forgets) < STEADY:
        return Lattice(np.array(driven), np.asarray(np.linalg.solve(forgets, bias), dtype=np.float64))
    basis = _spanned(back, [*into, bias], 1e-3 * np.abs(weight).max())
    return Lattice(np.array(basis), np.zeros(rnn.hidden)) if basis else None


def _spanned(back: Points, columns: list[Points], least: float) -> list[Points]:
    """Columns, those times `back`, and so on, each that is independent of those before it."""
    basis: list[Points] = []
    for _ in range(len(back)):
        for column in columns:
            trial = np.array([*basis, column])
            if len(trial) <= len(back) and np.linalg.svd(trial, compute_uv=False)[-1] > least:
                basis.append(column)
        columns = [back @ column for column in columns]
    return basis


def gcd_lattice(states: ArrayLike) -> Lattice | None:
    """The coarsest lattice through all of some states [n, hidden]; None where noise or the states allow none.

    Euclid's algorithm on volumes: differences of states span a cell; a state that is no whole combination leaves a
    remainder inside of the cell, which takes the place of the step that it has the largest share of. The volume falls
    to that share, at most a half; a step that went out is treated like a state. It ends when all remainders are noise:
    less than `NEAR` of the smallest distance between two states.

    Raises `InputError` for fewer than two states.
    """
    points = np.unique(np.asarray(states, dtype=np.float64), axis=0)
    if points.ndim != 2 or len(points) < 2:
        raise InputError("states must be at least two different ones, as [n, hidden]")
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    noise = NEAR * apart[apart > 0].min()
    steps = points - points[0]
    steps = steps[np.argsort(np.linalg.norm(steps, axis=1))][1:]
    space = np.linalg.svd(steps, full_matrices=False)[2]
    space = space[np.abs(steps @ space.T).max(0) > noise]  # directions that the states use
    basis = np.zeros((0, len(space)))
    for step in steps @ space.T:
        basis = _with(basis, step, noise)
        if not len(basis):
            return None
    if len(basis) < len(space):
        return None
    found = Lattice(_reduced(basis) @ space, points[0]).fitted(points)
    return found if found.error(points) < OFF else None


def _with(basis: Points, step: Points, noise: float) -> Points:
    """The basis of the lattice that has `step` too; an empty one where noise took over."""
    left = [step]
    while left:
        step = left.pop()
        shares = step @ np.linalg.pinv(basis) if len(basis) else np.zeros(0)
        outside = step - shares @ basis
        if np.linalg.norm(outside) > noise:  # a new direction
            basis = np.vstack((basis, step))
            continue
        remainder = (shares - shares.round()) @ basis
        if np.linalg.norm(remainder) <= noise:
            continue
        largest = int(np.abs(shares - shares.round()).argmax())
        left.append(basis[largest].copy())
        basis = np.vstack((basis[:largest], remainder, basis[largest + 1 :]))
        if np.linalg.svd(basis, compute_uv=False).prod() < noise ** len(basis):  # a cell that noise alone could span
            return basis[:0]
    return basis


def _reduced(basis: Points) -> Points:
    """Short steps for the same lattice: each less whole multiples of the others, as long as one gets shorter."""
    basis, shorter = basis.copy(), True
    while shorter:
        shorter = False
        for one in range(len(basis)):
            for other in range(len(basis)):
                if one == other:
                    continue
                less = (
                    basis[one] - round(float(basis[one] @ basis[other] / (basis[other] @ basis[other]))) * basis[other]
                )
                if np.linalg.norm(less) < (1 - 1e-9) * np.linalg.norm(basis[one]):
                    basis[one], shorter = less, True
    return basis
