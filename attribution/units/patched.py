"""Single neurons really patched: the truth that approximations are measured against.

    score = M(clean) - M(clean with that one neuron corrupted)

A neuron writes along a known vector, so patching it changes the residual stream behind its layer and nothing before.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.exact import patching_sizes
from attribution.patching import Patcher
from attribution.units.hidden import corrupted_neurons, direction, mean_neurons
from attribution.units.sinks import AXES
from interp import numbers
from interp.errors import InputError, short
from interp.kernels.batching import Batch, make_batches
from interp.kernels.forward import Residual
from interp.kernels.neurons import Means, hear_neurons, in_stream, widths
from interp.mlps import Hidden
from interp.parts import working
from interp.setting import Setting

Place = tuple[int, int, int]  # layer, position (-1: all together), neuron


def places_of(only: Any, setting: Setting) -> list[Place]:
    """Neurons as `(layer, neuron)` or `(layer, position, neuron)`. Raises `InputError` for what is none."""
    counts, length = widths(setting.anatomy), setting.prompts.clean.shape[1]
    given = only.tolist() if hasattr(only, "tolist") else only
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputError(f"only must list neurons as (layer, neuron) or (layer, position, neuron); got {short(only)}")
    return [_place(one, counts, length) for one in given]


def _place(given: Any, counts: list[int], length: int) -> Place:
    parts = [numbers.read(part) for part in given] if isinstance(given, Sequence) else []
    if len(parts) == 2:
        parts = [parts[0], -1, parts[1]]
    whole = [part for part in parts if isinstance(part, int)]
    if len(whole) == len(parts) == 3:
        layer, position, neuron = whole
        lowest = -1 if len(given) == 2 else 0
        if 0 <= layer < len(counts) and lowest <= position < length and 0 <= neuron < counts[layer]:
            return layer, position, neuron
    raise InputError(
        f"only holds {short(given)}; a neuron is (layer, neuron) or (layer, position, neuron), with layers up to "
        f"{len(counts) - 1}, positions up to {length - 1} and neurons up to {max(counts) - 1}"
    )


def patch_neurons(
    setting: Setting, places: Sequence[Place], mask: Bool[Tensor, "n pos"]
) -> tuple[pd.DataFrame, Float[Tensor, " n"]]:
    """Columns prompt, layer, position (-1: all), neuron, activation (NaN for all), score, where `mask` is True.

    Beside it the objective of the clean prompts.

    Cost: about half a forward pass for each neuron and prompt.
    """
    size, stacked = patching_sizes(setting)
    means = mean_neurons(setting) if str(setting.ablation).startswith("mean") else None
    frames: list[pd.DataFrame] = []
    clean = torch.zeros(len(setting), dtype=torch.float64, device="cpu")
    skip = setting.ablator.skip_prefix
    with setting.run.progress("patching neurons", len(places) * len(setting)) as bar, torch.inference_mode(False):
        for batch in make_batches(setting.prompts, size, setting.anatomy.device, skip_prefix=skip):
            patcher = Patcher(setting.anatomy, setting.graph, setting.ablator, setting.goal, batch, stacked)
            clean[list(batch.indices)] = patcher.clean_value[0].cpu()
            frames += _BatchPatched(setting, patcher, batch, places, means).frames(mask)
            bar.advance(len(places) * len(batch))
    found = pd.concat(frames, ignore_index=True)
    order = found["score"].abs().sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True), clean


def mean_patched(setting: Setting, neurons: Sequence[tuple[int, int]]) -> Float[Tensor, " neuron"]:
    """What patching each neuron, `(layer, neuron)`, at all positions does, as a mean over prompts."""
    mask = setting.prompts.mask
    frame, _ = patch_neurons(setting, [(layer, -1, neuron) for layer, neuron in neurons], mask)
    means = frame.groupby(["layer", "neuron"])["score"].mean()
    return torch.tensor([float(means[place]) for place in neurons], dtype=torch.float64, device="cpu")


class _BatchPatched:
    """The chosen neurons of one batch: their differences, and what patching them does."""

    @torch.no_grad()
    def __init__(
        self, setting: Setting, patcher: Patcher, batch: Batch, places: Sequence[Place], means: Means | None
    ) -> None:
        self.setting, self.patcher, self.batch = setting, patcher, batch
        self.by_layer: dict[int, list[Place]] = defaultdict(list)
        for place in places:
            self.by_layer[place[0]].append(place)
        self.differences: dict[int, Tensor] = {}  # [batch, pos, place] of each layer
        self.activations: dict[int, Tensor] = {}
        anatomy, frame = setting.anatomy, patcher.frame

        def hear(layer: int, hidden: Hidden, written: Residual) -> None:
            chosen = [neuron for _, _, neuron in self.by_layer[layer]]
            inside = in_stream(anatomy.blocks[layer], hidden, written)
            clean, other = corrupted_neurons(means, layer, inside, len(batch), frame.positions)
            self.differences[layer] = (clean - other)[..., chosen]
            self.activations[layer] = hidden[: len(batch)][..., chosen]

        prompts, start = batch.prompts, batch.start
        sides = [prompts.clean, prompts.corrupted] if setting.ablation == "patch" else [prompts.clean]
        embedding = torch.cat([anatomy.embed(tokens[:, start:], frame.positions) for tokens in sides])
        hear_neurons(frame, embedding, batch, hear)

    def frames(self, mask: Bool[Tensor, "n pos"]) -> list[pd.DataFrame]:
        """A table for each neuron."""
        found = []
        for layer, places in self.by_layer.items():
            if places:
                changes = functools.partial(self._changes, layer)
                scores = self.patcher.lowered(layer + 1, list(range(len(places))), changes)
                found += [self._frame(*one, mask) for one in zip(places, range(len(places)), scores, strict=True)]
        return found

    def _changes(self, layer: int, some: list[int]) -> Tensor:
        """What each neuron's corruption takes from the residual stream, [neuron, batch, pos, d_model]."""
        block, places = self.setting.anatomy.blocks[layer], self.by_layer[layer]
        changes = []
        for i in some:
            _, position, neuron = places[i]
            difference = working(self.differences[layer][..., i])
            if position >= 0:
                here = self.patcher.frame.positions == position
                difference = torch.where(here, difference, 0.0)
            changes.append(difference[..., None] * direction(block, neuron))
        return torch.stack(changes)

    def _frame(self, place: Place, i: int, scores: Tensor, mask: Bool[Tensor, "n pos"]) -> pd.DataFrame:
        layer, position, neuron = place
        indices, inside = torch.tensor(self.batch.indices, device="cpu"), position - self.batch.start
        activations = torch.full((len(indices),), float("nan"), dtype=torch.float64, device="cpu")
        if 0 <= inside < self.batch.n_positions:
            activations = self.activations[layer][:, inside, i].to("cpu", torch.float64)
        kept = torch.ones(len(indices), dtype=torch.bool, device="cpu") if position < 0 else mask[indices, position]
        columns = dict(zip(AXES, (indices[kept].numpy(), layer, position, neuron), strict=True))
        return pd.DataFrame(columns | {"activation": activations[kept].numpy(), "score": scores[kept].numpy()})
