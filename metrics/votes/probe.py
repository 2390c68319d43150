"""A linear probe of the residual stream: ridge regression on candidates less their question's mean, in closed form.

    w = X^T (X X^T + l m 1)^-1 y        X: [row, d_model] centred by question, m: mean square of its rows' norms

Its layer and penalty are chosen inside, on other folds than it is judged on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from metrics.votes.rules import splits

PENALTIES = (0.01, 0.1, 1.0, 10.0)  # in units of the mean eigenvalue


@dataclass(frozen=True)
class Grams:
    """Inner products of all rows of each layer, [layer, row, row], and the labels; rows stand question by question."""

    products: Float[np.ndarray, "layer row row"]
    labels: Float[np.ndarray, " row"]
    count: int

    @classmethod
    def of(cls, states: Float[np.ndarray, "n candidate layer d_model"], truth: Int[np.ndarray, " n"]) -> Grams:
        """Of states at the candidates' ends; each layer in units of the mean square norm of its centred rows."""
        n, count = states.shape[:2]
        centred = states.astype(np.float64) - states.mean(1, keepdims=True, dtype=np.float64)
        rows = np.moveaxis(centred.reshape(n * count, *states.shape[2:]), 1, 0)
        products = rows @ rows.transpose(0, 2, 1)
        scale = np.trace(products, axis1=1, axis2=2) / (n * count)
        labels = (np.arange(count) == truth[:, None]) - 1 / count
        return cls(products / np.where(scale > 0, scale, 1.0)[:, None, None], labels.ravel(), count)

    def guesses(
        self, learn: Bool[np.ndarray, " n"], judge: Bool[np.ndarray, " n"], layer: int
    ) -> Int[np.ndarray, "penalty judged"]:
        """The candidate of each judged question that a probe of one layer prefers, under each penalty."""
        here, there = (np.repeat(some, self.count) for some in (learn, judge))
        values, vectors = np.linalg.eigh(self.products[layer][np.ix_(here, here)])
        turned, across = vectors.T @ self.labels[here], self.products[layer][np.ix_(there, here)] @ vectors
        values = values.clip(min=0)
        scores = np.stack([across @ (turned / (values + penalty)) for penalty in PENALTIES])
        guessed: np.ndarray = scores.reshape(len(PENALTIES), -1, self.count).argmax(2)
        return guessed


def probe_guesses(
    grams: Grams, truth: Int[np.ndarray, " n"], folds: Int[np.ndarray, " n"], learn: Bool[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " judged"], int, float]:
    """What the probe says of the questions that it does not `learn` from, and its layer and penalty.

    These two are chosen on the folds of those that it learns from.
    """
    right = np.zeros((len(grams.products), len(PENALTIES)))
    for some, others in splits(folds, learn):
        for layer in range(len(right)):
            right[layer] += (grams.guesses(some, others, layer) == truth[others]).sum(1)
    best, penalty = divmod(int(right.argmax()), len(PENALTIES))
    return grams.guesses(learn, ~learn, best)[penalty], best, PENALTIES[penalty]
