"""Keywords that many functions take, declared once.

A `TypedDict` declares a group of keywords, a frozen value carries it, and a public function unpacks the groups that
it takes (PEP 692): users write `batch_size=8, seed=1`, type checkers know the names, and inside each group travels
whole::

    class EvaluateKeywords(SettingKeywords, RunKeywords, total=False): ...

    def evaluate(model, task, circuit, **keywords: Unpack[EvaluateKeywords]):
        check_keywords("evaluate", keywords, EvaluateKeywords)
        setting = Setting.of(model, task, keywords)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from interp.errors import InputError, unknown
from interp.renamed import NEW_WAY

T = TypeVar("T")


def check_keywords(function: str, keywords: Mapping[str, Any], *declared: type) -> None:
    """Raise `InputError` for a keyword that no group declares: with its new name, or with the near ones."""
    for name in leftover(keywords, *declared):
        if name in NEW_WAY:
            raise InputError(f"{function} takes no {name}: {NEW_WAY[name]}")
        raise unknown(f"keyword of {function}", name, [one for group in declared for one in names_of(group)])


def leftover(keywords: Mapping[str, Any], *declared: type) -> dict[str, Any]:
    """The keywords that no group declares, for functions that hand them on."""
    known = {name for group in declared for name in names_of(group)}
    return {name: value for name, value in keywords.items() if name not in known}


def chosen(keywords: Mapping[str, Any], declared: type) -> dict[str, Any]:
    """The keywords of a group that are given."""
    return {name: keywords[name] for name in names_of(declared) if name in keywords}


def told(default: T, keywords: Mapping[str, Any], declared: type) -> T:
    """A group's value, with what is given in the place of the default's."""
    own = chosen(keywords, declared)
    return replace(default, **own) if own else default  # type: ignore[type-var]


def names_of(declared: type) -> list[str]:
    """The keywords that a group declares.

    >>> from interp.run import RunKeywords
    >>> names_of(RunKeywords)
    ['batch_size', 'memory', 'quiet']
    """
    return list(declared.__annotations__)
