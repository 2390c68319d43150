"""Faithfulness at the sizes that the page's slider passes through, measured when the page is made.

A size is a number of the page's edges: the strongest of the circuit below its own size, the circuit and the strongest
edges beside it beyond. Those circuits are run, and as many random ones of each size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.circuit import Circuit
from circuits.found import Found
from circuits.viewer.adjacency import Adjacency
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.controls import random_controls
from metrics.circuit.evaluate import faithfulness_in

GROWN_BY = 400  # edges beside the circuit that its page holds, so that the slider can grow it
MOST_PROMPTS = 8  # that sizes are measured on: a page is made in seconds
N_RANDOM = 1  # random circuits of each size; each prompt sees all sizes
STEPS_PER_DECADE = (1, 3)
APART = 1.5  # a size nearer than this to the circuit's own, or to that of all, says nothing of its own


@dataclass(frozen=True)
class Prompts:
    """The prompts of a page as what they are to the circuit: `of` says it, `same` whether it was found on these."""

    setting: Setting
    of: str
    same: bool


def prompts_of(model: Any, task: Task, circuit: Found) -> Prompts:
    """The prompts that a page's figures are measured on: of the circuit's own task those that chose it."""
    setting = Setting.of(model, task, {"kv": circuit.graph.kv}, circuit)
    known, share = circuit.provenance, circuit.provenance.get("scoring_share")
    if not found_on(circuit, task):
        return Prompts(setting.first(MOST_PROMPTS), "prompts of the page, not of the circuit", same=False)
    if not share or not isinstance(known["seed"], int):
        return Prompts(setting.first(MOST_PROMPTS), "prompts of the circuit's task", same=True)
    return Prompts(setting.split(share, known["seed"])[0].first(MOST_PROMPTS), "scoring prompts", same=True)


def found_on(circuit: Found, task: Task) -> bool:
    """Whether a circuit was found on these prompts; where it does not know, it is taken to be."""
    return circuit.setting.task in (None, task.to_dict()["sha256"])


def sizes(chosen: int, held: int) -> list[int]:
    """1, 3, 10, 30 and so on up to all edges that the page holds, with the circuit's own size and that of all.

    >>> sizes(25, 425)
    [1, 3, 10, 25, 100, 425]
    """
    if not held:
        return []
    decades = range(math.ceil(math.log10(held)) + 1)
    grown = {step * 10**decade for decade in decades for step in STEPS_PER_DECADE}
    ends = {held, *([chosen] if chosen else [])}
    return sorted(ends | {size for size in grown if size < held and all(_apart(size, end) for end in ends)})


def _apart(size: int, other: int) -> bool:
    """Whether two sizes tell two things."""
    return max(size, other) >= APART * min(size, other)


def both_measured(circuits: Sequence[Circuit], prompts: Prompts) -> list[dict[str, float]]:
    """A row for each circuit: edges and faithfulness with its interval, of all on the same prompts."""
    own = faithfulness_in(prompts.setting.measure(torch.stack([one.mask for one in circuits])), Interval())
    return [{"edges": one.n_edges} | _columns("", value) for one, value in zip(circuits, own, strict=True)]


def measured(circuit: Circuit, edges: Adjacency, prompts: Prompts) -> list[dict[str, float]]:
    """A row per size: edges, faithfulness with its interval over prompts, and the same of random circuits."""
    setting, counts = prompts.setting, sizes(edges.chosen, len(edges.score))
    if not counts:
        return []
    masks = [_first(circuit, edges, count) for count in counts]
    others = random_controls(setting, masks, N_RANDOM, 0)
    values = setting.measure(torch.stack([*masks, *(one for one in others if isinstance(one, Tensor))]))
    means = values.circuits[len(masks) :].unflatten(0, (len(masks), N_RANDOM)).mean(1)
    own = faithfulness_in(values.only(slice(len(masks))), Interval())
    random = faithfulness_in(CircuitValues(values.clean, values.empty, means), Interval())
    rows = [
        {"edges": count} | _columns("", one) | _columns("random", other)
        for count, one, other in zip(counts, own, random, strict=True)
    ]
    return [row for row in rows if "faithfulness" in row]


def _first(circuit: Circuit, edges: Adjacency, count: int) -> Bool[Tensor, "source target"]:
    """The circuit that the page draws at this size; at its own size the circuit itself."""
    if count == edges.chosen == edges.total:
        return circuit.mask
    index = torch.from_numpy(edges.index[:count])
    mask = torch.zeros_like(circuit.mask)
    mask[index[:, 0], index[:, 1]] = True
    return mask


def _columns(name: str, one: Estimate) -> dict[str, float]:
    """An estimate under the names of `Curve.to_frame`; what is not finite is left out."""
    before = f"{name}_" if name else ""
    found = {name or "faithfulness": one.value, f"{before}low": one.low, f"{before}high": one.high}
    return {key: float(f"{value:.5g}") for key, value in found.items() if math.isfinite(value)}
