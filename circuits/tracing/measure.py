"""What an attribution graph holds, measured: candidates, those that influence chooses, and their rows."""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor

from attribution.tracing.component_effects import ComponentTracer
from attribution.tracing.components import Components
from attribution.tracing.effects import Effects, RowMaker, Tracer, default_batch
from attribution.tracing.held import Held
from attribution.tracing.logits import logit_targets
from attribution.tracing.totals import Candidates, largest
from attribution.tracing.units import MLPUnits, Places, Units
from circuits.tracing.asked import shares_of
from circuits.tracing.build import Found
from circuits.tracing.cost import TraceCost, estimate
from circuits.tracing.resuming import KeptRows
from circuits.tracing.select import choose_units, counted
from circuits.tracing.subject import Subject
from interp.errors import InputError
from interp.kernels.batching import budget_of
from interp.run import Run

MOST = 10_000  # candidates, by |score|, among which influence chooses
_LONG = 10.0  # seconds, from which on what is expected is told
logger = logging.getLogger(__name__)


def measure(about: Subject, top: int | None, run: Run, resume: str | os.PathLike[str] | None = None) -> Found:
    """The `top` units of largest influence (None: all), with their effects; `InputError` for more than there are.

    Rows are kept in the file `resume`, if any, and those that it has are not made again.
    """
    held, units, asked = about.held, about.units, about.explained
    logits, values = logit_targets(held, asked.sides, about.centred)
    wanted, whole = _wanted(about, top)
    candidates = largest(held, units, logits, shares_of(asked), MOST, about.leave_out)
    tracer = _tracer(held, units, candidates.places, run)
    if resume is not None:
        tracer = KeptRows(tracer, resume, _told(about, whole), units.at(candidates.places))
    cost = estimate(units, len(asked.sides) + wanted, len(candidates.places), not whole)
    if cost.seconds > _LONG:
        logger.info("tracing %s", cost)
    with run.progress("tracing", cost.rows) as bar:
        chosen = choose_units(tracer, logits, asked.weights, wanted, not whole, bar.advance)
    order = _order(candidates, chosen.columns)
    columns = chosen.columns[order]
    effects = _rows(chosen.effects, order, columns, len(logits))
    return Found(
        kinds=[units.kind_of(unit) for unit in candidates.places.units[columns].tolist()],
        units=candidates.places.select(columns),
        activations=units.at(candidates.places.select(columns)),
        scores=candidates.scores[columns],
        effects=effects,
        ids=held.ids.tolist(),
        token_scores=candidates.tokens,
        logits=[these[0] for these, _ in asked.sides],
        values=values,
        chances=asked.weights,
        magnitude=counted(effects),
        places=tracer.biases.places,
        n_layers=held.n_layers,
    )


def measured_cost(about: Subject, top: int | None) -> TraceCost:
    """What `measure` will take."""
    wanted, whole = _wanted(about, top)
    candidates = min(MOST, _active(about.units, about.leave_out))
    return estimate(about.units, len(about.explained.sides) + wanted, candidates, not whole)


def _told(about: Subject, whole: bool) -> dict[str, object]:
    """What rows depend on."""
    anatomy = about.held.anatomy
    return {
        "model": anatomy.name,
        "weights": anatomy.weights_digest(),
        "dtype": str(anatomy.dtype),
        "ids": about.held.ids.tolist(),
        "sides": about.explained.sides,
        "units": about.units.kind,
        "centred": about.centred,
        "leave_out": about.leave_out,
        "magnitudes": not whole,
    }


def _tracer(held: Held, units: Units, candidates: Places, run: Run) -> RowMaker:
    size = run.batch_size or _rows_at_once(held, units, run.memory)
    if isinstance(units, Components):
        return ComponentTracer(held, units, candidates, size)
    assert isinstance(units, MLPUnits)
    return Tracer(held, units, candidates, size)


def _active(units: Units, leave_out: tuple[int, ...]) -> int:
    """How many units are active at positions that count."""
    total = 0
    for layer in range(units.held.n_layers):
        active = units.activations(layer) != 0
        active[list(leave_out)] = False
        total += int(active.sum())
    return total


def _wanted(about: Subject, top: int | None) -> tuple[int, bool]:
    """How many units are shown, and whether these are all, so that nothing left out would have to be counted."""
    units = about.units
    active = _active(units, about.leave_out)
    named = " and ".join(f"{kind}s" for kind in units.kinds)
    if top is not None and top > active:
        raise InputError(f"top={top:,} is more than the {active:,} {named} that are active; top=None shows all of them")
    if (wanted := active if top is None else top) > MOST:
        raise InputError(f"top={top} would show {wanted:,} {named}; a graph shows at most {MOST:,}: give a smaller top")
    return wanted, wanted == active and not about.leave_out


def _rows_at_once(held: Held, units: Units, memory: int | None) -> int:
    """As many as fit into a processor's cache, and into the memory budget with one layer's units."""
    widest = max(units.activations(layer).shape[1] for layer in range(held.n_layers))
    each = held.n_positions * (4 * held.anatomy.d_model + 2 * widest) * held.words.element_size()
    return max(1, min(default_batch(held), budget_of(held.words.device, memory) // each))


def _order(candidates: Candidates, columns: Tensor) -> Tensor:
    """By layer, position and unit."""
    rows = candidates.places.select(columns).rows().tolist()
    return torch.tensor(sorted(range(len(rows)), key=rows.__getitem__), dtype=torch.long, device="cpu")


def _rows(effects: Effects, order: Tensor, columns: Tensor, n_logits: int) -> Effects:
    """Effects of the chosen units on the logits and on themselves, in order."""
    rows = torch.cat((torch.arange(n_logits, device="cpu"), order + n_logits)).to(effects.tokens.device)
    return Effects(
        tokens=effects.tokens[rows],
        units=effects.units[rows][:, columns.to(rows.device)],
        errors=effects.errors[rows],
        biases=effects.biases[rows],
        everything=effects.everything[rows],
        magnitude=None if effects.magnitude is None else effects.magnitude[rows],
    )
