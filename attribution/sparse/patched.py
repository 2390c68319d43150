"""Single features and errors really patched: the truth that approximations are measured against.

    score = M(clean) - M(clean with that one feature, or error, corrupted)

Nothing in front of the dictionary's place is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.exact import patching_sizes
from attribution.gradients import BatchScorer, GradientScorer
from attribution.paths import clean_path
from attribution.sparse.observed import Observer, Seen, mean_parts
from attribution.sparse.result import AXES
from attribution.units.single import Place, by_size, parts_of, read_places, rows
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import MeanParts
from interp.dictionaries.sites import run_from
from interp.errors import InputError, short
from interp.kernels.batching import Plan, make_batches, refuse_nan
from interp.kernels.forward import Residual, answer_rows, unembed
from interp.setting import Setting

_FORM = "(dictionary, feature) or (dictionary, position, feature)"


def places_of(only: Any, dictionaries: Sequence[Dictionary], length: int, name: str = "only") -> list[Place]:
    """Each as dictionary, position and feature (-1: the error). Raises `InputError` for what is none."""

    def read(given: Any) -> Place:
        place = parts_of(given, length)
        if place is None or not 0 <= place[0] < len(dictionaries):
            raise InputError(
                f"{name} holds {short(given)}; a feature is {_FORM}, with dictionaries up to {len(dictionaries) - 1} "
                f"and positions up to {length - 1}"
            )
        dictionary, _, feature = place
        most = dictionaries[dictionary].n_features - 1
        if not -1 <= feature <= most:
            raise InputError(
                f"{name} holds {short(given)}; features of dictionary {dictionary} are 0 to {most}, -1 its error"
            )
        return place

    return read_places(name, only, f"features as {_FORM}, feature -1 for the error", read)


def patch_features(
    setting: Setting, dictionaries: Sequence[Dictionary], only: Any, mask: Bool[Tensor, "n pos"]
) -> tuple[pd.DataFrame, Float[Tensor, " n"], list[Bool[Tensor, " feature"]]]:
    """Columns prompt, dictionary, position (-1: all), feature (-1: the error), activation (NaN for all), score.

    Beside it the objective of the clean prompts, and which features of each dictionary were ever active.
    """
    places = places_of(only, dictionaries, setting.prompts.clean.shape[1])
    size, stacked = patching_sizes(setting)
    means = mean_parts(setting, dictionaries)
    scorer = GradientScorer(setting, clean_path(), Plan(size, stacked, False))
    frames: list[pd.DataFrame] = []
    explained = torch.zeros(len(setting), dtype=torch.float64, device="cpu")
    active = [torch.zeros(one.n_features, dtype=torch.bool, device="cpu") for one in dictionaries]
    skip = setting.skip_prefix
    with setting.run.progress("patching features", len(places) * len(setting)) as bar, torch.inference_mode(False):
        for batch in make_batches(setting.prompts, size, setting.anatomy.device, skip_prefix=skip):
            patched = _BatchPatched(BatchScorer(scorer, batch), dictionaries, means)
            explained[list(batch.indices)] = patched.clean.cpu().double()
            for index, seen in patched.seen.items():
                here = mask[list(batch.indices), batch.start : batch.start + batch.n_positions].to(seen.active.device)
                active[index] |= (seen.active[here] > 0).any(0).cpu()
            frames += patched.frames(places, stacked, mask)
            bar.advance(len(places) * len(batch))
    return by_size(frames), explained, active


def mean_patched_features(
    setting: Setting, dictionaries: Sequence[Dictionary], features: Sequence[tuple[int, int]]
) -> Float[Tensor, " feature"]:
    """What patching each `(dictionary, feature)` everywhere does, as a mean over prompts; feature -1: the error."""
    frame, _, _ = patch_features(setting, dictionaries, list(features), setting.prompts.mask)
    means = frame.groupby(["dictionary", "feature"])["score"].mean()
    return torch.tensor([float(means[place]) for place in features], dtype=torch.float64, device="cpu")


class _BatchPatched:
    """What dictionaries see of one batch, and what patching parts of that does."""

    @torch.no_grad()
    def __init__(self, runs: BatchScorer, dictionaries: Sequence[Dictionary], means: MeanParts | None) -> None:
        self.runs, self.batch = runs, runs.batch
        self.seen: dict[int, Seen] = {}
        observer = Observer(runs, dictionaries, means, self.seen.__setitem__)
        x = observer.run()
        self.entering = observer.entering
        self.clean_logits = unembed(runs.anatomy, answer_rows(x, runs.frame, self.batch.prompts))
        self.clean = self._values(self.clean_logits)[0]

    def _values(self, logits: Tensor) -> Float[Tensor, "copy batch"]:
        setting, prompts = self.runs.scorer.setting, self.batch.prompts
        copies = logits.unflatten(0, (-1, len(self.batch.prompts.reads.row)))
        values = torch.stack([setting.goal(one, prompts, self.clean_logits) for one in copies])
        refuse_nan(values, setting.goal.name, self.batch)
        return values.double()

    @torch.no_grad()
    def frames(self, places: Sequence[Place], stacked: int, mask: Bool[Tensor, "n pos"]) -> list[pd.DataFrame]:
        """A table for each place."""
        found = []
        for index, seen in self.seen.items():
            here = [place for place in places if place[0] == index]
            for first in range(0, len(here), stacked):
                some = here[first : first + stacked]
                changes = torch.stack([self._change(seen, place) for place in some])
                outputs = (seen.written - changes).flatten(0, 1)
                x = run_from(self.runs.frame, seen.one, outputs.to(self.runs.embedding.dtype), self.entering)
                logits = unembed(self.runs.anatomy, answer_rows(x, self.runs.frame, self.batch.prompts))
                touched = changes.flatten(2).any(2)  # what changes nothing scores 0, whatever rounding says
                scores = torch.where(touched, self.clean - self._values(logits), 0.0).cpu()
                activations = [seen.features[..., place[2]] if place[2] >= 0 else None for place in some]
                found += [rows(self.batch, AXES, *one, mask) for one in zip(some, activations, scores, strict=True)]
        return found

    def _change(self, seen: Seen, place: Place) -> Residual:
        _, position, feature = place
        at = torch.ones_like(seen.features[..., 0])
        if position >= 0:
            at = (self.runs.frame.positions == position).to(at).expand_as(at)
        if feature < 0:
            return seen.error_change * at[..., None]
        moved = seen.feature_change[..., feature] * at
        return seen.one.coder.spread(moved[..., None] * seen.one.W_dec[feature], seen.read)
