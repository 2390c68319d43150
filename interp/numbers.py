"""Numbers at the door: what users hand in, from whatever library, as python's own or refused in one sentence."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from torch import Tensor

from interp.errors import InputError, short
from interp.renamed import NEW_NAME, NEW_WAY

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """Where a number may lie: from `low` to `high`, without an end that is open; `advice` ends the sentence."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    advice: str = ""

    def hold(self, number: float) -> bool:
        """Whether `number` lies there."""
        above = self.low is None or (number > self.low if self.open_low else number >= self.low)
        return above and (self.high is None or (number < self.high if self.open_high else number <= self.high))

    def __str__(self) -> str:
        low = "" if self.low is None else f"{'above' if self.open_low else 'of at least'} {self.low}"
        high = "" if self.high is None else f"{'below' if self.open_high else 'up to'} {self.high}"
        if low and high and not (self.open_low or self.open_high):
            return f"from {self.low} to {self.high}"
        return " and ".join(filter(None, (low, high)))


ANY = Limits()
COUNT = Limits(1)
FROM_ZERO = Limits(0)
POSITIVE = Limits(0, open_low=True)
BETWEEN = Limits(0, 1, open_low=True, open_high=True)
STEPS = Limits(1, advice="5 is usual")
SHARE = Limits(0, 1, open_low=True)
UNIT = Limits(0, 1)
# what both torch and numpy take, with room for the seeds that follow on one
SEED = Limits(0, 2**63 - 1, advice="the same seed gives the same result")

# words that mean the same everywhere
COMMON = {
    "seed": SEED,
    "confidence": dataclasses.replace(BETWEEN, advice="0.95 is usual"),
    "resamples": dataclasses.replace(COUNT, advice="1000 is usual"),
    "n_random": dataclasses.replace(FROM_ZERO, advice="0 leaves the random ones out"),
    "batch_size": COUNT,
    "memory": Limits(1 << 20, advice=f"it is a budget in bytes, e.g. {1 << 30}"),
}


def whole(name: str, value: Any, limits: Limits = ANY) -> int:
    """`value` as an int: a python, numpy or torch integer; a float or a bool is none, even where it is 1.

    >>> whole("n", np.int64(5), COUNT)
    5
    """
    return int(_within(name, value, limits, "a whole number", lambda number: isinstance(number, int)))


def real(name: str, value: Any, limits: Limits = ANY) -> float:
    """`value` as a finite float: a python, numpy or torch number.

    >>> real("rate", np.float32(0.5), POSITIVE)
    0.5
    """
    return float(_within(name, value, limits, "a number", _is_finite))


def size(name: str, value: Any, limits: Limits = ANY) -> int | float:
    """`value` as a number of things (an int of at least 1) or a share of them (a float above 0, up to 1.0).

    >>> size("edges", np.int64(20)), size("edges", np.float64(0.5))
    (20, 0.5)
    """
    plain = read(value)
    if plain is None or not (plain >= 1 if isinstance(plain, int) else 0 < plain <= 1) or not limits.hold(plain):
        raise InputError(f"{name}={short(value)} must be a whole number of at least 1, or a share above 0, up to 1.0")
    return plain


def seed(value: Any, name: str = "seed") -> int:
    """`value` as a seed: a whole number from 0 to 2**63 - 1, so that all generators take it; None is none.

    >>> seed(np.int64(1))
    1
    """
    return whole(name, value, SEED)


def many(name: str, values: Any, one: Callable[..., Any] = whole, limits: Limits = ANY) -> list[Any]:
    """A sequence of numbers (list, tuple, array, tensor, series) as a list of what `one` makes of each.

    >>> many("ratios", np.array([0.5, 1.0]), real, SHARE)
    [0.5, 1.0]
    """
    unordered = isinstance(values, (str, bytes, dict, set, frozenset)) or not isinstance(values, Iterable)
    if unordered or getattr(values, "ndim", 1) != 1:
        raise InputError(f"{name}={short(values)} must be a sequence of numbers")
    return [one(f"{name}[{index}]", value, limits) for index, value in enumerate(values)]


