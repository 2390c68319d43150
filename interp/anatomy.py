"""What a transformer is made of, as the kernels see it: norms, projections, attention, MLP, in block order.

An `Anatomy` holds the model's own modules and reads their weights live, so that moving or editing the model is
seen at once. How each architecture is read into it stands in `interp.architectures`; whether it was read
rightly is checked by `interp.validation` at the first use of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from interp.mlps import Dense, Gated, Mixture
    from interp.rotary import QueryScale, Rotary


def working(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are: norms and sums are taken in this precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@dataclass(frozen=True)
class Affine:
    """A linear map of the model, whatever the layout of its weight."""

    module: nn.Module
    transposed: bool = False

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weight as `F.linear` wants it."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.T if self.transposed else weight

    @property
    def bias(self) -> Float[Tensor, " out"] | None:
        """The bias, or None."""
        return getattr(self.module, "bias", None)

    def __call__(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """LayerNorm or RMSNorm over the last axis: `gain * centred(x) / r(x) + bias`."""

    module: nn.Module
    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0  # Gemma's gain is 1 + weight

    @property
    def gain(self) -> Float[Tensor, " d_model"] | None:
        """The factor behind the division, or None for a norm without one."""
        weight: Tensor | None = getattr(self.module, "weight", None)
        return weight if weight is None or not self.offset else weight + self.offset

    @property
    def bias(self) -> Float[Tensor, " d_model"] | None:
        """The bias, or None."""
        return getattr(self.module, "bias", None)

    def centred(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """`x` less its mean for LayerNorm; `x` itself for RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.kind == "layer" else x

    def divisor(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """r(x) = sqrt(mean(centred(x)^2) + eps)."""
        return (self.centred(working(x)).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        wide, gain, bias = working(x), self.gain, self.bias
        if self.kind == "layer":
            gain, bias = (None if w is None else w.to(wide.dtype) for w in (gain, bias))
            return F.layer_norm(wide, wide.shape[-1:], gain, bias, self.eps).to(x.dtype)
        normed = F.rms_norm(wide, wide.shape[-1:], None, self.eps)
        return (normed if gain is None else normed * gain.to(wide.dtype)).to(x.dtype)


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
            table: Tensor = self.words.weight  # type: ignore[assignment]
            return table.new_zeros(len(positions), table.shape[1])
        table = self.places.weight  # type: ignore[assignment]
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
        weight = working(block.o.weight).unflatten(1, (self.n_heads, self.d_head)).permute(1, 2, 0)  # no copy
        if block.attention_post_norm is not None and block.attention_post_norm.gain is not None:
            weight = weight * working(block.attention_post_norm.gain)
        return weight
