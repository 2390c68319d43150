"""`smallest_rnn`: the smallest network that does a task without a mistake, found by training from small to large."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor

from circuits.programs.linear import linear_size
from circuits.programs.rnn import RNN, Shape
from circuits.programs.tasks import Numbers, SequenceTask
from interp.numbers import COUNT, FROM_ZERO, POSITIVE, UNIT, Limits, checked, settle
from interp.progress import progress

ENOUGH = 1e-5  # a loss of the best copy that ends a round early; L-BFGS does the rest
OFTEN = 25  # steps between two looks at it


@dataclass(frozen=True)
class Training:
    """How a shape is trained: many copies at once on short sequences, ever fewer on longer ones, the best to the end.

    Attributes:
        copies: random starts.
        sequences: that all copies learn from.
        lengths: of the sequences, round by round; the task's own length follows.
        steps: of Adam in a round, fewer where the best copy is near to perfect; the better half, by loss, goes on.
        rate: the largest of a round's one-cycle schedule, for lengths up to 3; longer ones have less.
        needed: share of right answers that the best copy must have behind each round but the last, or the shape is
            given up.
        polish: steps of L-BFGS that the best copy has in the end.
        fresh: sequences that accuracy is told on.
    """

    copies: int = 32
    sequences: int = 128
    lengths: tuple[int, ...] = (2, 3, 5)
    steps: int = 300
    rate: float = 0.03
    needed: float = 0.9
    polish: int = 200
    fresh: int = 4096

    def __post_init__(self) -> None:
        settle(
            self, copies=Limits(4), sequences=COUNT, lengths=COUNT, steps=Limits(10), rate=POSITIVE, needed=UNIT,
            polish=FROM_ZERO, fresh=COUNT,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """What `smallest_rnn` gives.

    Attributes:
        rnn: the smallest network without a mistake on fresh sequences; of a task where none was found, the best.
        accuracy: its share of right answers (all numbers of a position right) on fresh sequences.
        tried: one row a shape. Columns: shape, parameters, accuracy, seconds.
    """

    rnn: RNN
    accuracy: float
    tried: pd.DataFrame


def shapes(task: SequenceTask, generator: Generator, hidden: Sequence[int] = (1, 2, 3)) -> list[Shape]:
    """The shapes that `smallest_rnn` tries, by their number of parameters.

    Where a linear network can do the task that is the one shape, of the size that it needs (`linear_size`). Else all of
    the `hidden` sizes in which f, g or both have a layer of 4 or 8 neurons.
    """
    x, y = task.sample(1, generator)
    ends = {"inputs": x.shape[2], "outputs": y.shape[2]}
    linear = linear_size(task, generator)
    if linear is not None:
        return [Shape(**ends, hidden=linear)]
    found = [
        Shape(**ends, hidden=size, transition_depth=f, transition_width=width if f > 1 else 1,
              output_depth=g, output_width=width if g > 1 else 1)
        for size in hidden for width in (4, 8) for f, g in ((1, 2), (2, 1), (2, 2))
    ]  # fmt: skip
    return sorted(found, key=lambda shape: shape.parameters)


@checked()
def smallest_rnn(
    task: SequenceTask,
    among: Sequence[Shape] | None = None,
    training: Training | None = None,
    *,
    seed: int = 0,
    quiet: bool = False,
) -> Trained:
    """Train shapes in their order until one makes no mistake on fresh sequences (arXiv:2402.05110, section 3.1).

    The loss is the paper's, log(1 + (y - answer)^2) / 2 over all positions; rounding the outputs gives the answers. The
    paper trains every shape of a grid of five axes; here shapes that cannot do a task are left out (`shapes`), or given
    up on sequences of two positions.

    Args:
        task: what is to be learnt.
        among: shapes, in the order in which they are tried; None: `shapes(task)`.
        training: how; None: `Training()`.
        seed: of weights and sequences.
        quiet: no progress bar.

    Returns:
        `Trained`: `.rnn` (float64), `.accuracy`, `.tried`.
    """
    how = training or Training()
    generator = Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    best: tuple[float, RNN] | None = None
    chosen = shapes(task, generator) if among is None else list(among)
    with progress(f"training {task.name}", len(chosen), quiet) as bar:
        for shape in chosen:
            started = time.perf_counter()
            rnn = trained(task, shape, how, generator)
            accuracy = accurate(rnn, *task.sample(how.fresh, generator))
            seconds = time.perf_counter() - started
            rows.append({"shape": str(shape), "parameters": shape.parameters, "accuracy": accuracy, "seconds": seconds})
            bar.advance()
            if best is None or accuracy > best[0]:
                best = accuracy, rnn
            if accuracy == 1:
                break
    assert best is not None
    return Trained(best[1], best[0], pd.DataFrame(rows))


def accurate(rnn: RNN, x: Numbers, y: Numbers) -> float:
    """The share of positions at which the rounded outputs are the answers."""
    return float(_right(rnn(x), y))


def _right(out: Tensor, y: Tensor) -> Tensor:
    return (out.detach().round() == y).all(-1).double().mean((-2, -1))


def trained(task: SequenceTask, shape: Shape, how: Training, generator: Generator) -> RNN:
    """The best of many copies of a shape. Networks see entries of up to 1, and are scaled back in the end."""
    x, y = task.sample(how.sequences, generator)
    scale = max(1.0, float(x.abs().max())), max(1.0, float(y.abs().max()))
    rnn = RNN.drawn(shape, generator, (how.copies,))
    linear = shape.transition_depth == shape.output_depth == 1  # these need long sequences, and learn them
    for length in [*([] if linear else (own for own in how.lengths if own < task.length)), task.length]:
        x, y = task.sample(how.sequences, generator, length)
        rnn, right = _round(rnn, x.double() / scale[0], y.double(), scale[1], how, linear)
        if length < task.length and right < how.needed:
            break
    else:
        x, y = task.sample(4 * how.sequences, generator)
        rnn = _polished(_copy(rnn, [0]), x.double() / scale[0], y.double(), scale[1], how.polish)
    return _unscaled(_copy(rnn, 0), *scale)


def _round(rnn: RNN, x: Tensor, y: Tensor, scale: float, how: Training, linear: bool) -> tuple[RNN, float]:
    """Adam on all copies; the better half, the best in front, and how often the best is right."""
    weights = [weight.detach().requires_grad_() for weight in rnn.parameters()]
    rate = how.rate * min(1.0, 3 / x.shape[1]) ** (0 if linear else 2)
    adam = torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.99))
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=how.steps, pct_start=0.2)
    for step in range(how.steps):
        loss = _loss(rnn.replaced(weights)(x) * scale - y)
        slopes = torch.autograd.grad(loss.sum(), weights)
        sizes = torch.stack([slope.pow(2).flatten(1).sum(1) for slope in slopes]).sum(0).sqrt()
        cut = (1 / sizes.clamp(min=1)).nan_to_num()
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = slope.nan_to_num() * cut.view(-1, *[1] * (weight.ndim - 1))
        adam.step()
        cycle.step()
        if step % OFTEN == 0 and loss.nan_to_num(nan=torch.inf).min() < ENOUGH:
            break
    rnn = rnn.replaced([weight.detach() for weight in weights])
    out = rnn(x) * scale
    order = _loss(out - y).nan_to_num(nan=torch.inf).argsort()[: max(4, how.copies // 8, len(out) // 2)]
    return _copy(rnn, order.tolist()), float(_right(out, y)[order[0]])


def _loss(off: Tensor) -> Tensor:
    """Of each copy."""
    return off.pow(2).log1p().mean((-3, -2, -1)) / 2


def _polished(rnn: RNN, x: Tensor, y: Tensor, scale: float, steps: int) -> RNN:
    weights = [weight.detach().requires_grad_() for weight in rnn.parameters()]
    search = torch.optim.LBFGS(
        weights, max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-14, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        loss = (rnn.replaced(weights)(x) * scale - y).pow(2).mean()
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = slope
        return loss.detach()

    if steps:
        search.step(closure)
    found = rnn.replaced([weight.detach() for weight in weights])
    better = bool((found(x) * scale - y).pow(2).mean() <= (rnn(x) * scale - y).pow(2).mean())  # False where it is NaN
    return found if better else rnn


def _copy(rnn: RNN, which: int | list[int]) -> RNN:
    return rnn.replaced([weight[which] for weight in rnn.parameters()])


def _unscaled(rnn: RNN, into: float, out: float) -> RNN:
    """The same of raw entries: the first layer divides, the last multiplies."""
    (weight, bias), *rest = rnn.transition
    *front, (last, ends) = rnn.output
    divided = torch.cat((weight[:, : rnn.hidden], weight[:, rnn.hidden :] / into), 1)
    return RNN([(divided, bias), *rest], [*front, (last * out, ends * out)])
