"""Spans between which heads carry something: those of `positions=`, or ones that are named here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.errors import InputError, short
from interp.setting import Setting
from interp.spans import Placed, place
from interp.tasks.spans import REST
from interp.tasks.token_spans import named_spans


def placed_spans(given: Any, setting: Setting) -> Placed:
    """Which span each position is in, from what a caller gives: None means `all`.

    A mapping goes from names to a position, a pair `(start, stop)`, or a list with one of these for each prompt;
    negative numbers count from each prompt's end. All else is as `positions=` (`interp.spans.asked_spans`).

    Raises `InputError` for spans that overlap, are empty, or lie outside of a prompt.
    """
    if not isinstance(given, Mapping):
        return setting.placed_at("all" if given is None else given)
    if not given:
        raise InputError(f"spans={short(given)} must name at least one span")
    named = named_spans(given, setting.prompts.until_answer().lengths.tolist())
    return place(named.names, setting.prompts, named)


def names_of(placed: Placed) -> list[str]:
    """The names of the spans, and `rest` behind them where positions of prompts are in none of them.

    Where `rest` is one of them and no position is in it, it is left out.
    """
    names, inside = [str(one) for one in placed.spans], placed.where[placed.real]
    if bool((inside == len(names)).any()):
        return [*names, REST]
    return names[:-1] if names[-1] == REST and not bool((inside == len(names) - 1).any()) else names
