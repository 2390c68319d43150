"""Shapes and types of signatures, checked while the tests run: jaxtyping's import hook with beartype.

Where tensors are computed with; not where anything may be handed in and is refused in a sentence.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOMS = (
    "interp.kernels", "interp.selection", "interp.anatomy", "interp.parts", "interp.mlps", "interp.rotary",
    "attribution.gradients", "attribution.inside", "attribution.exact", "attribution.patching", "attribution.decompx",
    "metrics.circuit", "metrics.percentiles",
)  # fmt: skip

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python


def install() -> None:
    """To be called before any of the packages is imported."""
    install_import_hook(ROOMS, "tests.shapes.checked")
