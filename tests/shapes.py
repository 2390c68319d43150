"""Shapes and types of signatures, checked while the tests run: jaxtyping's import hook with beartype.

Where tensors are computed with. Public functions are left out: they refuse what does not fit in their own words.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOMS = (
    "interp.kernels", "interp.selection.paths", "interp.anatomy", "interp.parts", "interp.mlps", "interp.rotary",
    "attribution.gradients", "attribution.inside", "attribution.exact", "attribution.patching", "attribution.decompx",
    "metrics.circuit", "metrics.percentiles",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


def exported() -> set[str]:
    """Names in any `__all__` of the packages, read without importing them."""
    names: set[str] = set()
    for package in ("interp", "attribution", "metrics", "circuits"):
        for path in (ROOT / package).rglob("__init__.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    names |= set(ast.literal_eval(node.value))
    return names


PUBLIC = exported()
_CHANCE = random.Random(0)
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the import hook puts around every function of these rooms."""
    if function.__qualname__.split(".")[0] in PUBLIC:
        return function
    found = _checked(function)
    # of a list it looks at one item by chance: not by the global generator, which tests watch
    for name in getattr(found, "__kwdefaults__", None) or ():
        if name.endswith("getrandbits"):
            found.__kwdefaults__[name] = _CHANCE.getrandbits
    return found


def install() -> None:
    """To be called before any of the packages is imported."""
    install_import_hook(ROOMS, "tests.shapes.checked")
