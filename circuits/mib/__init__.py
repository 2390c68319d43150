"""What the circuit-localisation track of the MIB benchmark (Mueller et al. 2025, arXiv:2504.13151) exchanges."""

from circuits.formats.mib_folder import Entry, check, read, write_circuits, write_importances
from circuits.formats.mib_names import COLUMNS, MODELS, SIZES, entry_name
from circuits.mib.areas import evaluate

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
