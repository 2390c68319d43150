"""At most K concepts of many: a group-lasso path, a fit of those that it takes in first, and exchanges.

Inputs are centred and divided by their ranges, so that no concept's unit decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.concepts.losses import Target

STEPS = 60  # of the penalty, from the one that leaves no concept in down
LEAST = 1e-4  # of that penalty, where the path ends
_ROUNDS, _STILL = 2000, 1e-7  # of proximal steps: at most, and what counts as none
_GAIN = 1e-9  # of the loss, relative: what an exchange must bring


@dataclass(frozen=True)
class Fitted:
    """Weights [class, column] of the scaled inputs, 0 outside of `chosen`; their bias, and the loss."""

    weights: Float[Tensor, "class column"]
    bias: Float[Tensor, " class"]
    chosen: list[int]
    loss: float


class Problem:
    """Scaled inputs [n, column] and a target; fits of some columns, and of the penalised whole."""

    def __init__(self, columns: Float[Tensor, "n column"], target: Target) -> None:
        self.target, self.width = target, columns.shape[1]
        self._all = torch.cat((columns, torch.ones_like(columns[:, :1])), 1)
        self._step = len(columns) / (target.curvature * float(torch.linalg.matrix_norm(self._all, 2)) ** 2)

    def fit(self, chosen: Sequence[int]) -> Fitted:
        """The least loss with some columns."""
        found = self.target.best(self._all[:, [*chosen, self.width]])
        weights = torch.zeros(self.target.classes, self.width, dtype=torch.float64, device="cpu")
        weights[:, list(chosen)] = found[:-1].T
        return Fitted(weights, found[-1], list(chosen), self.target.value(self._all[:, [*chosen, self.width]] @ found))

    def gradient(self, weights: Float[Tensor, "column class"]) -> Float[Tensor, "column class"]:
        """Of the loss, in the weights of all columns and, last, the intercept."""
        return self._all.T @ self.target.slope(self._all @ weights) / len(self._all)

    def penalised(self, penalty: float, start: Float[Tensor, "column class"]) -> Float[Tensor, "column class"]:
        """The least of loss + penalty times the sum of the columns' norms (Yuan & Lin 2006), the intercept left free.

        Proximal gradient steps with momentum that starts anew where it leads uphill (FISTA; Beck & Teboulle 2009,
        O'Donoghue & Candes 2015): the gradient and the shrinking both move every weight that is not 0.
        """
        now = ahead = start
        momentum = 1.0
        for _ in range(_ROUNDS):
            moved = ahead - self._step * self.gradient(ahead)
            sizes = moved[:-1].norm(dim=1, keepdim=True).clamp(min=1e-300)
            after = torch.cat((moved[:-1] * (1 - self._step * penalty / sizes).clamp(min=0), moved[-1:]))
            change = after - now
            if float(((ahead - after) * change).sum()) > 0:
                momentum = 1.0
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead, now = after + (momentum - 1) / following * change, after
            momentum = following
            if float(change.norm()) <= _STILL * float(after.norm()):
                break
        return now

    def order(self, enough: int) -> list[int]:
        """Columns in the order in which they enter while the penalty falls, until there are `enough`."""
        entered: list[int] = []
        for weights in self._path() if enough else ():
            sizes = weights[:-1].norm(dim=1)
            new = [at for at in sizes.argsort(descending=True, stable=True).tolist() if float(sizes[at]) > 0]
            entered += [at for at in new if at not in entered]
            if len(entered) >= enough:
                break
        return entered

    def _path(self) -> Iterator[Float[Tensor, "column class"]]:
        alone = self.fit([])
        weights = torch.cat((alone.weights.T, alone.bias[None]))
        most = float(self.gradient(weights)[:-1].norm(dim=1).max())
        for step in range(1, STEPS + 1):
            weights = self.penalised(most * LEAST ** (step / STEPS), weights)
            yield weights

    def exchanged(self, fitted: Fitted) -> Fitted:
        """While it lowers the loss: one column out, and in for it the one that promises most."""
        for _ in range(self.width):
            better = min(self._neighbours(fitted), key=lambda one: one.loss, default=fitted)
            if better.loss >= fitted.loss * (1 - _GAIN):
                break
            fitted = better
        return fitted

    def _neighbours(self, fitted: Fitted) -> Iterator[Fitted]:
        for out in fitted.chosen:
            left = [at for at in fitted.chosen if at != out]
            promise = self._promise(self.fit(left))
            promise[[*left, out]] = -1
            if float(promise.max()) > 0:
                yield self.fit([*left, int(promise.argmax())])

    def _promise(self, fitted: Fitted) -> Float[Tensor, " column"]:
        """What each column would take off the loss, were it quadratic in the scores: exact for logits."""
        slopes = self.gradient(torch.cat((fitted.weights.T, fitted.bias[None])))[:-1]
        there = self._all[:, [*fitted.chosen, self.width]]
        rest = self._all[:, :-1] - there @ torch.linalg.lstsq(there, self._all[:, :-1], driver="gelsd").solution
        free = rest.pow(2).mean(0)  # what the chosen columns do not say of it
        found: Tensor = slopes.pow(2).sum(1) / free.clamp(min=1e-12)
        return found


def sparse_fits(columns: Float[Tensor, "n column"], target: Target, sizes: Sequence[int]) -> list[Fitted]:
    """For each size a fit of at most so many columns.

    The columns that a group-lasso path takes in first, fitted without its penalty, which shrinks what it keeps; then
    exchanges. Where all columns may be used, all are.
    """
    problem = Problem(columns, target)
    order = problem.order(max((size for size in sizes if size < problem.width), default=0))
    order += [at for at in range(problem.width) if at not in order]
    return [
        problem.exchanged(problem.fit(order[:size])) if size < problem.width else problem.fit(order) for size in sizes
    ]
