"""A causal language model as input attribution sees it: from embeddings to the logit that is explained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.inputs.encode import Inputs, Targets, explained_logit, resolve_targets
from interp.anatomy import Anatomy
from interp.errors import InputError, choose
from interp.inspection import anatomy_of
from interp.kernels.backward import PLAIN, Backward
from interp.kernels.forward import last_rows, prepare, run_blocks, unembed

Embeddings = Float[Tensor, "n pos d_model"]
BASELINES = ("zero", "mean", "pad", "eos", "bos", "unk")


@dataclass(frozen=True)
class Explained:
    """A model, read part by part; nothing of it is changed."""

    model: Any
    anatomy: Anatomy

    @classmethod
    def of(cls, model: Any) -> Explained:
        """Raises `InputError` for a model that has no such parts."""
        return cls(model, anatomy_of(model))

    def embed(self, ids: Int[Tensor, "n pos"]) -> Embeddings:
        """Token embeddings, with those of positions where the model learned some."""
        ids = ids.to(self.anatomy.device)
        with torch.no_grad():
            return self.anatomy.embed(ids, torch.arange(ids.shape[1], device=ids.device))

    def logits(
        self, embeddings: Embeddings, lengths: Int[Tensor, " n"], backward: Backward = PLAIN
    ) -> Float[Tensor, "n d_vocab"]:
        """Logits at the last real position; embeddings may be wider than the model (captum's are float32)."""
        embeddings = embeddings.to(self.anatomy.dtype)
        ids = torch.zeros(embeddings.shape[:2], dtype=torch.long)  # a frame without a prefix reads their shape alone
        frame = replace(prepare(self.anatomy, ids, 0), backward=backward)
        x = run_blocks(frame, embeddings)
        return unembed(self.anatomy, last_rows(x, frame, lengths.to(x.device)), backward)

    def value(
        self,
        embeddings: Embeddings,
        lengths: Int[Tensor, " n"],
        positive: Int[Tensor, " n"],
        negative: Int[Tensor, " n"],
        backward: Backward = PLAIN,
    ) -> Float[Tensor, " n"]:
        """The explained logit, or difference of two."""
        return explained_logit(self.logits(embeddings, lengths, backward), positive, negative)

    def baseline(self, inputs: Inputs, baseline: str | int) -> Embeddings:
        """What an input is replaced by: zeros, the mean embedding, or a token's embedding at the same position.

        Raises `InputError` for an unknown name, a token that the tokenizer lacks, or an id out of range.
        """
        like = self.embed(inputs.ids)
        if baseline == "zero":
            return torch.zeros_like(like)
        if baseline == "mean":
            vocabulary = self.embed(torch.arange(self.anatomy.d_vocab)[:, None])
            first = torch.zeros_like(inputs.ids)
            return self.embed(first) + (vocabulary.mean(0) - vocabulary[0])
        token: Any = baseline
        if not isinstance(baseline, int):
            tokenizer = getattr(self.model, "tokenizer", None)
            token = getattr(tokenizer, f"{choose('baseline', baseline, BASELINES)}_token_id", None)
            if token is None:
                raise InputError(f"baseline={baseline!r}, but the model's tokenizer has no such token; try 'zero'")
        if isinstance(token, bool) or not 0 <= int(token) < self.anatomy.d_vocab:
            raise InputError(f"baseline={token} is no token id; the vocabulary has {self.anatomy.d_vocab}")
        return self.embed(torch.full_like(inputs.ids, int(token)))

    def patterns(self, ids: Int[Tensor, "n pos"]) -> list[Float[Tensor, "n query key"]]:
        """Attention patterns of every layer, means over heads; from the model's own run."""
        found: list[Tensor] = []

        def keep(pattern: Tensor, hook: Any) -> Tensor:
            found.append(pattern.detach().mean(1))
            return pattern

        hooks = [(f"blocks.{layer}.attn.hook_pattern", keep) for layer in range(self.anatomy.n_layers)]
        with torch.no_grad():
            self.model.run_with_hooks(ids.to(self.anatomy.device), fwd_hooks=hooks)
        return found

    def readable(self, ids: list[int]) -> list[str]:
        """Tokens as people read them; ids where there is no tokenizer."""
        tokenizer = getattr(self.model, "tokenizer", None)
        return [str(i) if tokenizer is None else tokenizer.decode([i]) for i in ids]

    def readable_rows(self, inputs: Inputs) -> list[list[str]]:
        """The tokens of every input, without padding."""
        lengths = inputs.lengths.tolist()
        return [self.readable(row[:length]) for row, length in zip(inputs.ids.tolist(), lengths, strict=True)]


def one_by_one(inputs: Inputs, targets: Targets, size: int) -> list[tuple[slice, Inputs, Targets]]:
    """The inputs in batches of `size`."""
    slices = [slice(first, min(len(inputs), first + size)) for first in range(0, len(inputs), size)]
    return [(chosen, inputs.select(chosen), targets.select(chosen)) for chosen in slices]


def find_targets(explained: Explained, inputs: Inputs, target: Any, size: int) -> tuple[Targets, Float[Tensor, " n"]]:
    """The targets that `target` names (see `resolve_targets`), and the explained logits of the unchanged inputs."""
    placeholder = Targets(torch.zeros(len(inputs), dtype=torch.long), torch.full((len(inputs),), -1))
    with torch.no_grad():
        logits = torch.cat(
            [
                explained.logits(explained.embed(some.ids), some.lengths)
                for _, some, _ in one_by_one(inputs, placeholder, size)
            ]
        )
    targets = resolve_targets(explained.model, target, len(inputs), logits.argmax(1))
    return targets, explained_logit(logits, targets.positive, targets.negative).cpu()


def readable_targets(explained: Explained, targets: Targets) -> list[str]:
    """Targets as people read them: ` Mary`, or ` Mary - John` for a contrast."""
    names = []
    for positive, negative in zip(targets.positive.tolist(), targets.negative.tolist(), strict=True):
        both = explained.readable([positive] if negative < 0 else [positive, negative])
        names.append(" - ".join(both))
    return names
