"""One prompt's run, held: attention patterns and the scales of norms are constants, so that the rest is linear.

Between MLPs a gradient then passes the residual stream and held attention alone. Both are written out here; no autograd
is needed, and many gradients go back at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.kernels.forward import Recorder, Residual, attention_pattern, prepare, run_blocks, unembed
from interp.kernels.frame import Frame, PerHead, PerPort
from interp.kernels.neurons import past_norm
from interp.mlps import Hidden
from interp.parts import Norm, working

Stream = Float[Tensor, "pos d_model"]
Gradients = Float[Tensor, "row pos d_model"]
Divisor = Float[Tensor, "pos 1"]
Hear = Callable[[str, Tensor], None]  # a bias's place, and the gradients where it is added


@dataclass
class HeldLayer:
    """What one layer did."""

    pattern: Float[Tensor, "head query key"]
    attention_divisor: Divisor
    z: Float[Tensor, "pos head d_head"]  # of each head, in front of its output matrix
    attention_post_divisor: Divisor | None = None
    mlp_input: Stream = field(init=False)  # the residual stream that the MLP reads
    mlp_divisor: Divisor = field(init=False)
    mlp_post_divisor: Divisor | None = None
    hidden: Float[Tensor, "pos d_mlp"] = field(init=False)
    written: Stream = field(init=False)  # in front of a norm behind the MLP
    added: Stream = field(init=False)


@dataclass(frozen=True)
class Held:
    """A prompt's run on a model, and the linear maps that it leaves.

    `words` are the tokens' embeddings, `places` those of learned positions; `stream` is the last residual stream.
    """

    anatomy: Anatomy
    ids: Int[Tensor, " pos"]
    words: Stream
    places: Stream
    layers: list[HeldLayer]
    stream: Stream
    logits: Float[Tensor, " d_vocab"]

    @property
    def n_positions(self) -> int:
        """Length of the prompt."""
        return len(self.ids)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    def block(self, layer: int) -> Block:
        """The block of a layer."""
        return self.anatomy.blocks[layer]

    def attention_pull(self, layer: int, gradients: Gradients, hear: Hear) -> Gradients:
        """Gradients in front of a layer's attention and its norm, from those at what attention adds.

        Positions beyond those of `gradients` are left out, which nothing in front of them sees.
        """
        block, held, length = self.block(layer), self.layers[layer], gradients.shape[1]
        if block.attention_post_norm is not None and held.attention_post_divisor is not None:
            hear("attention_post_norm", gradients)
            gradients = norm_pull(block.attention_post_norm, held.attention_post_divisor[:length], gradients)
        hear("o", gradients)
        heads = gradients @ working(block.o.weight)
        n_rows, n_kv, d_head = len(heads), self.anatomy.n_kv_heads, self.anatomy.d_head
        # the queries of all heads that share a key-value head are summed in one product
        grouped = heads.view(n_rows, length, n_kv, -1, d_head).permute(2, 3, 1, 0, 4)
        patterns = held.pattern[:, :length, :length].unflatten(0, (n_kv, -1)).permute(0, 3, 1, 2)
        values = torch.bmm(patterns.flatten(2), grouped.reshape(n_kv, -1, n_rows * d_head))
        values = values.view(n_kv, length, n_rows, d_head).permute(2, 1, 0, 3).reshape(n_rows, length, -1)
        hear("v", values)
        normed = values @ working(block.v.weight)
        hear("attention_norm", normed)
        return norm_pull(block.attention_norm, held.attention_divisor[:length], normed)

    def heads_behind(self, layer: int, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row head d_head"]:
        """Gradients at what a layer's heads give, from those at what they add; a held divisor is left to the caller."""
        block = self.block(layer)
        if block.attention_post_norm is not None:
            vectors = norm_pull(block.attention_post_norm, vectors.new_ones(1), vectors)
        heads: Tensor = vectors @ working(block.o.weight)
        return heads.view(len(heads), -1, self.anatomy.d_head)

    def attention_constants(self, layer: int) -> dict[str, Stream]:
        """By place, what biases behind a layer's heads add to the residual stream."""
        block, held = self.block(layer), self.layers[layer]
        found, post, divisor = dict[str, Tensor](), block.attention_post_norm, held.attention_post_divisor
        if block.o.bias is not None:
            found["o"] = working(block.o.bias).expand_as(self.words)
            if post is not None and divisor is not None:
                found["o"] = post.centred(found["o"]) / divisor * (1.0 if post.gain is None else working(post.gain))
        if post is not None and post.bias is not None:
            found["attention_post_norm"] = working(post.bias).expand_as(self.words)
        return found

    def behind_mlp(self, layer: int, gradients: Gradients) -> Gradients:
        """Gradients at an MLP's output, from those at what it adds: through a norm that follows it."""
        norm, divisor = self.block(layer).mlp_post_norm, self.layers[layer].mlp_post_divisor
        if norm is None or divisor is None:
            return gradients
        return norm_pull(norm, divisor[: gradients.shape[1]], gradients)

    def into_stream(self, layer: int, written: Float[Tensor, "row d_model"], divisor: Tensor | None) -> Tensor:
        """What vectors of an MLP's output add to the residual stream, at the positions whose `divisor` is given."""
        moved = past_norm(self.block(layer), written)
        return moved if divisor is None else moved / divisor


