"""A circuit judged on prompts that nothing was chosen on: the figures of a `Report`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from circuits.report import Report
from interp.interval import Interval
from interp.kernels.evaluate import CircuitValues
from interp.node_mask import NodeMask
from interp.selection.named import Mask
from interp.setting import Setting
from metrics.circuit.evaluate import faithfulness_in, together
from metrics.circuit.output import OUTPUT_OBJECTIVES, OutputAgreement

logger = logging.getLogger(__name__)
LEAST_BEHAVIOUR = 0.2  # share of the behaviour that has to run through the nodes for faithfulness to say much


def beside(values: CircuitValues) -> CircuitValues:
    """The first circuit, and, where there are others, their mean behind it.

    It stands for them all: the mean circuit's faithfulness is the mean of theirs, the ratio being linear in M(circuit).
    """
    if len(values.circuits) < 2:
        return values
    mean = values.circuits[1:].mean(0, keepdim=True)
    return CircuitValues(values.clean, values.empty, torch.cat((values.circuits[:1], mean)))


def judged(setting: Setting, mask: Mask | NodeMask, others: Sequence[Mask | NodeMask], interval: Interval) -> Report:
    """Measure a circuit, and random ones of its size, on the setting's prompts; of nodes what it leaves out, too."""
    left = [~mask] if isinstance(mask, NodeMask) else []
    measured = setting.measure_all(together([mask, *others, *left]), (None, *OUTPUT_OBJECTIVES))
    values, minus_kl, same = (one.only(slice(1 + len(others))) for one in measured)
    estimate, *random = faithfulness_in(beside(values), interval)
    report = Report(
        faithfulness=estimate.value,
        interval=(estimate.low, estimate.high),
        n_held_out=len(setting),
        clean=float(values.clean.mean()),
        corrupted=float(values.empty.mean()),
        circuit=float(values.circuits[0].mean()),
        ablation=setting.ablation,
        objective=setting.goal.name,
        random_faithfulness=random[0].value if random else None,
        random_interval=(random[0].low, random[0].high) if random else None,
        per_prompt={
            "clean": values.clean.tolist(),
            "empty": values.empty.tolist(),
            "circuit": values.circuits[0].tolist(),
        },
        output=OutputAgreement.of(minus_kl, same, interval).records(),
    )
    gap = float((values.clean - values.empty).mean())
    if isinstance(mask, NodeMask):
        return _of_nodes(report, setting, mask, measured[0].only([-1]), gap, interval)
    n_edges, n_all = int(mask.sum()), setting.graph.n_edges
    notes = _notes(estimate.value, gap, len(setting), n_edges, n_all, "edge")
    return replace(report, edges=n_edges, fraction=n_edges / n_all, notes=_told(notes))


def _of_nodes(
    report: Report, setting: Setting, mask: NodeMask, left: CircuitValues, gap: float, interval: Interval
) -> Report:
    """What is told of nodes alone: their number, the complement, and how much of the behaviour runs through them."""
    (complement,) = faithfulness_in(left, interval)
    nothing = setting.measure(setting.graph.edge_mask[None][:0])
    whole = float((nothing.clean - nothing.empty).double().mean())
    behaviour = gap / whole if whole else math.nan
    n_all = NodeMask(setting.nodes(mask.level, mask.spans).full, mask.level, mask.spans).n_nodes
    notes = _notes(report.faithfulness, gap, len(setting), mask.n_nodes, n_all, mask.level)
    if behaviour < LEAST_BEHAVIOUR:
        notes.append(
            f"With all {mask.level}s ablated only {behaviour:.0%} of the behaviour is lost: it runs elsewhere, and "
            "faithfulness is about that small part."
        )
    return replace(
        report,
        level=mask.level,
        nodes=mask.n_nodes,
        fraction=mask.n_nodes / n_all,
        complement=complement.value,
        complement_interval=(complement.low, complement.high),
        behaviour=behaviour,
        errors=setting.features.errors if mask.level == "feature" and setting.features is not None else None,
        notes=_told(notes),
    )


def _told(notes: list[str]) -> list[str]:
    for note in notes:
        logger.warning(note)
    return notes


def _notes(value: float | None, gap: float, n_held_out: int, size: int, n_all: int, level: str) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = []
    if value is None or not math.isfinite(value) or gap <= 0:
        notes.append(
            "On the held-out prompts the model does no better clean than ablated: there is no behaviour to explain, "
            "and faithfulness means nothing. See task.check(model)."
        )
    if n_held_out < 16:
        notes.append(f"Only {n_held_out} held-out prompts: the interval is rough.")
    if size == 0 and level == "edge":
        notes.append(
            "The circuit holds no edges: none of those selected lie on a path from the input to the logits. Ask for "
            "more edges, for selection='connected', or, if it is stable, for a lower share (stable=Stable(share=0.5))."
        )
    if size > n_all // 2:
        notes.append(f"The circuit holds more than half of all {level}s: it says little about where the behaviour is.")
    return notes
