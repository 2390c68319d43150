"""`linear_size`: how large the state of a linear network for a task has to be, if one can do it at all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from circuits.programs.tasks import SequenceTask

EXACT = 1e-6  # of the largest answer
SHOWN = 16  # positions; a state of half as many numbers can be told


def linear_size(task: SequenceTask, generator: Generator) -> int | None:
    """The smallest hidden size of a network with linear f and g that does a task exactly; None where no size will do.

    Such a network is an affine function of what was read, the same at every position: y_t = c_t + sum_k M_k x_{t-k}
    with M_k = C A^k B, and c_t - c_{t-1} = C A^{t-1} b of the bias. The smallest size is the rank of the Hankel matrix
    of these (Ho and Kalman 1966), here as far as 16 positions show it. The affine function is fitted by least
    squares, exactly or not.
    """
    pos = max(task.length, SHOWN)
    x, y = task.sample(2 * (pos * task.inputs + 1), generator, pos)
    responses = _responses(x.double(), y.double())
    if responses is None:
        return None
    half = pos // 2
    hankel = torch.cat([torch.cat(list(responses[i : i + pos - half]), 1) for i in range(half)])
    bias, first = task.inputs, slice(0, y.shape[2])  # what the bias does at once, g's own bias may undo: choose it
    others = torch.cat((hankel[:, :bias], hankel[:, bias + 1 :]), 1)
    below = slice(y.shape[2], None)
    ways = torch.linalg.lstsq(others[below], hankel[below, bias : bias + 1], driver="gelsd").solution
    hankel[first, bias : bias + 1] = others[first] @ ways
    return max(1, int(torch.linalg.matrix_rank(hankel, rtol=EXACT)))


def _responses(x: Tensor, y: Tensor) -> Float[Tensor, "pos outputs inputs_and_bias"] | None:
    """What an entry, and the bias, do to answers k positions later; None where the task is no affine recursion."""
    n, pos, inputs = x.shape
    found = torch.zeros(pos, y.shape[2], inputs + 1, dtype=torch.float64, device="cpu")
    constants = torch.zeros(pos, y.shape[2], dtype=torch.float64, device="cpu")
    within = EXACT * max(1.0, float(y.abs().max()))
    for t in range(pos):
        read = torch.cat((torch.ones(n, 1, dtype=torch.float64, device="cpu"), x[:, : t + 1].flip(1).flatten(1)), 1)
        fitted = torch.linalg.lstsq(read, y[:, t], driver="gelsd").solution
        if (read @ fitted - y[:, t]).abs().max() > within:
            return None
        own = fitted[1:].view(t + 1, inputs, -1).transpose(1, 2)  # [k, outputs, inputs]
        if t and (own[:t] - found[:t, :, :inputs]).abs().max() > within:
            return None
        found[: t + 1, :, :inputs], constants[t] = own, fitted[0]
    found[1:, :, inputs] = constants.diff(dim=0)
    return found