def norm_pull(norm: Norm, divisor: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in front of a norm whose divisor is held."""
    gained = gradient if norm.gain is None else gradient * working(norm.gain)
    return norm.centred(gained) / divisor


class _Holding(Recorder):
    hears_neurons = True

    def __init__(self, frame: Frame) -> None:
        self.frame, self.layers = frame, list[HeldLayer]()

    def attention_input(self, layer: int, x: Residual) -> None:
        self._divisor = self.frame.anatomy.blocks[layer].attention_norm.divisor(working(x[0]))

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        block = self.frame.anatomy.blocks[layer]
        pattern = working(attention_pattern(self.frame, layer, q, k, v)[0])
        z = torch.einsum("hts,shd->thd", pattern, working(v[0])[:, self.frame.kv_of_head])
        held = HeldLayer(pattern, self._divisor, z)
        if block.attention_post_norm is not None:
            held.attention_post_divisor = block.attention_post_norm.divisor(block.o(z.flatten(1).to(v.dtype)))
        self.layers.append(held)
        return q, k, v

    def mlp_input(self, layer: int, x: Residual) -> Residual:
        held = self.layers[layer]
        held.mlp_input = working(x[0])
        held.mlp_divisor = self.frame.anatomy.blocks[layer].mlp_norm.divisor(held.mlp_input)
        return x

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        held, norm = self.layers[layer], self.frame.anatomy.blocks[layer].mlp_post_norm
        held.hidden, held.written = working(hidden[0]), working(written[0])
        held.mlp_post_divisor = None if norm is None else norm.divisor(held.written)

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        self.layers[layer].added = working(m[0])
        return m


@torch.no_grad()
def hold(anatomy: Anatomy, ids: Int[Tensor, " pos"]) -> Held:
    """Run a prompt and hold what it did: one forward pass, `n_layers` times heads x pos^2 + pos x d_mlp floats."""
    tokens = ids.to(anatomy.device)[None]
    frame = prepare(anatomy, tokens, 0, torch.tensor([len(ids)], device=anatomy.device))
    embedding = anatomy.embed(tokens, frame.positions)
    recorder = _Holding(frame)
    stream = run_blocks(frame, embedding, recorder)
    places = working(anatomy.embed.positional(frame.positions))
    words = working(embedding[0]) - places
    logits = unembed(anatomy, stream[0, -1])
    return Held(anatomy, tokens[0], words, places, recorder.layers, working(stream[0]), working(logits))
