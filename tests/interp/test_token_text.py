"""Tokens as labels: leading spaces, bytes and unknown ids are all to be seen, and no two tokens look alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from attribution import tokens
from interp.errors import InputError
from interp.models import load_model
from interp.token_text import token_texts
from tests.tiny import tiny_module, word_tokenizer


def llama_tokenizer() -> Any:
    """Of the type of Llama 2's: a space is part of the next word, unknown characters are spelled in bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in (0x0A, 0x41, 0xC3, 0xA9, 0xE2)), "▁", "P", "▁P"]
    pieces += ["a", "A", "Pa", "▁Pa", "▁▁", "é"]
    merges = [("▁", "P"), ("▁P", "a"), ("P", "a")]
    inner = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def bytes_tokenizer() -> Any:
    """Of the type of GPT-2's: tokens of bytes, of which a character may need several."""
    pieces = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠParis", "Paris", "Ġâ", "âĢ", "Ã©", "Ġ,", "ï¿½"]
    inner = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", bos_token="<|end|>", clean_up_tokenization_spaces=True
    )


EXPECTED = {
    llama_tokenizer: {
        "<s>": "<s>", "<0x0A>": "\n", "<0x41>": "<0x41>", "<0xE2>": "<0xE2>", "▁": " ", "▁P": " P", "P": "P",
        "A": "A", "▁Pa": " Pa", "▁▁": "  ", "é": "é",
    },
    bytes_tokenizer: {
        "<|end|>": "<|end|>", "ĠParis": " Paris", "Paris": "Paris", "Ġâ": " <0xE2>", "âĢ": "<0xE2><0x80>", "Ã©": "é",
        "Ġ,": " ,", ",": ",", "Ċ": "\n", "ï¿½": "\ufffd", "â": "<0xE2>", "Ģ": "<0x80>",
    },
    word_tokenizer: {"<unk>": "<unk>", "a": "a"},
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_token_is_legible_and_unlike_the_others(kind: Any) -> None:
    tokenizer = kind()
    ids = {piece: tokenizer.convert_tokens_to_ids(piece) for piece in EXPECTED[kind]}
    assert dict(zip(ids, token_texts(tokenizer, list(ids.values())), strict=True)) == EXPECTED[kind]
    everything = token_texts(tokenizer, range(len(tokenizer)))
    assert len(set(everything)) == len(tokenizer)
    assert not any("\u2581" in text or ("\ufffd" in text and kind is llama_tokenizer) for text in everything)
    assert token_texts(tokenizer, [len(tokenizer) + 3]) == [f"<id {len(tokenizer) + 3}>"]


def test_ids_stand_for_themselves_without_a_tokenizer_and_word_ends_are_spaces() -> None:
    assert token_texts(None, [3, 50]) == ["3", "50"]
    inner = Tokenizer(models.BPE({"paris</w>": 0, "paris": 1, "<unk>": 2}, [], unk_token="<unk>"))
    inner.decoder = decoders.BPEDecoder("</w>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert token_texts(tokenizer, [0, 1]) == ["paris ", "paris"]


def test_spaces_of_llamas_tokens_reach_results_and_errors() -> None:
    model = load_model(tiny_module("llama", torch.float32), tokenizer=llama_tokenizer())
    result = tokens(model, "Pa Pa", target=" Pa", quiet=True)
    assert result.tokens == [["<s>", " Pa", " Pa"]]
    assert result.target_tokens == [" Pa"]
    assert "<code>·Pa</code>" in result._repr_html_()
    assert result.figure().layout.xaxis.ticktext == ("<s>".replace("<", "&lt;").replace(">", "&gt;"), "·Pa", "·Pa")
    with pytest.raises(InputError, match=r"is 2 tokens \(' Pa', 'a'\); .* or use its first token, ' Pa'$"):
        tokens(model, "Pa Pa", target=" Paa", quiet=True)