def checked(**limits: Limits) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that its numbers arrive as python's own, and what is none never arrives.

    What is a number says the annotation (`int`, `float`, both, a `Sequence` of either, each also `| None`), where it
    may lie says `limits` by the parameter's name, or `COMMON`. The keywords of a group that the function unpacks
    (`**keywords: Unpack[RunKeywords]`) are its parameters too. Raises `InputError` before the function does anything.

    >>> @checked(share=SHARE)
    ... def f(share: float, seed: int = 0) -> tuple[float, int]:
    ...     return share, seed
    >>> f(np.float32(0.5), seed=np.int8(3))
    (0.5, 3)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        readers = _readers({name: one.annotation for name, one in parameters.items()}, limits)
        places = [(place, name) for place, name in enumerate(parameters) if name in readers]
        old = {name for name, new in NEW_NAME.items() if new in parameters and name not in parameters}
        by_place = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
        more = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
        unpacked = functools.cache(lambda: _readers(_unpacked(function), {}))  # groups may be declared further down

        @functools.wraps(function)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            if told := sorted(old & kwargs.keys()):
                ways = (f"takes no {name}: {NEW_WAY[name]}" for name in told)
                raise InputError(f"{function.__name__} {'; it '.join(ways)}")
            given = list(args)
            if len(given) > len(by_place) and not more:
                raise InputError(
                    f"{function.__name__} takes {len(by_place)} arguments by place ({', '.join(by_place)}); give the "
                    f"others by name, also {short(given[len(by_place)])}"
                )
            for place, name in places:
                if place < len(given):
                    given[place] = readers[name](name, given[place])
            known = unpacked() | readers
            named = {name: known[name](name, value) if name in known else value for name, value in kwargs.items()}
            return function(*given, **named)  # type: ignore[arg-type]  # mypy cannot follow the list

        return door

    return decorate


def _unpacked(function: Callable[..., Any]) -> dict[str, Any]:
    """The keywords of the group that a function unpacks, with what is written behind each."""
    for parameter in inspect.signature(function).parameters.values():
        if group := re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation)):
            declared = inspect.unwrap(function).__globals__[group[1]]
            return {name: getattr(one, "__forward_arg__", one) for name, one in declared.__annotations__.items()}
    return {}


def settle(settings: Any, **limits: Limits) -> None:
    """Do what `checked` does to the fields of a dataclass; for its `__post_init__`, frozen or not."""
    readers = _readers({field.name: field.type for field in dataclasses.fields(settings)}, limits)
    for name, read in readers.items():
        object.__setattr__(settings, name, read(name, getattr(settings, name)))


def _readers(annotations: dict[str, Any], limits: dict[str, Limits]) -> dict[str, Callable[[str, Any], Any]]:
    """How to read each parameter that is a number by its annotation."""
    readers: dict[str, Callable[[str, Any], Any]] = {}
    for name, annotation in annotations.items():
        written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        parts = {part.strip() for part in re.split(r"\|(?![^\[]*\])", written)}
        optional = "None" in parts
        if parts - {"None"} and parts <= _KINDS.keys() | {"None"}:
            own = limits.get(name, COMMON.get(name, ANY))
            readers[name] = functools.partial(_read, _kind(parts - {"None"}), own, optional)
    unread = set(limits) - set(readers)
    if unread:
        raise TypeError(f"limits for {', '.join(sorted(unread))}, which no annotation calls a number")
    return readers


_SINGLE = {"int": whole, "float": real}
_SEVERAL = {f"Sequence[{word}]": one for word, one in _SINGLE.items()} | {
    f"tuple[{word}, ...]": one for word, one in _SINGLE.items()
}
_KINDS = _SINGLE | _SEVERAL


def _kind(parts: set[str]) -> Callable[[str, Any, Limits], Any]:
    singles, several = [_SINGLE[part] for part in parts & _SINGLE.keys()], parts & _SEVERAL.keys()
    one = size if len(singles) == 2 else singles[0] if singles else None
    if not several:
        assert one is not None
        return one
    (written,) = several
    many_of = functools.partial(_several, one=_SEVERAL[written], always=written.startswith("tuple"))
    return many_of if one is None else functools.partial(_one_or_several, one=one, several=many_of)


def _several(name: str, value: Any, limits: Limits, one: Callable[..., Any], always: bool) -> Any:
    read = many(name, value, one, limits)
    return tuple(read) if always or isinstance(value, tuple) else read


def _one_or_several(name: str, value: Any, limits: Limits, one: Callable[..., Any], several: Callable[..., Any]) -> Any:
    single = isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0
    return (one if single else several)(name, value, limits)


def _read(kind: Callable[..., Any], limits: Limits, optional: bool, name: str, value: Any) -> Any:
    return None if optional and value is None else kind(name, value, limits)


def _within(name: str, value: Any, limits: Limits, what: str, fits: Callable[[int | float], bool]) -> int | float:
    plain = read(value)
    if plain is not None and fits(plain) and limits.hold(plain):
        return plain
    what = what if plain is None or _is_finite(plain) else what.replace("a ", "a finite ")
    end = f"; {limits.advice}" if limits.advice else ""
    raise InputError(f"{name}={short(value)} must be {' '.join(filter(None, (what, str(limits))))}{end}")


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int that is larger than every float
        return False


def read(value: Any) -> int | float | None:
    """A python number for what is without doubt a single one; None for bools, texts, arrays and the rest."""
    if isinstance(value, bool | str | bytes):
        return None
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy() if value.is_floating_point() else value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        if value.ndim or value.dtype.kind not in "iuf":
            return None
        return float(value) if value.dtype.kind == "f" else int(value)
    if hasattr(value, "__index__"):
        return operator.index(value)
    return float(value) if isinstance(value, Real) else None
