"""What files say of themselves, read and checked: format, version, and the fields of a dataclass."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

import pydantic

from interp.errors import InputError

T = TypeVar("T")


def json_copy(data: dict[str, Any], argument: str) -> dict[str, Any]:
    """A copy of `data` as JSON gives it back, with lists for tuples; raises `InputError` if it cannot."""
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(data, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument} must be a dictionary that JSON can hold: {error}") from None


def check_header(header: object, format: str, version: int, where: str) -> None:
    """Raise `InputError` unless a file's header names this format in a version that can be read."""
    if not isinstance(header, dict) or header.get("format") != format:
        raise InputError(f"{where} is damaged or of another kind: it does not say that it is {format!r}")
    written = header.get("version")
    if not isinstance(written, int) or written < 1:
        raise InputError(f"{where} is damaged: its format version is {written!r}")
    if written > version:
        raise InputError(
            f"{where} has format version {written}, and this installation reads up to {version}: "
            f"upgrade faithful-circuits to open it"
        )


def validated(cls: type[T], data: object, where: str) -> T:
    """Build the dataclass `cls` from `data`; raises `InputError` naming `where` and the unfit field."""
    try:
        return pydantic.TypeAdapter(cls).validate_python(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "its content"
        raise InputError(f"{where} is damaged: {at}: {first['msg'].removeprefix('Value error, ')}") from None
