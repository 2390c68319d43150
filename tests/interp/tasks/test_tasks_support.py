"""Tokenizers small enough to read, and models that are nothing but a tokenizer, for the tests of tasks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BOS, UNK = "<s>", "<unk>"
DIGITS = "0123456789"
PAIRS = tuple(f"{number:02}" for number in range(100))
TRIPLES = tuple(f"{number:03}" for number in range(1000))


def tokenizer(*words: str, letters: str = " ?[A-Za-z]+", numbers: str = r"\d", **special: str) -> Any:
    """Cuts words by the pattern `letters`, numbers by `numbers`, the rest by character; knows `words` only."""
    pattern = rf"{letters}|{numbers}|\s|[^A-Za-z\d\s]"
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys((UNK, BOS, *words)))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=UNK, **{"bos_token": BOS, **special})


def every_word(*texts: str, **settings: Any) -> Any:
    """A tokenizer that knows all words of the texts, with and without a space before them, and all punctuation."""
    probe = tokenizer(**settings).backend_tokenizer.pre_tokenizer
    words = [piece for text in texts for piece, _ in probe.pre_tokenize_str(text)]
    bare = [word.strip() for word in words if word.strip()]
    spaced = [f" {word}" for word in bare if word.isalpha()]
    return tokenizer(*words, *bare, *spaced, " ", "\n", *DIGITS, *PAIRS, *TRIPLES, **settings)


def model_of(tokenizer: Any, d_vocab: int | None = None, prepend: bool = True) -> Any:
    """The parts of a bridge that tasks look at."""
    size = len(tokenizer) if d_vocab is None else d_vocab
    return SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(d_vocab=size, default_prepend_bos=prepend))
