"""Replacement tokens for ReAGent: what a language model would write at a place instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.errors import InputError
from interp.kernels.forward import prepare, run_blocks, unembed
from interp.rotary import as_new
from interp.running import alone, evaluated

Ids = Int[Tensor, "n pos"]
Proposer = Callable[[Ids, Bool[Tensor, "n pos"], torch.Generator], Ids]


def as_proposer(proposer: Any, explained: Any) -> Proposer:
    """What the caller gave, as a function from ids and a mask of places to proposed ids.

    None: the explained model itself, which reads the tokens before a place. A transformers module: a masked language
    model reads the prompt with the places masked, a causal one the tokens before each; it must share the explained
    model's vocabulary. Anything else callable is used as it is. Raises `InputError` otherwise.
    """
    if proposer is None:
        return _Causal(lambda ids: _all_logits(explained.anatomy, ids))
    if isinstance(proposer, PreTrainedModel):
        config: Any = proposer.config
        vocabulary = explained.anatomy.d_vocab
        if config.vocab_size != vocabulary:
            raise InputError(
                f"proposer={type(proposer).__name__} has a vocabulary of {config.vocab_size}, the explained model one "
                f"of {vocabulary}; both must share a tokenizer"
            )
        if not type(proposer).__name__.endswith("ForMaskedLM"):
            return _Causal(lambda ids: _logits_of(proposer, ids))
        mask = getattr(config, "mask_token_id", None)
        if mask is None:
            mask = getattr(getattr(explained, "tokenizer", None), "mask_token_id", None)
        if mask is None:
            raise InputError(
                f"proposer={type(proposer).__name__} has no mask_token_id in its config, nor has the tokenizer; set one"
            )
        return _Masked(lambda ids: _logits_of(proposer, ids), int(mask))
    if callable(proposer) and not isinstance(proposer, torch.nn.Module):
        given: Proposer = proposer
        return given
    raise InputError(
        "proposer must be None (the model itself), a transformers masked or causal language model, or a function "
        f"(ids, places, generator) -> ids; got {type(proposer).__name__}"
    )


class _Causal:
    def __init__(self, logits: Callable[[Ids], Tensor]) -> None:
        self.logits = logits
        self.remembered: tuple[Tensor, Tensor] | None = None

    def __call__(self, ids: Ids, places: Bool[Tensor, "n pos"], generator: torch.Generator) -> Ids:
        different, which = ids.unique(dim=0, return_inverse=True)  # side by side runs read the same prompt
        if self.remembered is None or not self.remembered[0].equal(different):  # and ask about it again and again
            self.remembered = different, _shifted(self.logits(different))
        return _sample(self.remembered[1][which], ids, places, generator)


class _Masked:
    def __init__(self, logits: Callable[[Ids], Tensor], mask: int) -> None:
        self.logits, self.mask = logits, mask

    def __call__(self, ids: Ids, places: Bool[Tensor, "n pos"], generator: torch.Generator) -> Ids:
        return _sample(self.logits(ids.masked_fill(places, self.mask)), ids, places, generator)


def _logits_of(module: Any, ids: Ids) -> Float[Tensor, "n pos d_vocab"]:
    """Logits without dropout, which modules made from a configuration start with."""
    with alone(module), evaluated(module), as_new(module):
        logits: Tensor = module(input_ids=ids).logits
        return logits


def _shifted(logits: Float[Tensor, "n pos d_vocab"]) -> Float[Tensor, "n pos d_vocab"]:
    """At each place the prediction made one token earlier; at the first, nothing is known."""
    return torch.cat((torch.zeros_like(logits[:, :1]), logits[:, :-1]), 1)


def _sample(logits: Tensor, ids: Ids, places: Bool[Tensor, "n pos"], generator: torch.Generator) -> Ids:
    proposed = ids.clone()
    if places.any():
        chances = logits[places].float().softmax(-1).cpu()
        proposed[places] = torch.multinomial(chances, 1, generator=generator)[:, 0].to(ids.device)
    return proposed


def _all_logits(anatomy: Any, ids: Ids) -> Float[Tensor, "n pos d_vocab"]:
    """Logits at every position of prompts without padding."""
    frame = prepare(anatomy, ids, 0, torch.full((len(ids),), ids.shape[1], device="cpu"))
    return unembed(anatomy, run_blocks(frame, anatomy.embed(ids, frame.positions)))
