"""Heads and whole MLPs as units: what each gives the explained logits, and the vector that it does so along.

    a_u  =  g_u . out_u,    g_u = dL/d out_u with patterns and norms' scales held, MLPs linear as `Neurons` has them

L is the sum of the explained logits by their weights. A head reads through its values alone, its pattern held:

    gradient at the stream, position s  =  pattern[t, s] / scale_s  (g_u W_O W_V)

A row of the graph is therefore one vector and a weight for each position. All units being stopped, nothing but the
residual stream lies between two of them. Heads of a layer are numbered from 0, its MLP is -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.tracing.held import Gradients, Held, Stream, norm_pull
from attribution.tracing.neurons import Neurons
from attribution.tracing.units import Changes, Later, Places, Targets, Units
from attribution.tracing.walk import walk
from interp.parts import working

WHOLE_MLP = -1


@dataclass(frozen=True)
class Reads:
    """Where units of one layer read.

    Attributes:
        vectors: gradients at the stream, but for what depends on the position.
        spread: what each position weighs.
        own: by place, what biases between the stream and the unit give, at each position.
    """

    vectors: Float[Tensor, "row d_model"]
    spread: Float[Tensor, "row pos"]
    own: dict[str, Float[Tensor, "row pos"]]


class Components(Units):
    """All heads and MLPs, as to logits `logits` that weigh `weights`."""

    kind = "head"
    kinds = ("head", "mlp")

    @torch.no_grad()
    def __init__(self, held: Held, logits: Targets, weights: Float[Tensor, " logit"]) -> None:
        self.held, self.inner = held, Neurons(held)
        n_layers = held.n_layers
        # gradients at what each head gives, at what each MLP adds, and in front of it; biases inside of MLPs
        self._heads, self._behind, self._before = ([held.words] * n_layers for _ in range(3))
        self._inside: list[dict[str, Tensor]] = [{} for _ in range(n_layers)]
        vectors = (weights.to(held.words) @ logits.vectors)[None]
        summed = Targets(logits.layers[:1], logits.positions[:1], vectors, {})
        self.token_scores = (walk(held, summed, self._at_mlp, self._at_attention)[0] * held.words).sum(-1)

    def _at_mlp(self, layer: int, gradients: Gradients) -> Gradients:
        self._behind[layer] = gradients[0].clone()
        before, own = self.inner.pulled_with_biases(layer, self.inner.carried(layer, gradients, {}))
        self._before[layer], self._inside[layer] = before[0], {place: values[0] for place, values in own.items()}
        return before

    def _at_attention(self, layer: int, place: str, gradients: Tensor) -> None:
        if place == "o":
            heads = gradients[0] @ working(self.held.block(layer).o.weight)
            self._heads[layer] = heads.unflatten(-1, (-1, self.held.anatomy.d_head))

    def kind_of(self, unit: int) -> str:
        return "mlp" if unit == WHOLE_MLP else "head"

    def has(self, layer: int, unit: int) -> bool:
        return WHOLE_MLP <= unit < self.held.anatomy.n_heads

    def activations(self, layer: int) -> Tensor:
        heads = (self._heads[layer] * self.held.layers[layer].z).sum(-1)
        mlp = (self._behind[layer] * self.inner.total(layer)).sum(-1)
        return torch.cat((mlp[:, None], heads), 1)

    def numbers(self, layer: int) -> Tensor:
        return torch.arange(WHOLE_MLP, self.held.anatomy.n_heads, device=self.held.words.device)

    def width(self, layer: int) -> int:
        return self.held.anatomy.n_heads + 1

    def writes(self, layer: int, places: Places, into: int | None = None) -> Tensor:
        """What heads and MLPs add to the residual stream, but for constants."""
        block, held, found = self.held.block(layer), self.held.layers[layer], self.inner.total(layer)
        at, units = places.positions.to(found.device), places.units.to(found.device)
        found, heads = found[at].clone(), units != WHOLE_MLP
        at, units = at[heads], units[heads]
        output = working(block.o.weight).unflatten(1, (-1, self.held.anatomy.d_head))[:, units]
        written = torch.einsum("muh,uh->um", output, held.z[at, units])
        if block.attention_post_norm is not None and held.attention_post_divisor is not None:
            gain = block.attention_post_norm.gain
            written = block.attention_post_norm.centred(written) / held.attention_post_divisor[at]
            written = written if gain is None else written * working(gain)
        found[heads] = written
        return found

    def given(self, layer: int, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row pos unit"]:
        """What all units of a layer give along vectors, in the order of `numbers`."""
        held = self.held.layers[layer]
        heads = torch.einsum("rhd,phd->rph", self.held.heads_behind(layer, vectors), held.z)
        if held.attention_post_divisor is not None:
            heads = heads / held.attention_post_divisor
        return torch.cat(((vectors @ self.inner.total(layer).T)[..., None], heads), -1)

    def reads(self, layer: int, positions: Int[Tensor, " row"], units: Int[Tensor, " row"]) -> Reads:
        """Of some units of a layer, all of them heads or all of them MLPs."""
        if bool((units == WHOLE_MLP).all()):
            spread = torch.eye(self.held.n_positions, device=units.device, dtype=self.held.words.dtype)[positions]
            own = {place: spread * values[positions][:, None] for place, values in self._inside[layer].items()}
            return Reads(self._before[layer][positions], spread, own)
        block, held, anatomy = self.held.block(layer), self.held.layers[layer], self.held.anatomy
        gradients, shared = self._heads[layer][positions, units], anatomy.kv_of_head()[units]
        vectors, shift = gradients.new_zeros(len(units), anatomy.d_model), gradients.new_zeros(len(units))
        weights = working(block.v.weight).unflatten(0, (anatomy.n_kv_heads, -1))
        bias = None if block.v.bias is None else working(block.v.bias).unflatten(0, (anatomy.n_kv_heads, -1))
        for head in shared.unique().tolist():
            here = shared == head
            vectors[here] = gradients[here] @ weights[head]
            if bias is not None:
                shift[here] = gradients[here] @ bias[head]
        norm, pattern = block.attention_norm, held.pattern[units, positions]
        own = {} if bias is None else {"v": pattern * shift[:, None]}
        if norm.bias is not None:
            own["attention_norm"] = pattern * (vectors @ working(norm.bias))[:, None]
        return Reads(norm_pull(norm, vectors.new_ones(1), vectors), pattern / held.attention_divisor[:, 0], own)

    def constants(self, layer: int) -> dict[str, Stream]:
        return {**self.held.attention_constants(layer), **self.inner.constants(layer)}

    def own_places(self, layer: int) -> list[str]:
        return self.inner.own_places(layer)

    def attended(self, layer: int, z: Tensor, changes: Changes) -> tuple[Tensor | None, Tensor]:
        """A head that is set adds so many times what it would add; a norm behind attention keeps its scale."""
        block, held = self.held.block(layer), self.held.layers[layer]
        post, wide, factors = block.attention_post_norm, working(z), self._factors(layer, z, changes)[..., :-1]
        scale = 1.0 if post is None else post.divisor(block.o(z.flatten(2)))
        more = ((factors - 1)[..., None] * wide).flatten(2) @ working(block.o.weight).T
        if post is not None:
            more = post.centred(more) / scale * (1.0 if post.gain is None else working(post.gain))
        live = factors * (wide * self._heads[layer]).sum(-1)
        if held.attention_post_divisor is not None:
            live = live * held.attention_post_divisor / scale
        return more.to(z.dtype) if len(changes) else None, live

    def run(self, layer: int, x: Tensor, changes: Changes, later: Later) -> tuple[Tensor, Tensor]:
        """An MLP that is set adds so many times what it would add but for its constants."""
        block = self.held.block(layer)
        factors = self._factors(layer, x, changes)[..., -1:]
        written = block.mlp(block.mlp_norm(x))
        added = written if block.mlp_post_norm is None else block.mlp_post_norm(written)
        bias = getattr(getattr(block.mlp, "down", None), "bias", None)
        moving = working(written if bias is None else written - bias)
        divisor = None if block.mlp_post_norm is None else block.mlp_post_norm.divisor(written)
        own = self.held.into_stream(layer, moving, divisor)
        live = factors * (own * self._behind[layer]).sum(-1, keepdim=True)
        return added + ((factors - 1) * own).to(added.dtype) if len(changes) else added, live

    def _factors(self, layer: int, like: Tensor, changes: Changes) -> Float[Tensor, "copy pos number"]:
        """What units are multiplied by; one that gives nothing is left as it is."""
        own = self.activations(layer).roll(-1, 1)  # the MLP, -1, is the last
        now = own.expand(like.shape[0], *own.shape)
        return torch.where(now != 0, changes.set(now) / now, 1.0)


def split_places(places: Places) -> list[tuple[int, bool, Int[Tensor, " some"]]]:
    """Units by layer and kind: layer, whether they are MLPs, which."""
    found = []
    for layer in places.layers.unique().tolist():
        for mlps in (False, True):
            here = ((places.layers == layer) & ((places.units == WHOLE_MLP) == mlps)).nonzero()[:, 0]
            if len(here):
                found.append((layer, mlps, here))
    return found
