"""What 0.1 called otherwise: an old keyword is refused with the sentence that names the new way."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.errors import InputError

# old keyword -> what to write now; asked only for keywords that a function no longer takes
NEW_WAY: dict[str, str] = {
    "random": "it is called n_random now: how many random ones are measured beside it",
    "random_circuits": "it is called n_random now: how many random circuits are measured beside it",
    "replacement": "it is called baseline now: what a removed token or pixel becomes",
    "salience": "it is called attributions now: a score for each element",
    "absolute": "it belongs to the selection now: selection=TopN(absolute=False), from interp.selection",
    "reference_size": "it belongs to the reference now: reference=Reference(size=...), from metrics",
    "reference_prompts": "it belongs to the reference now: reference=Reference(prompts=...), from metrics",
    "stable_share": "it belongs to stability now: stable=Stable(share=0.75), from circuits",
}

# those that a parameter replaces, which `interp.numbers.checked` refuses where the new one may be missing
NEW_NAME = {"random": "n_random", "replacement": "baseline", "salience": "attributions"}


class OnceFrame:
    """Of results that were data frames in 0.1: what asks them as one is told the new way."""

    def __getitem__(self, name: object) -> Any:
        raise InputError(f"{self._holds()}: take its columns from .to_frame()")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(pd.DataFrame, name):
            raise AttributeError(f"{self._holds()}: .to_frame().{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _holds(self) -> str:
        return f"{type(self).__name__} holds a data frame and is none any more"
