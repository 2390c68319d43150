"""What 0.1 called otherwise: an old name is refused with the sentence that names the new way.

`docs/from-0.1-to-0.2.md` tells the same at length; `tests/docs/test_renamed.py` holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pandas as pd

from interp.errors import InputError

# old keyword -> what to write now; asked only for keywords that a function no longer takes
NEW_WAY: dict[str, str] = {
    "random": "it is called n_random now: how many random ones are measured beside it",
    "random_circuits": "it is called n_random now: how many random circuits are measured beside it",
    "replacement": "it is called baseline now: what a removed token or pixel becomes",
    "salience": "it is called attributions now: a score for each element",
    "mask": "it is called circuit now: a mask, or anything that has one",
    "absolute": "it belongs to the selection now: selection=TopN(absolute=False), from interp.selection",
    "reference_size": "it belongs to the reference now: reference=Reference(size=...), from metrics",
    "reference_prompts": "it belongs to the reference now: reference=Reference(prompts=...), from metrics",
    "stable_share": "it belongs to stability now: stable=Stable(share=0.75), from circuits",
}

# those that a parameter replaces, which `interp.numbers.checked` refuses where the new one may be missing
NEW_NAME = {
    "random": "n_random",
    "replacement": "baseline",
    "salience": "attributions",
    "mask": "circuit",
}

# attribute of a result in 0.1 -> where it lies now, in results that have the first part of that
NEW_ATTRIBUTE = {
    "baseline": "random_columns",
    "settings": "interval",
    "confidence": "interval.confidence",
    "resamples": "interval.resamples",
    "correction": "testing.correction",
    "permutations": "testing.permutations",
    "random": "n_random",
    "batch_size": "run.batch_size",
    "quiet": "run.quiet",
}

# column of a table in 0.1 -> its name now
NEW_COLUMN = {
    "mean rank": "mean_rank",
    "adjusted p": "p_adjusted",
    "adjusted": "p_adjusted",
    "in distribution": "in_distribution",
    "random low": "random_low",
    "random high": "random_high",
    "difference low": "difference_low",
    "difference high": "difference_high",
    "absolute low": "absolute_low",
    "absolute high": "absolute_high",
    "masked loss": "masked_loss",
    "forward passes": "forward_passes",
    "backward passes": "backward_passes",
}


def gone(module: str, name: str, new_ways: Mapping[str, str]) -> Exception:
    """The error of a module's `__getattr__` for a name that it has not; for one that it had, with the new way.

    Not an `AttributeError` for those: `from module import name` would put another sentence in its place.
    """
    if name in new_ways:
        return InputError(f"{module} has no {name} any more: {new_ways[name]}")
    return AttributeError(f"module {module!r} has no attribute {name!r}")


class OnceNamed:
    """Of values whose attributes had other names in 0.1: who asks for one is told the new name."""

    def __getattr__(self, name: str) -> Any:
        new = NEW_ATTRIBUTE.get(name, "")
        if new and is_dataclass(self) and new.partition(".")[0] in {field.name for field in fields(self)}:
            raise AttributeError(f"{name} of a {type(self).__name__} is called {new} now")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class OnceFrame:
    """Of results that were data frames in 0.1: what asks them as one is told the new way."""

    def __getitem__(self, name: object) -> Any:
        new = NEW_COLUMN.get(name) if isinstance(name, str) else None
        raise InputError(f"{self._holds()}: take its columns from .to_frame()" + (f", as {new!r}" if new else ""))

    def __len__(self) -> int:
        raise InputError(f"{self._holds()}: len(result.to_frame())")

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(pd.DataFrame, name):
            raise AttributeError(f"{self._holds()}: .to_frame().{name}")
        return super().__getattr__(name)  # type: ignore[misc]  # of a `Result`

    def _holds(self) -> str:
        return f"{type(self).__name__} holds a data frame and is none any more"
