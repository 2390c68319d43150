"""The one exception class of bad input, and the sentences that several callers share."""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator

# what other people's code raises for a model that it was not written for
_FOREIGN = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)


class InputError(ValueError):
    """Something handed in cannot be used; the message names it, says what was given and what would work."""


def unknown(argument: str, given: object, options: Iterable[str]) -> InputError:
    """The error for a name that is not among `options`: lists the near names first, then all of them.

    >>> str(unknown("method", "eapig", ["eap", "eap-ig"]))
    "method='eapig' is unknown; did you mean 'eap-ig' or 'eap'? Choose from: eap, eap-ig."
    """
    names = [str(option) for option in options]
    near = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return InputError(f"{argument}={given!r} is unknown{hint} Choose from: {', '.join(names)}.")


def choose(argument: str, given: str, options: Iterable[str]) -> str:
    """Return `given` if it is one of `options`, else raise `unknown(...)`."""
    names = list(options)
    if given not in names:
        raise unknown(argument, given, names)
    return given


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Errors of other kinds inside become an `InputError`: `what`, and the first line of what went wrong."""
    try:
        yield
    except InputError:
        raise
    except _FOREIGN as error:
        reason = (str(error).strip() or _where(error)).splitlines()[0]
        raise InputError(f"{what}: {reason}") from error


def _where(error: BaseException) -> str:
    """The kind of an error without words, and the line that raised it."""
    line = traceback.extract_tb(error.__traceback__)[-1].line
    return f"{type(error).__name__} at `{line}`"


def short(value: object) -> str:
    """What was given, as a sentence can quote it: on one line, of at most 60 characters.

    >>> short("a" * 80)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
