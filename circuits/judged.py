"""A circuit judged on prompts that nothing was chosen on: the figures of a `Report`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from circuits.report import Report
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.node_mask import NodeMask
from interp.selection.named import Mask
from interp.setting import MaskObject, Setting
from interp.tasks.notes import notes as of_prompts
from metrics.circuit.battery import Reference, battery_in
from metrics.circuit.elements import elements_of
from metrics.circuit.evaluate import faithfulness_in, together
from metrics.circuit.output import OUTPUT_OBJECTIVES, OutputAgreement
from metrics.testing import Testing

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


@dataclass(frozen=True)
class Measured:
    """A circuit on some prompts.

    Attributes:
        values: objectives of the model, of the empty circuit, and of the circuit with random ones behind it.
        own, random: faithfulness of the circuit, and of the random ones on average.
        output: agreement of the whole output.
        complement: faithfulness of the nodes that a circuit of nodes leaves out, alone.
        behaviour: share of the behaviour that is lost when all nodes of its level are ablated.
    """

    values: CircuitValues
    own: Estimate
    random: Estimate | None
    output: OutputAgreement
    complement: Estimate | None = None
    behaviour: float | None = None


def measured(
    setting: Setting, mask: Mask | MaskObject, others: Sequence[Mask | MaskObject], interval: Interval
) -> Measured:
    """Measure a circuit, and random ones of its size, on the setting's prompts; of nodes what it leaves out, too."""
    left = [~mask] if isinstance(mask, NodeMask) else []
    found = setting.measure_all(together([mask, *others, *left]), (None, *OUTPUT_OBJECTIVES))
    values, minus_kl, same = (one.only(slice(1 + len(others))) for one in found)
    own, *random = faithfulness_in(beside(values), interval)
    of_all = Measured(values, own, random[0] if random else None, OutputAgreement.of(minus_kl, same, interval))
    if not left:
        return of_all
    (complement,) = faithfulness_in(found[0].only([-1]), interval)
    nothing = setting.measure(setting.graph.edge_mask[None][:0])
    whole, gap = (float((one.clean - one.empty).double().mean()) for one in (nothing, values))
    return replace(of_all, complement=complement, behaviour=gap / whole if whole else math.nan)


def judged(
    setting: Setting, mask: Mask | MaskObject, others: Sequence[Mask | MaskObject], interval: Interval
) -> Report:
    """What is measured as a report, with what a reader must know to trust it; notes are logged, too."""
    found = measured(setting, mask, others, interval)
    values, own, random = found.values, found.own, found.random
    report = Report(
        faithfulness=own.value,
        interval=(own.low, own.high),
        n_held_out=len(setting),
        clean=float(values.clean.mean()),
        corrupted=float(values.empty.mean()),
        circuit=float(values.circuits[0].mean()),
        ablation=setting.ablation,
        objective=setting.goal.name,
        random_faithfulness=None if random is None else random.value,
        random_interval=None if random is None else (random.low, random.high),
        per_prompt={
            "clean": values.clean.tolist(),
            "empty": values.empty.tolist(),
            "circuit": values.circuits[0].tolist(),
        },
        output=found.output.records(),
    )
    elements, kept = elements_of(setting, mask)
    size, n_all = elements.count(kept), len(elements.places)
    gap = float((values.clean - values.empty).mean())
    notes = _notes(own.value, gap, len(setting), size, n_all, elements.level)
    report = replace(report, level=elements.level, fraction=size / n_all)
    report = replace(report, edges=size) if elements.level == "edge" else replace(report, nodes=size)
    if found.behaviour is not None and found.complement is not None:
        report = _of_nodes(report, setting, found.complement, found.behaviour)
        notes += _elsewhere(elements.level, found.behaviour)
    for note in notes:
        logger.warning(note)
    return replace(report, notes=[*notes, *of_prompts(setting.prompts)])


def _of_nodes(report: Report, setting: Setting, complement: Estimate, behaviour: float) -> Report:
    """What is told of nodes alone: the complement, and how much of the behaviour runs through them."""
    return replace(
        report,
        complement=complement.value,
        complement_interval=(complement.low, complement.high),
        behaviour=behaviour,
        errors=setting.features.errors if report.level == "feature" and setting.features is not None else None,
    )


def _elsewhere(level: str, behaviour: float) -> list[str]:
    if not behaviour < LEAST_BEHAVIOUR:
        return []
    return [
        f"With all {level}s ablated only {behaviour:.0%} of the behaviour is lost: it runs elsewhere, and "
        "faithfulness is about that small part."
    ]


def with_tests(report: Report, setting: Setting, mask: Mask | MaskObject, reference: Reference, seed: int) -> Report:
    """A report with the hypothesis tests of the circuit on the setting's prompts."""
    made = battery_in(setting, mask, reference, Testing(permutations=1000), seed=seed)
    records = [{str(key): value for key, value in row.items()} for row in made.to_frame().to_dict("records")]
    return replace(report, tests=records, notes=[*report.notes, *made.notes])


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
    if size == 0 and level != "edge":
        notes.append(
            f"The circuit holds no {level}s: none is selected by so many resamples. Ask for more nodes, or for a lower "
            "share (stable=Stable(share=0.5))."
        )
    elif size == 0:
        notes.append(
            "The circuit holds no edges: none of those selected lie on a path from the input to the logits. Ask for "
            "more edges, for selection='connected', or, if it is stable, for a lower share (stable=Stable(share=0.5))."
        )
    if size > n_all // 2:
        notes.append(f"The circuit holds more than half of all {level}s: it says little about where the behaviour is.")
    return notes
