"""Predicted against measured: units of an attribution graph silenced in the real model, one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from attribution.tracing.changed import Attention, run_changed
from attribution.tracing.effects import default_batch
from attribution.tracing.logits import logit_targets, logit_values, raw_logits
from attribution.tracing.totals import scores_at
from attribution.tracing.units import Places
from circuits.tracing.asked import shares_of
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.intervention import subject, unit_name
from circuits.tracing.subject import Subject
from interp import numbers, theme
from interp.errors import InputError, choose
from interp.interval import Interval
from interp.running import evaluated, settled
from metrics.agreement_table import AgreementTable, combine
from metrics.correlation import agreement


def check(graph: AttributionGraph, n: int, attention: Attention, interval: Interval) -> AgreementTable:
    """See `AttributionGraph.check`."""
    of = subject(graph)
    choose("attention", attention, get_args(Attention))
    units = graph.nodes[graph.nodes["kind"].isin(of.units.kinds)].sort_values(
        "influence", ascending=False, kind="stable"
    )
    numbers.whole("n", n, numbers.Limits(3, len(units), advice=f"the graph shows {len(units)} units"))
    top = Places.of(torch.from_numpy(units[["layer", "position", "unit"]].head(n).to_numpy(copy=True)))
    tables = {}
    with settled(), evaluated(of.model), torch.no_grad():
        for group, places in (("top", top), ("random", drawn(of, n, interval.seed))):
            predicted, measured = _compared(of, places, attention)
            tables[group] = agreement(
                measured.numpy(), {"score": predicted.numpy()},
                labels=[unit_name(of.units.kind_of(c), (a, b, c)) for a, b, c in places.rows().tolist()],
                top=(), drop=(0, 1) if n > 3 else (0,),
                resamples=interval.resamples, confidence=interval.confidence, seed=interval.seed,
            )  # fmt: skip
    return replace(combine(tables, "group"), about=theme.named(graph.model, "".join(graph.tokens)))


def _compared(of: Subject, places: Places, attention: Attention) -> tuple[Tensor, Tensor]:
    """By how much the explained logits fall when each unit alone is silenced: as scores say, and really."""
    held, sides, shares = of.held, of.explained.sides, shares_of(of.explained)
    targets, _ = logit_targets(held, sides, of.centred)
    predicted = scores_at(held, of.units, targets, shares, places).double()
    weights = shares.double().cpu()

    def value(raw: Tensor) -> Tensor:
        return logit_values(held.anatomy, raw, sides, of.centred).double().cpu() @ weights

    clean, measured = value(raw_logits(held.anatomy, held.stream[-1])), []
    for some in torch.arange(len(places), device="cpu").split(default_batch(held)):
        copies, values = torch.arange(len(some), device="cpu"), predicted.new_zeros(len(some))
        changed = run_changed(held, of.units, places.select(some), copies, values, attention)
        measured.append(clean - value(changed))
    return predicted, torch.cat(measured)


def drawn(of: Subject, n: int, seed: int) -> Places:
    """Units drawn at random from all that are active."""
    counts, active = [], []
    for layer in range(of.held.n_layers):
        activations = of.units.activations(layer) != 0
        activations[list(of.leave_out)] = False
        active.append(activations.flatten().nonzero()[:, 0].cpu())
        counts.append(len(active[-1]))
    if n > sum(counts):
        raise InputError(f"n={n} is more than the {sum(counts):,} units that are active")
    generator = torch.Generator("cpu").manual_seed(seed)
    picks = torch.randperm(sum(counts), generator=generator, device="cpu")[:n].sort().values
    rows, first = [], 0
    for layer, flat in enumerate(active):
        here = flat[picks[(picks >= first) & (picks < first + len(flat))] - first]
        numbers_here = of.units.numbers(layer).cpu()
        width = max(1, len(numbers_here))
        rows.append(torch.stack((torch.full_like(here, layer), here // width, numbers_here[here % width]), 1))
        first += len(flat)
    return Places.of(torch.cat(rows))
