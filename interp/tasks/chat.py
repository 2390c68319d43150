"""Prompts of a chat: messages, and what the tokenizer's template makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, refused, short


@dataclass(frozen=True)
class Message:
    """One message: who says what."""

    role: str
    content: str


def is_chat(value: Any) -> bool:
    """Whether a prompt is given as messages, `{"role": ..., "content": ...}` each."""
    messages = isinstance(value, list | tuple) and len(value) > 0
    return messages and all(isinstance(one, Mapping | Message) for one in value)


def read_messages(what: str, value: Sequence[Any]) -> tuple[Message, ...]:
    """Messages as a user gave them. Raises `InputError` for one that lacks role or content, or holds no strings."""
    found = []
    for one in value:
        given = vars(one) if isinstance(one, Message) else one
        if set(given) != {"role", "content"} or not all(isinstance(part, str) for part in given.values()):
            raise InputError(
                f"{what} holds the message {short(dict(given))}; a message has two strings, 'role' (system, user or "
                "assistant) and 'content'"
            )
        found.append(Message(given["role"], given["content"]))
    return tuple(found)


def templated(tokenizer: Any, messages: Sequence[Any]) -> str:
    """The text that the tokenizer's template makes: up to where the assistant speaks, or goes on with its last message.

    BOS is what the template says it is. Raises `InputError` without a template, and where it takes no such messages.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        whose = "the model has no tokenizer" if tokenizer is None else "the model's tokenizer has no chat template"
        raise InputError(
            f"the prompts are messages, and {whose}; load an instruct model, set tokenizer.chat_template, or give "
            "strings"
        )
    goes_on = messages[-1].role == "assistant"
    with refused("the tokenizer's chat template does not take these messages"):
        made: str = tokenizer.apply_chat_template(
            [vars(one) for one in messages],
            tokenize=False,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
    return made
