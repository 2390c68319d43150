"""A circuit judged on prompts that nothing was chosen on: the figures of a `Report`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from circuits.report import Report
from interp.interval import Interval
from interp.kernels.evaluate import CircuitValues
from interp.selection.named import Mask
from interp.setting import Setting
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.output import OUTPUT_OBJECTIVES, OutputAgreement

logger = logging.getLogger(__name__)


def beside(values: CircuitValues) -> CircuitValues:
    """The first circuit, and, where there are others, their mean behind it.

    It stands for them all: the mean circuit's faithfulness is the mean of theirs, the ratio being linear in M(circuit).
    """
    if len(values.circuits) < 2:
        return values
    mean = values.circuits[1:].mean(0, keepdim=True)
    return CircuitValues(values.clean, values.empty, torch.cat((values.circuits[:1], mean)))


def judged(setting: Setting, mask: Mask, others: Sequence[Mask], interval: Interval) -> Report:
    """Measure a circuit, and random ones of its size, on the setting's prompts."""
    graph, n_edges = setting.graph, int(mask.sum())
    values, minus_kl, same = setting.measure_all(torch.stack([mask, *others]), (None, *OUTPUT_OBJECTIVES))
    estimate, *random = faithfulness_in(beside(values), interval)
    gap = float((values.clean - values.empty).mean())
    return Report(
        faithfulness=estimate.value,
        interval=(estimate.low, estimate.high),
        n_held_out=len(setting),
        clean=float(values.clean.mean()),
        corrupted=float(values.empty.mean()),
        circuit=float(values.circuits[0].mean()),
        ablation=setting.ablation,
        objective=setting.goal.name,
        edges=n_edges,
        fraction=n_edges / graph.n_edges,
        random_faithfulness=random[0].value if random else None,
        random_interval=(random[0].low, random[0].high) if random else None,
        per_prompt={
            "clean": values.clean.tolist(),
            "empty": values.empty.tolist(),
            "circuit": values.circuits[0].tolist(),
        },
        output=OutputAgreement.of(minus_kl, same, interval).records(),
        notes=_notes(estimate.value, gap, len(setting), n_edges, graph.n_edges),
    )


def _notes(value: float, gap: float, n_held_out: int, n_edges: int, n_all: int) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = []
    if not math.isfinite(value) or gap <= 0:
        notes.append(
            "On the held-out prompts the model does no better clean than ablated: there is no behaviour to explain, "
            "and faithfulness means nothing. See task.check(model)."
        )
    if n_held_out < 16:
        notes.append(f"Only {n_held_out} held-out prompts: the interval is rough.")
    if n_edges == 0:
        notes.append(
            "The circuit holds no edges: none of those selected lie on a path from the input to the logits. Ask for "
            "more edges, for selection='connected', or, if it is stable, for a lower share (stable=Stable(share=0.5))."
        )
    if n_edges > n_all // 2:
        notes.append("The circuit holds more than half of all edges: it says little about where the behaviour is.")
    for note in notes:
        logger.warning(note)
    return notes
