"""What the circuit-localisation track of the MIB benchmark (Mueller et al. 2025, arXiv:2504.13151) exchanges."""

from typing import Any

from circuits.formats.mib_folder import Entry, check, read, write_circuits, write_importances
from circuits.formats.mib_names import COLUMNS, MODELS, SIZES, entry_name
from circuits.mib.areas import evaluate
from interp.renamed import gone

__all__ = [
    "COLUMNS",
    "MODELS",
    "SIZES",
    "Entry",
    "check",
    "entry_name",
    "evaluate",
    "read",
    "write_circuits",
    "write_importances",
]

_BOTH = "evaluate(model, task, entry) takes what read(folder) gives, of either kind"


def __getattr__(name: str) -> Any:
    raise gone(__name__, name, {"evaluate_scores": _BOTH, "evaluate_circuits": _BOTH})
