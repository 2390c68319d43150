"""`DeCoRe`: generation that is held against the same model without its retrieval heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from attribution.heads.masking import HeadMask
from interp import numbers
from interp.errors import InputError, choose
from interp.running import settled

PREFIXES = ("unmasked", "masked")
Logits = Float[Tensor, "*rows d_vocab"]


class DeCoRe(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Decoding by contrasting retrieval heads (Gema et al. 2024, arXiv:2410.18860), for `model.generate`.

    With p the model and p' the model without some heads:

        logits  =  (1 + a) log p  -  a log p',      a = entropy of p, in nats; or a fixed number

    so that what the masked model would say anyway counts less, the more the less sure the model is. The masked model
    has a cache of keys and values of its own: one more forward pass of one token a step, and one of the prompt.

        processor = DeCoRe(model, retrieval.heads(20))
        model.original_model.generate(ids, logits_processor=[processor])

    Args:
        model: what `interp.load_model` returns.
        heads: names of the heads that are masked.
        alpha: `"entropy"`, or a number of at least 0 (0 is the model itself).
        how: how they are masked, and reference: as for `masked_heads`.
        prefix: `"unmasked"`: the masked model reads all of the prompt but its last token unmasked (the paper's
            generation); `"masked"`: it is masked from the first token on (the paper's scoring).
        attention_mask: of padded prompts [batch, pos], which are padded on the left.

    A processor may be used for one generation after another; beams, samples and batches are followed. Raises
    `InputError` for an unknown weight, prefix or head.
    """

    def __init__(
        self,
        model: Any,
        heads: Sequence[str],
        alpha: str | float = "entropy",
        *,
        how: str = "zero",
        prefix: str = "unmasked",
        reference: Any = None,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> None:
        self.alpha = choose("alpha", alpha, ("entropy",)) if isinstance(alpha, str) else _weight(alpha)
        self.prefix = choose("prefix", prefix, PREFIXES)
        self._mask = HeadMask.of(model, heads, how, reference)
        self._module = model.original_model
        self._padding = attention_mask
        self._seen: Int[Tensor, "batch pos"] | None = None  # what the cache holds
        self._cache: Any = None

    @torch.no_grad()
    def __call__(self, input_ids: Int[Tensor, "batch pos"], scores: Logits) -> Logits:
        """The contrast of the logits that `generate` has for the next token."""
        with settled():
            return contrast(scores, self._masked(input_ids)[:, -1].to(scores), self.alpha)

    @torch.no_grad()
    def log_probabilities(self, prompt: Int[Tensor, " pos"], answer: Int[Tensor, " token"]) -> Float[Tensor, " token"]:
        """Log-probabilities of an answer's tokens behind a prompt, under the contrast; both as token ids.

        Three forward passes where the prefix stays unmasked, two otherwise. Raises `InputError` for an empty one.
        """
        prompt, answer = (torch.as_tensor(one, device=self._module.device) for one in (prompt, answer))
        if not len(prompt) or not len(answer):
            raise InputError("prompt and answer must have at least one token each")
        ids = torch.cat((prompt, answer))[None, :-1]
        with settled():
            own = self._module(ids, use_cache=False).logits[0, -len(answer) :]
            self._seen = None
            without = self._masked(ids, len(prompt))[0, -len(answer) :]
            found = contrast(own, without, self.alpha).log_softmax(-1)
        return found.gather(-1, answer[:, None])[:, 0]

    def _masked(self, ids: Int[Tensor, "batch pos"], prompt: int | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        """The masked model's logits for what its cache does not hold, and at least for the last token.

        `prompt`: how many tokens the prompt has, where some of the answer stands behind it already.
        """
        followed = self._rows(ids)
        if followed is None:
            self._cache, first = None, (ids.shape[1] if prompt is None else prompt) - 1
            if self.prefix == "unmasked" and first:
                self._run(ids[:, :first])
            elif first:
                with self._mask.applied():
                    self._run(ids[:, :first])
        else:
            self._cache.reorder_cache(followed)
        self._seen = ids
        done = 0 if self._cache is None else self._cache.get_seq_length()
        with self._mask.applied():
            return self._run(ids[:, done:])

    def _rows(self, ids: Int[Tensor, "batch pos"]) -> Int[Tensor, " batch"] | None:
        """Of each row the row of the cache that it goes on from; None where this is another generation."""
        if self._seen is None or ids.shape != (len(self._seen), self._seen.shape[1] + 1):
            return None
        same = (ids[:, None, :-1] == self._seen[None]).all(-1)
        if not same.any(1).all():
            return None
        # a row that stands where it stood goes first: rows may be alike and be padded differently
        same = same.long() + torch.eye(len(ids), dtype=torch.long, device=ids.device) * same
        return same.argmax(1)

    def _run(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        given: dict[str, Any] = {}
        if self._padding is not None:
            done = 0 if self._cache is None else self._cache.get_seq_length()
            mask = self._padded(len(ids), done + ids.shape[1]).to(ids.device)
            given = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, done:]}
        out = self._module(ids, past_key_values=self._cache, use_cache=True, **given)
        self._cache = out.past_key_values
        logits: Tensor = out.logits
        return logits

    def _padded(self, rows: int, length: int) -> Int[Tensor, "batch pos"]:
        """The attention mask of prompts, repeated for their beams and samples, with ones for what was generated."""
        mask = torch.as_tensor(self._padding, dtype=torch.long, device="cpu")
        if mask.ndim != 2 or rows % len(mask):
            raise InputError(f"attention_mask of shape {list(mask.shape)} does not fit a batch of {rows} prompts")
        mask = mask.repeat_interleave(rows // len(mask), 0)
        return torch.nn.functional.pad(mask, (0, max(0, length - mask.shape[1])), value=1)[:, :length]


def _weight(alpha: float) -> float:
    return numbers.real("alpha", alpha, numbers.FROM_ZERO)


def contrast(own: Logits, without: Logits, alpha: str | float = "entropy") -> Logits:
    """(1 + a) log p - a log p', of two models' logits; a is p's entropy in nats, or the number `alpha`.

    >>> contrast(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]), 0.5).exp()
    tensor([0.5000, 0.5000])
    """
    own, without = own.log_softmax(-1), without.log_softmax(-1)
    if alpha == "entropy":
        return own + entropy(own)[..., None] * (own - without)
    return own + float(alpha) * (own - without)


def entropy(log_probabilities: Logits) -> Float[Tensor, "*rows"]:
    """Of distributions, in nats.

    >>> entropy(torch.tensor([0.5, 0.5]).log())
    tensor(0.6931)
    """
    # a probability of nothing adds nothing, though its logarithm is infinite
    return -(log_probabilities.exp() * log_probabilities).nan_to_num(0.0).sum(-1)
