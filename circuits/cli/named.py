"""Methods and selections from the command line: by name, with our flags and with `--set name=value`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuits.cli.output import CommandError, Notes

if TYPE_CHECKING:
    from attribution.edges.method import Method
    from interp.selection import Selection


def read_settings(given: Sequence[str] | None) -> dict[str, Any]:
    """`name=value` pairs; a value is read as JSON where it is that, and is a text where not.

    >>> read_settings(["steps=7", "quadrature=left", "pruned=false"])
    {'steps': 7, 'quadrature': 'left', 'pruned': False}
    """
    settings: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise CommandError(f"--set {text!r} must be NAME=VALUE, such as --set steps=10")
        try:
            settings[name.strip()] = json.loads(value)
        except ValueError:
            settings[name.strip()] = value
    return settings


def method_and_selection(
    method: str,
    flags: Mapping[str, Any],
    selection: str,
    settings: Mapping[str, Any],
    notes: Notes,
    level: str = "edge",
) -> tuple[Method, str | Selection]:
    """The method with our flags and its settings; the selection with its own, by name where it has none."""
    from attribution.edges.named import METHODS
    from interp.selection import SELECTIONS
    from metrics.circuit import balance  # noqa: F401  (registers `balanced`)

    for_method, for_selection = METHODS.settings(method), SELECTIONS.settings(selection)
    own: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in settings.items():
        if for_method is None or name in for_method:
            own[name] = value
        elif for_selection is None or name in for_selection:
            rest[name] = value
        else:
            raise CommandError(
                f"--set {name}: method {method!r} takes {', '.join(for_method) or 'none'}, selection {selection!r} "
                f"{', '.join(for_selection) or 'none'}"
            )
    made = made_method(method, flags, notes, own, level)
    made_selection = SELECTIONS.make(selection, rest)
    return made, made_selection if rest else selection


def made_method(
    method: str,
    flags: Mapping[str, Any],
    notes: Notes,
    settings: Mapping[str, Any] | None = None,
    level: str = "edge",
) -> Method:
    """A method by name: of edges, or for nodes any (what has no meaning for them is refused later).

    A flag that it does not take is told and left out; rules are refused by the method.
    """
    from attribution.edges.named import METHODS
    from circuits.levels import Asked

    takes, told = METHODS.settings(method), dict(settings or {})
    for name, value in flags.items():
        if value is None:
            continue
        if name == "rules" or takes is None or name in takes:
            told[name] = value
        else:
            notes(f"method {method!r} has no {name}: --{name} is not used")
    return Asked(level).method(method, told)
