"""Running circuits of features: a place writes what it writes here, and features outside give their counterfactual.

    output  =  output here  +  sum over features of (1 - w) (other - own) W_dec  (+ (1 - w) (other error - own error))

`own` is what the dictionary encodes in this very run, downstream of all ablations before it, `other` what it gives
under the ablation (`interp.kernels.stacked`). Errors stay as they are, are ablated, or are nodes with weights of their
own. A transcoder's skip is live, and so is everything that no dictionary reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import MeanParts, flat, mean_parts, part_totals
from interp.dictionaries.sets import DictionarySet
from interp.dictionaries.sites import Parts, SiteRecorder, Visit, run_sites, split
from interp.kernels.batching import Batch, budget_of, bytes_per_position, make_batches
from interp.kernels.forward import Residual, run_blocks
from interp.kernels.stacked import NodeGrain, StackedRunner, Weights
from interp.kernels.unit_constants import UnitConstants, beside_each_other, by_position
from interp.parts import working

_LIVE = 4  # tensors over a dictionary's features that a run holds at once


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureNodes(NodeGrain):
    """Masks over the features of dictionaries, [dictionary, (span,) feature]."""

    of: DictionarySet

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.dictionaries

    @functools.cached_property
    def dictionaries(self) -> list[Dictionary]:
        """As the model is run with them."""
        return self.of.on(self.anatomy)

    @functools.cached_property
    def full(self) -> Tensor:
        return self.of.full(self.spans)

    @functools.cached_property
    def means(self) -> MeanParts | None:
        """What features and errors give, by position, for ablations that give the same for every prompt."""
        kind, length = self.ablator.ablation, self.prompts.clean.shape[1]
        if self.fitted is not None:
            own = self.fitted().on(self.anatomy, [one.n_features for one in self.dictionaries], self.of.digests)
            assert own.errors is not None
            features = [own.units[:, i, : one.n_features] for i, one in enumerate(self.dictionaries)]
            pairs = zip(features, own.errors.unbind(1), strict=True)
            return [Parts(*(by_position(part, length) for part in pair)) for pair in pairs]
        if not kind.startswith("mean"):
            return None
        positional = kind == "mean-positional"
        return mean_parts(self.anatomy, self.prompts, self.dictionaries, positional, self.batch_size, self.memory)

    def totals(self, of: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return flat(part_totals(self.anatomy, self.prompts, self.dictionaries, self.batch_size, self.memory, of))

    def constants(self, parts: Sequence[Tensor], losses: Tensor) -> UnitConstants:
        n = len(self.dictionaries)
        told = losses, self.anatomy.name, tuple(self.anatomy.weights_digest())
        return UnitConstants(beside_each_other(parts[:n]), torch.stack([*parts[n:]], 1), *told, self.of.digests)

    def runner(self, batch: Batch) -> FeatureRunner:
        return FeatureRunner(self, batch)

    def row_bytes(self, size: int | None = None) -> int:
        widths = [one.n_features for one in self.dictionaries]
        errors = 0 if self.of.errors == "kept" else len(widths) * self.anatomy.d_model
        floats = sum(widths) + errors + _LIVE * max(widths)
        itemsize = working(self.anatomy.parameter()[:0]).element_size()
        return floats * itemsize + bytes_per_position(self.anatomy, gradient=False)


class FeatureRunner(StackedRunner):
    """Runs circuits of features over one batch of prompts."""

    @torch.no_grad()
    def __init__(self, grain: FeatureNodes, batch: Batch) -> None:
        super().__init__(grain, batch)
        self.grain = grain
        self.features: list[Tensor] = []
        self.errors: list[Tensor] = []
        if (means := grain.means) is not None:
            self.give(flat(means))
        else:
            self._hold(self._other_parts())

    def _hold(self, parts: Sequence[Parts]) -> None:
        self.features = [one.features for one in parts]
        self.errors = [] if self.grain.of.errors == "kept" else [one.error for one in parts]

    def give(self, parts: Sequence[Tensor]) -> None:
        here = [part[self.frame.positions][None].to(working(self.embedded)) for part in parts]
        n = len(self.grain.dictionaries)
        self._hold([Parts(*pair) for pair in zip(here[:n], here[n:], strict=True)])

    def _other_parts(self) -> list[Parts]:
        """What features and errors are under `patch` and `zero`; `[1, 1, 1]` of nothing."""
        dictionaries = self.grain.dictionaries
        if self.grain.ablator.ablation.startswith("zero"):
            nothing = working(self.embedded[:1, :1, :1]) * 0
            return [Parts(nothing, nothing)] * len(dictionaries)
        found: dict[int, Parts] = {}

        def hear(index: int, read: Residual, written: Residual) -> Residual:
            found[index] = split(dictionaries[index], read, written)
            return written

        run_sites(self.frame, self.corrupted(), SiteRecorder(self.anatomy, dictionaries, hear))
        return [found[index] for index in range(len(dictionaries))]

    def run(self, x: Residual, weights: Weights, checkpointed: bool) -> Residual:
        recorder = _Ablated(self, weights)
        return run_blocks(self.frame, recorder.begin_at(x), recorder, checkpointed=checkpointed)

    def held(self) -> list[Tensor]:
        return [*self.features, *self.errors]


class _Ablated(SiteRecorder):
    """A run of stacked circuits in which the features outside of each give what they give under the ablation."""

    def __init__(self, runner: FeatureRunner, weights: Weights) -> None:
        super().__init__(runner.anatomy, runner.grain.dictionaries, self._mixed)
        self.runner, self.weights = runner, weights

    def _error_weights(self, weights: Weights) -> Weights | None:
        """Those of a dictionary's error; None where it stays."""
        if self.runner.grain.of.errors == "kept":
            return None
        last = weights[..., -1:]
        return last if self.runner.grain.of.errors == "nodes" else torch.zeros_like(last)

    def _mixed(self, index: int, read: Residual, written: Residual) -> Residual:
        runner, one, weights = self.runner, self.dictionaries[index], self.weights[:, index]
        of_features = runner.missing(weights[..., : one.n_features])
        of_error = runner.missing(self._error_weights(weights))
        if of_features is None and of_error is None:
            return written
        own, out = split(one, read, written), working(written)
        if of_features is not None:
            change = runner.change(of_features, runner.features[index], own.features)
            out = out + one.coder.spread(change @ one.W_dec, working(read))
        if of_error is not None:
            out = out + runner.change(of_error, runner.errors[index], own.error)
        return out.to(written.dtype)


