"""`Run`: how runs are made, which changes no number beyond float tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from interp.keywords import told
from interp.numbers import settle
from interp.progress import Bar, progress


class RunKeywords(TypedDict, total=False):
    """The keywords of `Run`, as public functions take them."""

    batch_size: int | None
    memory: int | None
    quiet: bool


@dataclass(frozen=True)
class Run:
    """How much is run at once, and whether somebody is told.

    Attributes:
        batch_size: prompts per pass; None lets the memory budget choose.
        memory: bytes that a batch may take; None: 1 GiB on a CPU, half of the free memory on a GPU.
        quiet: no progress bars.

    Raises `InputError` for numbers that cannot be.

    >>> Run(batch_size=8)
    Run(batch_size=8, memory=None, quiet=False)
    """

    batch_size: int | None = None
    memory: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        settle(self)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Run:
        """From a function's keywords; those of others are passed over."""
        return told(cls(), keywords, RunKeywords)

    def hushed(self) -> Run:
        """The same without progress bars: for a run inside a run."""
        return replace(self, quiet=True)

    def progress(self, description: str, total: float | None = None) -> AbstractContextManager[Bar]:
        """A progress bar, unless it is to be quiet."""
        return progress(description, total, self.quiet)
