"""One prompt with its counterfactual and answers, or a text that is scored itself, before tokenisation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from interp import numbers
from interp.errors import InputError, short
from interp.tasks.chat import Message, is_chat, read_messages
from interp.tasks.spans import Slots, read_spans

Text: TypeAlias = str | tuple[int, ...] | tuple[Message, ...]
Answer: TypeAlias = str | int | tuple[int, ...]
Answers: TypeAlias = tuple[Answer, ...]
Span: TypeAlias = tuple[int | None, int | None]
Scored: TypeAlias = Span | str  # positions, or the span that holds them


@dataclass(frozen=True)
class Example:
    """A clean prompt, its corrupted version, and the answers to the clean one.

    A prompt is a string, a tuple of token ids, or messages of a chat; an answer is a string (taken literally: write
    `" Mary"` with its space), a token id, or a tuple of several. `corrupted` is None where nothing is patched. `scored`
    is of a text without answers: start and stop of the positions whose logits predict the text's own next tokens, or
    the name of a span of such positions.
    `spans` are named parts of the clean prompt (`interp.tasks.spans`), `corrupted_spans` those of the corrupted one, to
    be aligned with them as `align` says (`Task.aligned`).

    >>> Example("2 + 2 =", "2 + 3 =", (" 4",), (" 5",)).incorrect
    (' 5',)
    """

    clean: Text
    corrupted: Text | None
    correct: Answers
    incorrect: Answers = ()
    scored: Scored | None = None
    spans: Slots = ()
    corrupted_spans: Slots = ()
    align: str = "end"

    def record(self) -> dict[str, Any]:
        """The fields as JSON-able values; lists of one answer become that answer. Some only where there are any."""
        found = {"clean": _plain(self.clean), "corrupted": None if self.corrupted is None else _plain(self.corrupted)}
        for name, answers in (("correct", self.correct), ("incorrect", self.incorrect)):
            listed = [list(one) if isinstance(one, tuple) else one for one in answers]
            found[name] = listed[0] if len(listed) == 1 and not isinstance(answers[0], tuple) else listed
        if self.scored is not None:
            found["scored"] = self.scored if isinstance(self.scored, str) else list(self.scored)
        if self.spans:
            found["spans"] = {slot.name: slot.record() for slot in self.spans}
        if self.corrupted_spans:
            found["corrupted_spans"] = {slot.name: slot.record() for slot in self.corrupted_spans}
            found["align"] = self.align
        return found


def _plain(text: Text) -> Any:
    if isinstance(text, str):
        return text
    return [vars(one) if isinstance(one, Message) else one for one in text]


def shown(text: Text | None) -> Any:
    """A prompt for an error's sentence."""
    return text if text is None or isinstance(text, str) else _plain(text)


def read_example(index: int, clean: Any, corrupted: Any, correct: Any, incorrect: Any, spans: Any = None) -> Example:
    """Check the fields of prompt `index` as a user gave them, and make them an `Example`.

    Raises `InputError` that names the prompt and the field.
    """
    example = Example(
        clean=read_prompt(index, "clean", clean),
        corrupted=None if corrupted is None else read_prompt(index, "corrupted", corrupted),
        correct=read_answers(index, "correct", correct),
        incorrect=read_answers(index, "incorrect", incorrect),
        spans=read_spans(index, clean, spans),
    )
    if not example.correct:
        raise InputError(f"prompt {index} has no correct answer; every prompt needs at least one")
    check_differs(index, example)
    if both := set(example.correct) & set(example.incorrect):
        named = ", ".join(sorted(map(short, both)))
        raise InputError(
            f"prompt {index} has the answer {named} among the correct and among the incorrect ones; "
            "an answer must be on one side"
        )
    return example


def read_text(index: int, clean: Any, corrupted: Any, scored: Scored, spans: Any = None) -> Example:
    """A text that is scored itself, as a user gave it."""
    other = None if corrupted is None else read_prompt(index, "corrupted", corrupted)
    own = read_prompt(index, "clean", clean)
    example = Example(own, other, (), (), scored, read_spans(index, clean, spans))
    check_differs(index, example)
    return example


def check_examples(task: str, examples: Sequence[Example]) -> None:
    """Raise `InputError` unless there are examples, and all or none of them have corrupted versions."""
    if not examples:
        raise InputError(f"the task {task!r} has no prompts; at least one is needed")
    other = next((one for one in examples if not isinstance(one, Example)), None)
    if other is not None:
        raise InputError(f"examples holds a {type(other).__name__}; Task.from_pairs and its sisters make examples")
    bare = [index for index, one in enumerate(examples) if one.corrupted is None]
    if 0 < len(bare) < len(examples):
        raise InputError(f"prompt {bare[0]} has no corrupted version and others do; give all prompts one, or none")


def check_contrast(examples: Sequence[Example], objective: str) -> None:
    """Raise `InputError` for a prompt without an incorrect answer, which the objective needs."""
    for index, example in enumerate(examples):
        if not example.incorrect:
            raise InputError(
                f"the objective {objective!r} contrasts correct with incorrect answers, and prompt {index} has no "
                "incorrect one; give it one, or choose objective='log-probability'"
            )


def digest(examples: Sequence[Example], prepend_bos: bool | None) -> str:
    """The sha256 of what examples hold; of spans only where prompts are aligned or read by them."""
    needed = [one.corrupted_spans or isinstance(one.scored, str) for one in examples]
    records = [
        (one if by_spans else replace(one, spans=())).record() for one, by_spans in zip(examples, needed, strict=True)
    ]
    contents = json.dumps([records, prepend_bos], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(contents.encode()).hexdigest()


def check_differs(index: int, example: Example) -> None:
    """Raise `InputError` where the corrupted prompt is the clean one."""
    if example.clean == example.corrupted:
        raise InputError(
            f"prompt {index} has a corrupted version equal to the clean one ({short(example.clean)}); nothing can "
            "be attributed to their difference"
        )


def read_answers(index: int, field: str, value: Any) -> Answers:
    """One answer or several, without repetitions; none for `None`.

    >>> read_answers(0, "correct", [" is", " was", " is"])
    (' is', ' was')
    """
    read: list[Answer] = []
    for answer in listed(value):
        tokens = [] if isinstance(answer, str) or not _is_several(answer) else list(answer)
        if isinstance(answer, str):
            if not answer:
                raise InputError(f"{field} of prompt {index} is empty; an answer has at least one token")
            read.append(readable(f"{field} of prompt {index}", answer))
        elif tokens:
            read.append(tuple(_token(index, field, token) for token in tokens))
        else:
            read.append(_token(index, field, answer))
    return tuple(dict.fromkeys(read))


def _is_several(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1


def listed(value: Any) -> list[Any]:
    """One thing or several (list, tuple, array, tensor, series) as a list; none for `None`."""
    if value is None:
        return []
    return list(value) if _is_several(value) else [value]


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


def read_prompt(index: int, field: str, value: Any) -> Text:
    """A string, token ids or messages. Raises `InputError` for what is none of them."""
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"{field} of prompt {index} is empty; it needs at least one token")
        return readable(f"{field} of prompt {index}", value)
    if is_chat(value):
        return read_messages(f"{field} of prompt {index}", value)
    if _is_several(value):
        tokens = tuple(_token(index, field, token) for token in value)
        if not tokens:
            raise InputError(f"{field} of prompt {index} is empty; it needs at least one token")
        return tokens
    raise InputError(
        f"{field} of prompt {index} is {short(value)}, a {type(value).__name__}; it must be a string, token ids or "
        "messages"
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