@torch.no_grad()
def feature_norms(grain: FeatureNodes) -> Float[Tensor, "dictionary feature"]:
    """Root mean square, over prompts and real positions, of the norm of (own - ablated) output, feature by feature.

    Where errors are nodes theirs stand last. Without spans, and 0 for what is active nowhere. Two forward passes.
    """
    anatomy, prompts, dictionaries = grain.anatomy, grain.prompts, grain.dictionaries
    totals = grain.of.full().to(torch.float64) * 0
    size = max(1, budget_of(anatomy.device, grain.memory) // (prompts.clean.shape[1] * grain.row_bytes()))
    skip = grain.ablator.skip_prefix
    for batch in make_batches(prompts, grain.batch_size or size, anatomy.device, skip_prefix=skip):
        runner = grain.runner(batch)
        run_sites(runner.frame, runner.embedded, SiteRecorder(anatomy, dictionaries, _squares(runner, totals)))
    return (totals / prompts.mask.sum().cpu()).sqrt()


def _squares(runner: FeatureRunner, totals: Tensor) -> Visit:
    """Adds up squares of the norms of a clean run's differences."""
    real = runner.batch.prompts.mask[:, runner.batch.start :][..., None]

    def see(index: int, read: Residual, written: Residual) -> Residual:
        one = runner.grain.dictionaries[index]
        own = split(one, read, written)
        scale = one.coder.spread(torch.ones_like(own.error[..., :1]), working(read)).square()
        squares = torch.where(real, scale * (own.features - runner.features[index]).square(), 0.0).sum((0, 1))
        totals[index, : one.n_features] += (squares * one.W_dec.square().sum(1)).cpu()
        if runner.grain.of.errors == "nodes":
            change = (own.error - runner.errors[index]).square()
            totals[index, -1] += torch.where(real, change, 0.0).sum().cpu()
        return written

    return see
