"""Token ids as text for labels: leading spaces kept, bytes readable, no two tokens alike."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_MARK, _END, _LOST = "\u2581", "</w>", "\ufffd"


def token_texts(tokenizer: Any | None, ids: Sequence[int]) -> list[str]:
    """The text of every token, as it stands in the middle of a text; the ids themselves where there is no tokenizer.

    A single token decoded as if it began a text loses its space ("▁Paris" of Llama 2 and "Paris" look the same), and
    one that is no whole character of UTF-8 becomes a replacement character: here such bytes are written `<0xE2>`. An id
    that the tokenizer does not know is written `<id 50300>`.
    """
    return [str(token) if tokenizer is None else _text(tokenizer, int(token)) for token in ids]


def _text(tokenizer: Any, token: int) -> str:
    piece = _piece(tokenizer, token)
    if piece is None:
        return f"<id {token}>"
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    if token in getattr(tokenizer, "added_tokens_decoder", ()):
        return text or piece
    if _FALLBACK.fullmatch(piece):  # the vocabulary has most of these characters a second time
        return text if text.isspace() else piece
    if _MARK in piece and _MARK not in text:
        return piece.replace(_MARK, " ")
    if piece.endswith(_END) and not text.endswith(_END):
        return piece.removesuffix(_END) + " "
    if _LOST in text and (raw := _bytes_of(piece)) is not None:
        return _readable(raw)
    return text or piece


def _piece(tokenizer: Any, token: int) -> str | None:
    """A token as the vocabulary writes it, or None for an id beyond the vocabulary."""
    try:
        return tokenizer.convert_ids_to_tokens(token) or None
    except (IndexError, KeyError, OverflowError, ValueError):
        return None


def _bytes_of(piece: str) -> bytes | None:
    """The bytes of a piece of byte-level BPE, which writes each byte as a character."""
    table = _bytes_of_characters()
    return bytes(table[character] for character in piece) if set(piece) <= table.keys() else None


def _readable(raw: bytes) -> str:
    """UTF-8 where it is whole, and bytes as `<0xE2>`."""
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(sign) - 0xDC00:02X}>" if "\udc80" <= sign <= "\udcff" else sign for sign in text)


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's table: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
