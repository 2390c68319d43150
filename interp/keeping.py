"""Results as JSON: tensors, arrays, frames and dataclasses written down so that they can be read again.

A value that JSON has no word for becomes an object with one key that begins with `$`. Dataclasses are written by
name, and only those that were registered with `kept` are made when a file is read: reading a file runs nothing. Their
fields must be what their annotations say.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.errors import InputError
from interp.hints import check_fields

C = TypeVar("C", bound=type)
_KINDS: dict[str, type] = {}


def kept(cls: C) -> C:
    """Register a dataclass whose instances can stand in files."""
    if _KINDS.setdefault(cls.__name__, cls).__qualname__ != cls.__qualname__:
        raise TypeError(f"two kept classes are called {cls.__name__}")
    return cls


def kind_of(name: str) -> type | None:
    """The registered class of that name."""
    return _KINDS.get(name)


def kinds() -> list[type]:
    """All registered classes."""
    return list(_KINDS.values())


def encode(value: Any) -> Any:
    """A value as JSON can hold it. Raises `InputError` for what cannot be read again, such as a function.

    >>> encode((1, float("nan")))
    {'$tuple': [1, {'$float': 'nan'}]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Tensor):
        return {"$tensor": _bytes(value.detach().cpu().contiguous().numpy())}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"$array": _bytes(value)}
    if isinstance(value, pd.DataFrame):
        columns = {str(name): encode(column.tolist()) for name, column in value.items()}
        return {"$frame": {"dtypes": {str(n): str(t) for n, t in value.dtypes.items()}, "columns": columns}}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item) for item in value]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$pairs": [[encode(key), encode(item)] for key, item in value.items()]}
    if is_dataclass(value) and _KINDS.get(type(value).__name__) is type(value):
        given = {item.name: getattr(value, item.name) for item in fields(value) if item.init}
        if hasattr(value, "in_files"):  # it says itself what of it a file can hold
            given = value.in_files()
        return {"$kind": type(value).__name__, "fields": {name: encode(own) for name, own in given.items()}}
    raise InputError(f"a {type(value).__name__} cannot be saved in a result's file")


def decode(value: Any, where: str = "result") -> Any:
    """What `encode` wrote. Raises `InputError` naming `where` for what it did not write.

    >>> decode(encode({"a": (1, 2)}))
    {'a': (1, 2)}
    """
    try:
        return _decoded(value)
    except InputError as error:
        raise InputError(f"{where} cannot be read: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{where} is damaged: {error}") from None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$kind" in value:
        name = value["$kind"]
        cls = _KINDS.get(name)
        if cls is None:
            raise InputError(f"{name!r} is no kind of result that this installation knows: upgrade it to open the file")
        given = {key: _decoded(item) for key, item in value["fields"].items()}
        check_fields(cls, given)
        return cls(**given)
    if not any(key.startswith("$") for key in value):
        return {key: _decoded(item) for key, item in value.items()}
    ((word, content),) = value.items()
    match word:
        case "$float":
            return float(content)
        case "$tuple":
            return tuple(_decoded(item) for item in content)
        case "$pairs":
            return {_decoded(key): _decoded(item) for key, item in content}
        case "$array":
            return _array(content)
        case "$tensor":
            return torch.from_numpy(_array(content))
        case "$frame":
            frame = pd.DataFrame({name: _decoded(column) for name, column in content["columns"].items()})
            return frame.astype(content["dtypes"])
    raise ValueError(f"{word!r} is unknown")


def _bytes(array: np.ndarray) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "base64": data}


def _array(content: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(content["dtype"])
    if dtype.hasobject:
        raise ValueError("an array of objects")
    data = base64.b64decode(content["base64"], validate=True)
    return np.frombuffer(data, dtype).reshape(content["shape"]).copy()
