"""Whether values are what type hints say: for what comes out of files, where nothing else has looked at it."""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from jaxtyping import AbstractArray, jaxtyped

from interp.errors import InputError, short

_LARGEST = 2**64  # beyond, an int is no number of anything, and no float


def check_fields(cls: type, given: Mapping[str, Any]) -> None:
    """Raise `InputError`, naming the field, unless `given` are fields of a dataclass as its annotations have them.

    Axes of one name are of one length in all of its tensors. So are the fields that `cls.matching` groups, of which
    mappings have the same keys.
    """
    hints = annotations_of(cls)
    for name in given:
        if name not in hints:
            raise InputError(f"a {cls.__name__} has no field {name!r}")
    for name in _required(cls):
        if name not in given:
            raise InputError(f"the field {name!r} of {cls.__name__} is missing")
    with jaxtyped("context"):  # which remembers the lengths of axes
        for name, value in given.items():
            if not fits(value, hints[name]):
                raise InputError(
                    f"the field {name!r} of {cls.__name__} must be {_spelt(hints[name])}; it holds {_shown(value)}"
                )
    for group in getattr(cls, "matching", ()):
        known = {name: given[name] for name in group if given.get(name) is not None}
        if len({len(value) for value in known.values()}) > 1:
            told = ", ".join(f"{name} {len(value)}" for name, value in known.items())
            raise InputError(f"these fields of {cls.__name__} must be equally long: {told}")
        if len({frozenset(value) for value in known.values() if isinstance(value, Mapping)}) > 1:
            raise InputError(f"these fields of {cls.__name__} must have the same keys: {', '.join(known)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a hint says, in all its parts; an int will do where a float is wanted.

    >>> fits((1, 2.5), tuple[float, ...]), fits((1, "2"), tuple[float, ...])
    (True, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if hint is None:
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, inner)
    if origin is np.ndarray:
        kinds = get_args(inner[1])
        return isinstance(value, np.ndarray) and _fits_dtype(value.dtype, kinds[0] if kinds else Any)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple if origin is Sequence else origin) and all(
            fits(item, inner[0]) for item in value
        )
    if hint is float and isinstance(value, float):
        return True
    if hint in (int, float):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST
    return not isinstance(hint, type) or isinstance(value, hint)


def _fits_dtype(dtype: np.dtype[Any], kind: Any) -> bool:
    """Whether an array's numbers are of a kind, such as `numpy.float64`."""
    return not isinstance(kind, type) or issubclass(dtype.type, kind)


def _fits_tuple(value: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(fits(item, inner[0]) for item in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


@functools.cache
def annotations_of(cls: type) -> dict[str, Any]:
    """The fields that a dataclass is made with, and their annotations."""
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls) if item.init}


@functools.cache
def _required(cls: type) -> tuple[str, ...]:
    return tuple(one.name for one in fields(cls) if one.init and one.default is one.default_factory is MISSING)


def _spelt(hint: Any) -> str:
    """A hint as its author wrote it, without the modules' names."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return f"{hint.dtype.__name__}[{hint.array_type.__name__}, {hint.dim_str!r}]"
    if isinstance(hint, type) and not get_args(hint):
        return f"of type {hint.__name__}"
    text = re.sub(r"numpy\.ndarray\[.*?numpy\.dtype\[(\S+?)\]\]", r"ndarray[\1]", str(hint))
    return re.sub(r"(?:\w+\.)+(?=\w)", "", text)


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {list(value.shape)}"
    return short(value)
