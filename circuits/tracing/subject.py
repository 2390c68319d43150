"""What a graph was made of, for what runs the model again; a file does not hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attribution.tracing.components import Components
from attribution.tracing.features import Features, check_dictionaries
from attribution.tracing.held import Held
from attribution.tracing.logits import Explained, logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.units import Units
from circuits.tracing.asked import shares_of
from interp.errors import InputError


@dataclass(frozen=True)
class Subject:
    """The model, the prompt's held run, its units, what is explained and how, and positions that are left out."""

    model: Any
    held: Held
    units: Units
    explained: Explained
    centred: bool
    leave_out: tuple[int, ...]


def units_of(held: Held, given: Any, explained: Explained, centred: bool) -> Units:
    """Neurons, heads and MLPs as to what is explained, or features of dictionaries. Raises `InputError` for others."""
    if isinstance(given, str):
        if given == "neurons":
            return Neurons(held)
        if given != "heads":
            raise InputError(
                f"units={given!r} is unknown; give 'neurons', 'heads', or a list of attribution.Dictionary"
            )
        targets, _ = logit_targets(held, explained.sides, centred)
        return Components(held, targets, shares_of(explained))
    return Features(held, check_dictionaries(held, given))
