"""The clean and the corrupted run of a batch, as dictionaries see them.

A corrupted dictionary writes what its corrupted features write, plus its corrupted error:

    output' = output - Dec(f - f') - (eps - eps')

so that with plain autoencoders under `patch` a site that is corrupted as a whole is that of the corrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.gradients import BatchScorer
from interp.dictionaries.circuits import FeatureNodes
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import MeanParts
from interp.dictionaries.sets import DictionarySet
from interp.dictionaries.sites import Entering, Parts, SiteRecorder, run_sites, split
from interp.kernels.forward import Residual
from interp.parts import working
from interp.setting import Setting


@dataclass(frozen=True)
class Seen:
    """What one dictionary sees of a batch: of the clean run, and how the corrupted one differs."""

    one: Dictionary
    read: Residual
    written: Residual
    features: Float[Tensor, "batch pos feature"]
    feature_change: Float[Tensor, "batch pos feature"]  # clean less corrupted
    error_change: Residual
    active: Float[Tensor, "batch pos feature"]  # not 0 where a feature is active in either run

    def change(self, features: Tensor | None = None, errors: Tensor | None = None) -> Residual:
        """What the output loses when all (or these) changes of features and errors are taken from it."""
        features = self.feature_change if features is None else features
        errors = self.error_change if errors is None else errors
        return self.one.coder.spread(features @ self.one.W_dec, self.read) + errors


See = Callable[[int, Seen], None]


class Observer(SiteRecorder, Entering):
    """Shows each dictionary what it sees; keeps the streams that enter layers."""

    def __init__(
        self, runs: BatchScorer, dictionaries: Sequence[Dictionary], means: MeanParts | None, see: See
    ) -> None:
        SiteRecorder.__init__(self, runs.anatomy, dictionaries, self._hear)
        Entering.__init__(self)
        self.runs, self.means, self.see = runs, means, see

    def _hear(self, index: int, read: Residual, written: Residual) -> Residual:
        one, n = self.dictionaries[index], self.runs.batch.n_rows
        parts = split(one, read, written)
        features, error = parts.features[:n], parts.error[:n]
        if len(parts.features) > n:
            other = Parts(parts.features[n:], parts.error[n:])
        elif self.means is not None:
            mean, positions = self.means[index], self.runs.frame.positions
            other = Parts(*(part[positions].to(error) for part in (mean.features, mean.error)))
        else:
            other = Parts(torch.zeros_like(features), torch.zeros_like(error))
        self.see(index, Seen(one, working(read[:n]), working(written[:n]), features, features - other.features,
                             error - other.error, features.abs() + other.features.abs()))  # fmt: skip
        return written

    @torch.no_grad()
    def run(self) -> Residual:
        """The last residual stream of the clean prompts."""
        runs = self.runs
        sides = [runs.embedding, runs.embed_corrupted()] if self.ablation == "patch" else [runs.embedding]
        return run_sites(runs.frame, torch.cat(sides), self)[: runs.batch.n_rows]

    @property
    def ablation(self) -> str:
        """What corrupted features and errors are."""
        return str(self.runs.scorer.setting.ablation)

    @property
    def entering(self) -> list[Residual]:
        """The clean residual stream that enters each layer."""
        return [x[: self.runs.batch.n_rows] for x in self.kept]


def mean_parts(setting: Setting, dictionaries: Sequence[Dictionary]) -> MeanParts | None:
    """What ablated features and errors give, by position, where that is the same for all prompts; or None."""
    own = setting
    if setting.features is None:
        own = setting.under(features=DictionarySet(tuple(dictionaries), "nodes"))
    grain = own.nodes("feature")
    assert isinstance(grain, FeatureNodes)
    return grain.means
