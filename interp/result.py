"""`Result`: what every measurement gives back: a table, a figure, a line to read, and a file to keep it in."""

from __future__ import annotations

import html
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pandas as pd

from interp.errors import InputError
from interp.files import existing, write_text
from interp.headers import check_header
from interp.keeping import decode, encode, kept
from interp.renamed import OnceNamed
from interp.tables import html_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FORMAT = "faithful-circuits/result"
VERSION = 1
_ROWS = 60  # that a notebook shows


class Result(OnceNamed, ABC):
    """A frozen dataclass that says what was found; its sub-classes hold data frames and tensors, and are none.

    What a sub-class writes: `to_frame`, `headline` and, where there is something to draw, `figure`; and which of its
    fields are equally long (`matching`, in groups), for files are checked by that.
    """

    matching: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        kept(cls)

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """The figures as a table; a copy."""

    @abstractmethod
    def headline(self) -> str:
        """What was found, in one line."""

    def figure(self) -> Figure:
        """The result as a plotly figure. Raises `InputError` where there is nothing to draw."""
        raise InputError(f"a {type(self).__name__} has no figure; see to_frame()")

    def fits(self) -> None:
        """Raise whatever is raised where its fields do not fit together; `load` asks, behind their annotations."""
        self.to_frame()
        self._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it; `save` writes this."""
        return {"format": FORMAT, "version": VERSION, "result": encode(self)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one JSON file, which `load` reads; returns its path. A kill leaves the file that was there before."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote: any result from `Result.load`, one of its kind from a sub-class.

        Raises `InputError` for a missing, damaged or newer file, and for a result of another kind.
        """
        file, where = existing(path, "result file")
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is damaged: it is not JSON ({error})") from None
        check_header(content, FORMAT, VERSION, where)
        found = decode(content.get("result"), where)
        if not isinstance(found, cls):
            raise InputError(f"{where} holds a {type(found).__name__}; read it with {type(found).__name__}.load")
        try:
            found.fits()
        except Exception as error:  # somebody else's may raise anything
            reason = str(error) or type(error).__name__
            raise InputError(f"{where} is damaged: its {type(found).__name__} cannot be shown: {reason}") from error
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.headline()}"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        more = f"<p>and {len(frame) - _ROWS:,} more rows</p>" if len(frame) > _ROWS else ""
        return f"<p>{html.escape(repr(self))}</p>{html_table(frame.head(_ROWS))}{more}"
