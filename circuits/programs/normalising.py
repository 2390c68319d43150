"""Networks that can be read: the state in another basis, biases where they belong, whole weights whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.programs.jordan import jordan_basis
from circuits.programs.rnn import RNN
from circuits.programs.tasks import Numbers

SMALL = 0.1  # the spread, or singular value, below which a direction of the state counts as unused
WHOLE = 0.01  # a weight this near to a whole number is rounded
STEEP = 1e6  # a basis with a larger condition number would cost more digits than it makes readable


def rebased(rnn: RNN, basis: Float[Tensor, "hidden hidden"]) -> RNN:
    """The same function with states h = `basis` times the new ones; exact, since h_0 = 0 stays 0."""
    transition, output = list(rnn.transition), list(rnn.output)
    weight, bias = transition[-1]
    transition[-1] = torch.linalg.solve(basis, weight), torch.linalg.solve(basis, bias)
    weight, bias = transition[0]
    transition[0] = torch.cat((weight[:, : rnn.hidden] @ basis, weight[:, rnn.hidden :]), 1), bias
    output[0] = output[0][0] @ basis, output[0][1]
    return RNN(transition, output)


def whitened(rnn: RNN, x: Numbers) -> RNN:
    """States of a second moment of one in every direction that the sequences `x` [n, pos, inputs] use."""
    states = rnn.states(x).flatten(0, -2)
    values, vectors = torch.linalg.eigh(states.T @ states / len(states))
    sizes = values.clamp(min=0).sqrt()
    sizes = torch.where(sizes > SMALL**2 * sizes.max(), sizes, torch.ones_like(sizes))
    return rebased(rnn, vectors * sizes @ vectors.T)


def jordan(rnn: RNN) -> RNN:
    """The linear part of f from state to state in Jordan form (`jordan_basis`); ReLUs are passed over to find it."""
    return rebased(rnn, torch.from_numpy(jordan_basis(_linear_part(rnn)[:, : rnn.hidden])))


def toeplitz(rnn: RNN) -> RNN:
    """In every Jordan block the input enters its last state alone, with weight 1.

    Upper triangular Toeplitz matrices commute with a Jordan block, so that the form stays. A block whose last state
    reads nothing stays as it is.
    """
    part = _linear_part(rnn)
    matrix, into = part[:, : rnn.hidden], part[:, rnn.hidden :]
    basis, start = np.eye(rnn.hidden), 0
    for end in range(1, rnn.hidden + 1):
        if end < rnn.hidden and matrix[end - 1, end] > 0.5:  # a one: the block goes on
            continue
        column = into[start:end, np.abs(into[end - 1]).argmax()]
        if abs(column[-1]) > SMALL**2 * np.abs(into).max():
            size = end - start
            for above in range(size):
                np.fill_diagonal(basis[start : end - above, start + above : end], column[-1 - above])
        start = end
    return rebased(rnn, torch.from_numpy(basis))


def debiased(rnn: RNN) -> RNN:
    """f's last bias without what f does not read again: g's first bias takes it. Exact: g never reads h_0."""
    (first, _), *_ = rnn.transition
    _, sizes, ways = torch.linalg.svd(first[:, : rnn.hidden])
    unread = ways[int((sizes > 1e-9 * sizes.max()).sum()) :] if sizes.max() > 0 else ways
    weight, bias = rnn.transition[-1]
    gone = unread.T @ (unread @ bias)
    (read, ends), *rest = rnn.output
    return RNN([*rnn.transition[:-1], (weight, bias - gone)], [(read, ends + read @ gone), *rest])


def rounded(rnn: RNN, within: float = WHOLE) -> RNN:
    """Weights and biases `within` a whole number are that number; the one normaliser that changes the function."""
    return rnn.replaced([torch.where((w - w.round()).abs() < within, w.round(), w) for w in rnn.parameters()])


def normalised(rnn: RNN, x: Numbers) -> RNN:
    """All of them in the paper's order (arXiv:2402.05110, section 3.2), for sequences `x` int [n, pos, inputs].

    A step that would make weights huge, or that changes a rounded output on `x`, is left out.
    """
    wanted = rnn(x).round()
    steps: list[Callable[[RNN], RNN]] = [lambda one: whitened(one, x), jordan, toeplitz, debiased, rounded]
    for step in steps:
        try:
            new = step(rnn)
        except (RuntimeError, np.linalg.LinAlgError):  # a singular basis
            continue
        sizes = torch.stack([w.abs().max() for w in new.parameters()])
        if bool((sizes < STEEP).all()) and torch.equal(new(x).round(), wanted):
            rnn = new
    return rnn


def _linear_part(rnn: RNN) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The product of f's weights [hidden, hidden + inputs]."""
    found = rnn.transition[0][0]
    for weight, _ in rnn.transition[1:]:
        found = weight @ found
    return np.asarray(found.numpy(), dtype=np.float64)
