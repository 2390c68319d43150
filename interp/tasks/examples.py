"""One prompt with its counterfactual and answers, before tokenisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from interp import numbers
from interp.errors import InputError, short
from interp.tasks.spans import Slots, read_spans

Text: TypeAlias = str | tuple[int, ...]
Answers: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Example:
    """A clean prompt, its corrupted version, and the answers to the clean one.

    A prompt is a string or a tuple of token ids; an answer is a string (one token, taken literally: write
    `" Mary"` with its space) or a token id. `spans` are named parts of the clean prompt (`interp.tasks.spans`).

    >>> Example("2 + 2 =", "2 + 3 =", (" 4",), (" 5",)).incorrect
    (' 5',)
    """

    clean: Text
    corrupted: Text
    correct: Answers
    incorrect: Answers = ()
    spans: Slots = ()

    def record(self) -> dict[str, Any]:
        """The fields as JSON-able values; lists of one answer become that answer. `spans` only where there are any."""
        named = {"spans": {slot.name: slot.record() for slot in self.spans}} if self.spans else {}
        return {
            "clean": self.clean if isinstance(self.clean, str) else list(self.clean),
            "corrupted": self.corrupted if isinstance(self.corrupted, str) else list(self.corrupted),
            "correct": self.correct[0] if len(self.correct) == 1 else list(self.correct),
            "incorrect": self.incorrect[0] if len(self.incorrect) == 1 else list(self.incorrect),
            **named,
        }


def read_example(index: int, clean: Any, corrupted: Any, correct: Any, incorrect: Any, spans: Any = None) -> Example:
    """Check the fields of prompt `index` as a user gave them, and make them an `Example`.

    Raises `InputError` that names the prompt and the field.
    """
    example = Example(
        clean=_prompt(index, "clean", clean),
        corrupted=_prompt(index, "corrupted", corrupted),
        correct=read_answers(index, "correct", correct),
        incorrect=read_answers(index, "incorrect", incorrect),
        spans=read_spans(index, clean, spans),
    )
    if not example.correct:
        raise InputError(f"prompt {index} has no correct answer; every prompt needs at least one")
    if example.clean == example.corrupted:
        raise InputError(
            f"prompt {index} has a corrupted version equal to the clean one ({short(example.clean)}); nothing can "
            "be attributed to their difference"
        )
    if both := set(example.correct) & set(example.incorrect):
        named = ", ".join(sorted(map(short, both)))
        raise InputError(
            f"prompt {index} has the answer {named} among the correct and among the incorrect ones; "
            "an answer must be on one side"
        )
    return example


def read_answers(index: int, field: str, value: Any) -> Answers:
    """One answer or several, without repetitions; none for `None`.

    >>> read_answers(0, "correct", [" is", " was", " is"])
    (' is', ' was')
    """
    read: list[str | int] = []
    for answer in listed(value):
        if isinstance(answer, str):
            if not answer:
                raise InputError(f"{field} of prompt {index} is empty; an answer is one token")
            read.append(readable(f"{field} of prompt {index}", answer))
        else:
            read.append(_token(index, field, answer))
    return tuple(dict.fromkeys(read))


def listed(value: Any) -> list[Any]:
    """One thing or several (list, tuple, array, tensor, series) as a list; none for `None`."""
    if value is None:
        return []
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
        return list(value)
    return [value]


def readable(what: str, text: str) -> str:
    """`text` as a plain string. Raises `InputError` for half a surrogate pair, which no tokenizer and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds the lone surrogate {text[error.start]!a}, half of a character, in {text[:60]!a}; "
            "read the text anew, as UTF-8"
        ) from None
    return str(text)


def _prompt(index: int, field: str, value: Any) -> Text:
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"{field} of prompt {index} is empty; it needs at least one token")
        return readable(f"{field} of prompt {index}", value)
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
        tokens = tuple(_token(index, field, token) for token in value)
        if not tokens:
            raise InputError(f"{field} of prompt {index} is empty; it needs at least one token")
        return tokens
    raise InputError(
        f"{field} of prompt {index} is {short(value)}, a {type(value).__name__}; it must be a string or token ids"
    )


def _token(index: int, field: str, value: Any) -> int:
    """A token id from a python, numpy or torch integer."""
    token = numbers.read(value)
    if not isinstance(token, int):
        raise InputError(
            f"{field} of prompt {index} holds {short(value)}, a {type(value).__name__}; "
            "it must be a string or a token id"
        )
    if token < 0:
        raise InputError(f"{field} of prompt {index} holds {token}; a token id is a number from 0 up")
    return token
