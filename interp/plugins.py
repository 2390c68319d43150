"""`Registry`: what there is of a kind by name, ours and others', and how a name or an object becomes one.

The kinds are methods, token methods, selections, backward rules, metrics and tasks. What is registered stands in
tables and in the help of the command line. Others' are found in three ways, none of which touches our code:

- an object of the kind is taken wherever a name is;
- `registry.register(name, theirs)`, or an entry point of an installed package, gives it a name;
- the name `"module:Name"` imports it, which is what the command line needs for a file of one's own.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar, cast

from interp.errors import InputError, choose

T = TypeVar("T")
Maker = Callable[..., T]  # a class, or a function, called with the settings given


class Registry(Generic[T]):
    """Makers of things of one kind, by name.

    Args:
        kind: what an argument that names one is called, such as "method".
        base: the class that they are of.
        group: of entry points, under which installed packages offer theirs, such as `faithful_circuits.methods`.

    >>> from fractions import Fraction
    >>> shares = Registry("share", Fraction, "example.shares")
    >>> shares.register("half", lambda times=1: Fraction(times, 2))
    >>> shares.make("half", {"times": 3}), shares.make(Fraction(1, 5))
    (Fraction(3, 2), Fraction(1, 5))
    """

    def __init__(self, kind: str, base: type[T], group: str) -> None:
        self.kind, self.base, self.group = kind, base, group
        self._own: dict[str, Maker[T] | T] = {}

    def register(self, name: str, maker: Maker[T] | T) -> None:
        """Give a name to a maker, or to an object without settings.

        Raises `InputError` for a name that is taken by another.
        """
        if self._own.get(name, maker) is not maker:
            raise InputError(f"{self.kind}={name!r} is taken; register yours under another name")
        self._own[name] = maker

    @functools.cached_property
    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All names: ours first, then those of other installed packages, of which none is imported for that."""
        return [*self._own, *(name for name in self._installed if name not in self._own)]

    def maker(self, name: str) -> Maker[T] | T:
        """What makes the one of that name, or itself.

        Raises `InputError` for an unknown name, and for what cannot be imported.
        """
        if name not in self._own:
            if name in self._installed:
                return cast("Maker[T] | T", self._installed[name].load())
            if ":" in name:
                found = imported(self.kind, name)
                if not callable(found) and not isinstance(found, self.base):
                    raise InputError(
                        f"{self.kind}={name!r} is a {type(found).__name__}; "
                        f"name a {self.base.__name__}, or what makes one"
                    )
                return cast("Maker[T] | T", found)
            choose(self.kind, name, self.names())
        return self._own[name]

    def settings(self, name: str) -> list[str] | None:
        """The settings that the one of that name takes; None where it takes any."""
        maker = self.maker(name)
        return [] if isinstance(maker, self.base) else settings_of(cast("Maker[T]", maker))

    def make(self, given: str | T, settings: Mapping[str, Any] | None = None) -> T:
        """A name with `settings` as what it makes; an object as it is.

        Raises `InputError` for an unknown name, for settings that its maker does not take, for settings beside an
        object (it has its own), and for what is neither a name nor of the kind.
        """
        told = dict(settings or {})
        if isinstance(given, str):
            maker = self.maker(given)
            if not isinstance(maker, self.base):
                return self._made(given, cast("Maker[T]", maker), told)
            given = maker
        if not isinstance(given, self.base):
            raise InputError(
                f"{self.kind} must be a name ({', '.join(self.names())}) or a {self.base.__name__}; got "
                f"{type(given).__name__}"
            )
        if told:
            raise InputError(f"{self.kind}={given!r} has settings of its own: give {', '.join(told)} where it is made")
        return given

    def _made(self, name: str, maker: Maker[T], told: dict[str, Any]) -> T:
        takes = settings_of(maker)
        for setting in told:
            if takes is not None and setting not in takes:
                raise InputError(
                    f"{setting} is no setting of {self.kind}={name!r}, which takes: {', '.join(takes) or 'none'}"
                )
        made = maker(**told)
        if not isinstance(made, self.base):
            raise InputError(f"{self.kind}={name!r} makes a {type(made).__name__}, not a {self.base.__name__}")
        return made


def settings_of(maker: Callable[..., Any]) -> list[str] | None:
    """The keywords that a maker takes; None where it takes any.

    >>> settings_of(lambda steps=5, quadrature="left": None)
    ['steps', 'quadrature']
    """
    parameters = inspect.signature(maker).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def imported(kind: str, name: str) -> Any:
    """What `module:name` means; raises `InputError` where there is no such thing.

    >>> imported("method", "fractions:Fraction").__name__
    'Fraction'
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{kind}={name!r} cannot be imported: {error}; give 'module:name', from where it lies"
        ) from error
    return found


def fields_of(thing: Any) -> dict[str, Any]:
    """The settings that an object was made with: its fields, if it is a dataclass.

    >>> from interp.run import Run
    >>> fields_of(Run(batch_size=8))["batch_size"], fields_of(len)
    (8, {})
    """
    return {field.name: getattr(thing, field.name) for field in fields(thing)} if is_dataclass(thing) else {}
