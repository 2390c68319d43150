"""What a transformer is made of, as the kernels see it: norms, projections, attention, MLP, in block order.

An `Anatomy` holds the model's own modules and reads their weights live, so that moving or editing the model is
seen at once. How each architecture is read into it stands in `interp.architectures`; whether it was read
rightly is checked by `interp.validation` at the first use of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.mlps import Dense, Gated, Mixture
from interp.parts import Affine, Norm, sample, working
from interp.rotary import QueryScale, Rotary


@dataclass(frozen=True)
class Block:
    """One layer: attention and MLP, each behind its norm, in sequence or (GPT-NeoX, GPT-J) side by side."""

    attention_norm: Norm
    q: Affine
    k: Affine
    v: Affine
    o: Affine
    q_norm: Norm | None
    k_norm: Norm | None
    scale: float
    softcap: float | None
    window: int | None  # a query sees this many positions, itself included
    rope: str  # which of the model's rotary tables this layer uses, if it has any
    query_scale: QueryScale | None  # by the position, behind the rotary embedding
    attention_post_norm: Norm | None
    mlp_norm: Norm
    mlp: Dense | Gated | Mixture  # reads the normed input
    mlp_post_norm: Norm | None
    parallel: bool


@dataclass(frozen=True)
class Embedding:
    """Token embeddings, with learned positions added to them where a model has those (GPT-2, OPT)."""

    words: nn.Module
    places: nn.Module | None = None
    offset: int = 0

    def __call__(
        self, tokens: Int[Tensor, "batch pos"], positions: Int[Tensor, " pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        words: Tensor = self.words(tokens)
        return words if self.places is None else words + self.positional(positions)

    def positional(self, positions: Int[Tensor, " pos"]) -> Float[Tensor, "pos d_model"]:
        """What positions alone give: nothing where they are not learned."""
        if self.places is None:
            width: Any = self.words.embedding_dim
            return sample(self.words).new_zeros(len(positions), width)
        table: Tensor = self.places.weight  # type: ignore[assignment]
        return table[positions + self.offset]


@dataclass(frozen=True)
class Anatomy:
    """A causal language model as blocks between an embedding and an unembedding."""

    name: str
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    max_positions: int | None
    blocks: tuple[Block, ...]
    embed: Embedding
    rotary: Rotary | None
    final_norm: Norm
    unembed: Affine
    cap: Callable[[Tensor], Tensor] | None  # the soft cap of the logits
    parameter: Callable[[], Tensor]  # any weight: tells device and dtype as they are now
    streams: bool = False  # weights are read from files as they are needed (`interp.streaming`)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def coupled_heads(self) -> bool:
        """Whether a norm behind attention makes every head's output depend on all heads of its layer."""
        return any(block.attention_post_norm is not None for block in self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.parameter().dtype

    def weights_digest(self) -> list[float]:
        """A sum per layer over some of its weights: tells two models of one shape apart."""
        return [float(block.o.weight.double().sum() + block.q.weight.double().sum()) for block in self.blocks]

    def kv_of_head(self) -> Int[Tensor, " head"]:
        """For each query head the key-value head it reads."""
        return torch.arange(self.n_heads, device=self.device) // (self.n_heads // self.n_kv_heads)

    def head_weights(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """W_O of each head of a layer, with the gain of a norm behind attention folded in.

        With such a norm (Gemma 2 and 3) a head's output in residual space is gain * (z W_O) / r, r being the
        norm's divisor of the summed attention output: this is the constant part of that map.
        """
        block = self.blocks[layer]
        weight: Tensor = working(block.o.weight).unflatten(1, (self.n_heads, self.d_head)).permute(1, 2, 0)  # no copy
        if block.attention_post_norm is not None and block.attention_post_norm.gain is not None:
            weight = weight * working(block.attention_post_norm.gain)
        return weight
