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
from attribution.units.hidden import corrupted_neurons, mean_neurons
from attribution.units.single import Place, by_size, parts_of, read_places, rows
from attribution.units.sinks import AXES
from interp.errors import InputError, short
from interp.kernels.batching import Batch, make_batches
from interp.kernels.forward import Residual
from interp.kernels.neurons import Means, directions, hear_neurons, in_stream, widths
from interp.mlps import Hidden
from interp.parts import working
from interp.setting import Setting


def places_of(only: Any, setting: Setting) -> list[Place]:
    """Neurons as `(layer, neuron)` or `(layer, position, neuron)`. Raises `InputError` for what is none."""
    counts, length = widths(setting.anatomy), setting.prompts.clean.shape[1]

    def read(given: Any) -> Place:
        place = parts_of(given, length)
        if place is not None and 0 <= place[0] < len(counts) and 0 <= place[2] < counts[place[0]]:
            return place
        raise InputError(
            f"only holds {short(given)}; a neuron is (layer, neuron) or (layer, position, neuron), with layers up to "
            f"{len(counts) - 1}, positions up to {length - 1} and neurons up to {max(counts) - 1}"
        )

    return read_places("only", only, "neurons as (layer, neuron) or (layer, position, neuron)", read)


def patch_neurons(
    setting: Setting, places: Sequence[Place], mask: Bool[Tensor, "n pos"]
) -> tuple[pd.DataFrame, Float[Tensor, " n"]]:
    """Columns prompt, layer, position (-1: all), neuron, activation (NaN for all), score, where `mask` is True.

    Beside it the objective of the clean prompts.

    Cost: about half a forward pass for each neuron and prompt.
    """
    size, stacked = patching_sizes(setting)
    means = mean_neurons(setting)
    frames: list[pd.DataFrame] = []
    clean = torch.zeros(len(setting), dtype=torch.float64, device="cpu")
    skip, ablator = setting.skip_prefix, setting.ablator_at("neuron")
    with setting.run.progress("patching neurons", len(places) * len(setting)) as bar, torch.inference_mode(False):
        for batch in make_batches(setting.prompts, size, setting.anatomy.device, skip_prefix=skip):
            patcher = Patcher(setting.anatomy, setting.graph, ablator, setting.goal, batch, stacked)
            clean[list(batch.indices)] = patcher.clean_value[0].cpu()
            frames += _BatchPatched(setting, patcher, batch, places, means).frames(mask)
            bar.advance(len(places) * len(batch))
    return by_size(frames), clean


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
            clean, other = corrupted_neurons(means, layer, inside, batch.n_rows, frame.positions)
            self.differences[layer] = (clean - other)[..., chosen]
            self.activations[layer] = hidden[: batch.n_rows][..., chosen]

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
                activations = self.activations[layer].unbind(-1)
                found += [rows(self.batch, AXES, *one, mask) for one in zip(places, activations, scores, strict=True)]
        return found

    def _changes(self, layer: int, some: list[int]) -> Tensor:
        """What each neuron's corruption takes from the residual stream, [neuron, batch, pos, d_model]."""
        block, places = self.setting.anatomy.blocks[layer], self.by_layer[layer]
        written = directions(block, torch.tensor([places[i][2] for i in some], device="cpu"))
        changes = []
        for i, direction in zip(some, written, strict=True):
            position = places[i][1]
            difference = working(self.differences[layer][..., i])
            if position >= 0:
                here = self.patcher.frame.positions == position
                difference = torch.where(here, difference, 0.0)
            changes.append(difference[..., None] * direction)
        return torch.stack(changes)
