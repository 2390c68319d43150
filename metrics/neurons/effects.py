"""`neuron_effects`: neurons suppressed or amplified, beside random neurons of like layers and norms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.interval import Interval, IntervalKeywords
from interp.kernels.scaling import scaled_values
from interp.keywords import check_keywords
from interp.node_mask import NodeMask, node_masks
from interp.objectives import get_objective
from interp.run import Run, RunKeywords
from interp.running import door
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.controls import random_nodes
from metrics.neurons.effects_result import Effect, NeuronEffects
from metrics.statistics import bootstrapped
from metrics.testing import paired_test

Array = NDArray[np.float64]


class EffectKeywords(RunKeywords, IntervalKeywords, total=False):
    """The keywords of `neuron_effects`."""


@numbers.checked(factors=numbers.FROM_ZERO)
@door
def neuron_effects(
    model: Any,
    task: Task,
    neurons: Any,
    factors: Sequence[float] = (0.0, 2.0),
    *,
    others: Sequence[Task] = (),
    n_random: int = 5,
    **keywords: Unpack[EffectKeywords],
) -> NeuronEffects:
    """Suppress (factor 0) or amplify (factor 2) neurons at every position, and measure what changes.

    Use prompts that did not choose the neurons: those they were chosen on show an effect of chance too.

    Args:
        model: what `interp.load_model` returns.
        task: prompts to measure on.
        neurons: a circuit of level `neuron` (`NeuronContrast.survivors()`), anything with such a `.mask` and `.level`,
            or bool [layer, d_mlp].
        factors: what the neurons' activations are multiplied with, at least 0; 1 changes nothing.
        others: further tasks to measure on, so that harm elsewhere is seen.
        n_random: random sets of as many neurons, of the same layers and nearest in norm on `task`.
        **keywords: `batch_size`, `memory`, `quiet` (`interp.run.Run`); `confidence`, `resamples` of the intervals over
            prompts, `seed` of these and of the random neurons.

    Returns:
        `NeuronEffects`: for each task its own objective and accuracy, clean, scaled, and their difference prompt by
        prompt, with intervals; the difference that random neurons make, and the p-value of one against the other.

    Cost: (1 + n_random) x factors forward passes for each task, and three more.

    Raises:
        InputError: a mask of another shape or level, no neurons, no factors or negative ones.
    """
    check_keywords("neuron_effects", keywords, EffectKeywords)
    started, interval = time.perf_counter(), Interval.of(keywords)
    setting = Setting(model, task, ablation="zero", run=Run.of(keywords))
    mask = _mask(neurons, setting)
    times = numbers.many("factors", factors, numbers.real, numbers.FROM_ZERO)
    if not times:
        raise InputError("factors is empty; 0 suppresses the neurons, 2 doubles them")
    sets = [mask, *random_nodes(setting, [mask], n_random, interval.seed)]
    scalings = torch.cat([_scalings(one.mask, times) for one in sets])
    effects: list[Effect] = []
    for one in (setting, *(setting.on(other) for other in others)):
        effects += _effects(one, scalings, times, interval)
    return NeuronEffects(
        effects=effects,
        n_neurons=mask.n_nodes,
        n_random=n_random,
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
        settings={"seed": interval.seed, "tasks": [one.to_dict()["sha256"] for one in (task, *others)]},
    )


def _mask(neurons: Any, setting: Setting) -> NodeMask:
    found = node_masks(neurons, getattr(neurons, "level", "neuron"))
    if found is None or len(found) != 1 or found[0].level != "neuron" or found[0].spans is not None:
        raise InputError("neurons must be one circuit of level 'neuron' at all positions, or bool [layer, d_mlp]")
    mask = NodeMask(found[0].check(setting.nodes("neuron").full, setting.anatomy.name), "neuron")
    if not mask.n_nodes:
        raise InputError("neurons is empty: there is nothing to scale")
    return mask


def _scalings(mask: Tensor, factors: Sequence[float]) -> Float[Tensor, "factor layer d_mlp"]:
    """What every neuron is multiplied with: those outside of the mask with one."""
    own = torch.tensor(list(factors), dtype=torch.float64, device="cpu")[:, None, None]
    return torch.where(mask, own, 1.0)


def _effects(
    setting: Setting, scalings: Float[Tensor, "scaling layer d_mlp"], factors: Sequence[float], interval: Interval
) -> list[Effect]:
    """Of one task: scalings are those of the neurons, factor by factor, and of each random set in turn."""
    goals = {goal.name: goal for goal in (setting.goal, get_objective("accuracy"))}
    name = setting.task.name
    with setting.run.progress(f"scaling neurons on {name}", len(scalings) * len(setting)) as bar:
        found = scaled_values(setting.nodes("neuron"), scalings, [*goals.values()], setting.run, bar.advance)
    effects = []
    for goal, values in zip(goals, found.double().numpy(), strict=True):
        scaled = values[1:].reshape(-1, len(factors), len(setting))
        for number, factor in enumerate(factors):
            effects.append(_effect((name, goal, factor), values[0], scaled[:, number], interval))
    return effects


def _effect(what: tuple[str, str, float], clean: Array, scaled: Array, interval: Interval) -> Effect:
    """From values by prompt: clean [n], and scaled [1 + n_random, n]."""
    changes = scaled - clean
    rows = [clean, scaled[0], changes[0]] + ([changes[1:].mean(0)] if len(changes) > 1 else [])
    estimates = bootstrapped(np.stack(rows), lambda means: means, interval)
    p = paired_test(rows[2], rows[3], seed=interval.seed) if len(rows) > 3 else float("nan")
    own, after, change = estimates[:3]
    return Effect(*what, own, after, change, estimates[3] if len(rows) > 3 else None, p)
