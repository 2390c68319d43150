"""Running a model block by block, with a recorder that sees every source and every target.

The same functions serve plain runs, gradient capture, circuits and patching; they differ in the residual stream
that they start from and in the recorder that listens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from interp.anatomy import Anatomy, Block
from interp.errors import InputError
from interp.kernels.backward import PLAIN, Backward, replace_gradient
from interp.kernels.frame import Frame, KeysValues, PerHead, PerPort
from interp.mlps import Hidden

if TYPE_CHECKING:
    from interp.tasks.answers import Answers
    from interp.tasks.prompts import Prompts

Residual = Float[Tensor, "batch pos d_model"]


class Recorder:
    """Listens to a run; sub-classes keep what they need.

    A method that returns a tensor returns what the run goes on with: the tensor given, a view of it (to see the
    gradient of one branch), or another value of the same shape (to intervene).
    """

    def attention_input(self, layer: int, x: Residual) -> None:
        """The residual stream that attention reads, before its norm."""

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        """Queries, keys and values behind their projections (before q/k norms and rotary embedding)."""
        return q, k, v

    def rotated(self, layer: int, k: PerPort, v: PerPort) -> None:
        """Keys as attention uses them, and values."""

    def heads(self, layer: int, z: PerHead) -> None:
        """Head outputs before W_O, divided by the divisor of a norm behind attention where there is one."""

    def mlp_input(self, layer: int, x: Residual) -> Residual:
        """The residual stream that the MLP reads, before its norm: the branch alone, without the skip path."""
        return x

    def attention_output(self, layer: int, added: Residual) -> Residual:
        """What attention adds to the residual stream."""
        return added

    hears_neurons: bool = False  # whether `neurons` is called

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        """Activations in front of the MLP's output matrix, and the MLP's output before a norm behind it."""

    def mlp_written(self, layer: int, out: Residual) -> Residual:
        """What the MLP gives, in front of a norm behind it."""
        return out

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        """What the MLP adds to the residual stream."""
        return m

    def block_output(self, layer: int, x: Residual) -> Residual:
        """The residual stream behind a whole block."""
        return x


SILENT = Recorder()


def project(block: Block, normed: Residual, d_head: int, backward: Backward) -> tuple[PerHead, PerPort, PerPort]:
    """Queries of all heads, keys and values of all key-value heads."""
    q, k, v = (backward.affine(part, normed).unflatten(-1, (-1, d_head)) for part in (block.q, block.k, block.v))
    return q, k, v


def attend(
    frame: Frame,
    layer: int,
    q: PerHead,
    k: PerPort,
    v: PerPort,
    heads: Int[Tensor, " head"] | None = None,
    recorder: Recorder = SILENT,
) -> PerHead:
    """Attention from projected queries, keys and values to head outputs before W_O.

    `heads` names the query heads that `q` holds where it does not hold all of them. `k` and `v` hold one entry
    per query head of `q`, or one per key-value head of the model.
    """
    return _attention(frame.anatomy.blocks[layer], *ready(frame, layer, q, k, v, heads, recorder), frame).transpose(
        1, 2
    )


def attention_pattern(frame: Frame, layer: int, q: PerHead, k: PerPort, v: PerPort) -> Float[Tensor, "batch head q k"]:
    """What `attend` weighs values by: the softmax of the scores of every head."""
    return attention_parts(frame, layer, q, k, v)[0]


def attention_parts(
    frame: Frame, layer: int, q: PerHead, k: PerPort, v: PerPort
) -> tuple[Float[Tensor, "batch head q k"], Float[Tensor, "batch head k d_head"]]:
    """The pattern of every head, and the values that it weighs, those of the prefix in front."""
    q, k, v = ready(frame, layer, q, k, v)
    block = frame.anatomy.blocks[layer]
    return _scores(block, q, k, frame.masks[block.window]).softmax(-1), v


def attention_scores(frame: Frame, layer: int, q: PerHead, k: PerPort) -> Float[Tensor, "batch head q k"]:
    """What the pattern is the softmax of: capped where the model caps it, -inf where a query may not look."""
    q, k, _ = ready(frame, layer, q, k, k, None, SILENT)
    block = frame.anatomy.blocks[layer]
    return _scores(block, q, k, frame.masks[block.window])


def ready(
    frame: Frame,
    layer: int,
    q: PerHead,
    k: PerPort,
    v: PerPort,
    heads: Int[Tensor, " head"] | None = None,
    recorder: Recorder = SILENT,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as attention multiplies them, `[batch, head, pos, d_head]`: normed, turned, repeated."""
    block, backward = frame.anatomy.blocks[layer], frame.backward
    q, k, v = backward.factors(q, k, v)
    if block.q_norm is not None:
        q = backward.norm(block.q_norm, q)
    if block.k_norm is not None:
        k = backward.norm(block.k_norm, k)
    q, k = frame.turn(layer, q, k)
    recorder.rotated(layer, k, v)
    groups = frame.kv_of_head if heads is None else frame.kv_of_head[heads]
    if k.shape[2] != q.shape[2]:
        k, v = k[:, :, groups], v[:, :, groups]
    before = frame.keys_values(layer, groups, q.shape[0])
    if before is not None:
        k, v = torch.cat((before[0], k), 1), torch.cat((before[1], v), 1)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _attention(block: Block, q: Tensor, k: Tensor, v: Tensor, frame: Frame) -> Tensor:
    mask, temperature = frame.masks[block.window], frame.backward.temperature
    if block.softcap is None:
        value = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and q.shape[2] > 1, scale=block.scale
        )
        # with a temperature, too, the value is this one: the explicit softmax rounds differently
        return value if temperature is None else replace_gradient(value, _explicit(block, q, k, v, mask, temperature))
    return _explicit(block, q, k, v, mask, temperature)


def _explicit(block: Block, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float | None) -> Tensor:
    return softmax(_scores(block, q, k, mask), temperature) @ v


def _scores(block: Block, q: Tensor, k: Tensor, mask: Tensor | None) -> Float[Tensor, "batch head q k"]:
    scores = capped(block, uncapped_scores(block, q, k))
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~mask, float("-inf"))


def uncapped_scores(block: Block, q: Tensor, k: Tensor) -> Float[Tensor, "batch head q k"]:
    """Scores of ready queries and keys in front of a soft cap, also of keys that a query does not see."""
    return q @ k.transpose(-1, -2) * block.scale


def capped(block: Block, scores: Tensor) -> Tensor:
    """Scores behind the soft cap of a layer that has one."""
    return scores if block.softcap is None else torch.tanh(scores / block.softcap) * block.softcap


def softmax(scores: Tensor, temperature: float | None) -> Tensor:
    """Softmax over the last axis; its gradient is the softmax's Jacobian at `scores / temperature`, if given."""
    pattern = scores.softmax(-1)
    if temperature is None:
        return pattern
    return replace_gradient(pattern, (scores / temperature).softmax(-1) * temperature)


def write_heads(block: Block, z: PerHead, backward: Backward = PLAIN) -> tuple[PerHead, Residual]:
    """Head outputs before W_O -> (the same in units of the residual stream, what attention adds to it).

    With a norm behind attention its divisor belongs to the heads, so that heads add up (see
    `Anatomy.head_weights`); without one the head outputs are returned as they are.
    """
    summed = backward.affine(block.o, z.flatten(2))
    norm = block.attention_post_norm
    if norm is None:
        return z, summed
    return z / norm.divisor(summed)[..., None].to(z.dtype), backward.norm(norm, summed)


def run_mlp(
    block: Block,
    x: Residual,
    backward: Backward = PLAIN,
    hear: Callable[[Hidden, Residual], None] | None = None,
    change: Callable[[Residual], Residual] | None = None,
) -> Residual:
    """What the MLP adds to the residual stream when it reads `x`.

    `hear` is told what `Recorder.neurons` is, and `change` is its `mlp_written`.
    """
    normed = backward.norm(block.mlp_norm, x)
    if hear is None:
        out = block.mlp(normed, backward)
    else:
        hidden, out = block.mlp.opened(normed, backward)
        hear(hidden, out)
    if change is not None:
        out = change(out)
    return out if block.mlp_post_norm is None else backward.norm(block.mlp_post_norm, out)


def run_attention(frame: Frame, layer: int, x: Residual, recorder: Recorder) -> Residual:
    """What attention adds to the residual stream when it reads `x`."""
    block, backward = frame.anatomy.blocks[layer], frame.backward
    recorder.attention_input(layer, x)
    q, k, v = project(block, backward.norm(block.attention_norm, x), frame.anatomy.d_head, backward)
    q, k, v = recorder.projections(layer, q, k, v)
    z = attend(frame, layer, q, k, v, recorder=recorder)
    scaled, added = write_heads(block, z, backward)
    recorder.heads(layer, scaled)
    return recorder.attention_output(layer, added)


def finish_block(frame: Frame, layer: int, x: Residual, middle: Residual, recorder: Recorder) -> Residual:
    """The rest of a block behind its attention: `x` entered the block, `middle` is `x` plus attention."""
    block = frame.anatomy.blocks[layer]
    hear = functools.partial(recorder.neurons, layer) if recorder.hears_neurons else None
    change = functools.partial(recorder.mlp_written, layer)
    out = run_mlp(block, recorder.mlp_input(layer, x if block.parallel else middle), frame.backward, hear, change)
    return middle + recorder.mlp_output(layer, out)


def run_block(frame: Frame, layer: int, x: Residual, recorder: Recorder = SILENT) -> Residual:
    """One whole block."""
    out = finish_block(frame, layer, x, x + run_attention(frame, layer, x, recorder), recorder)
    return recorder.block_output(layer, out)


def run_blocks(
    frame: Frame,
    x: Residual,
    recorder: Recorder = SILENT,
    first: int = 0,
    last: int | None = None,
    checkpointed: bool = False,
) -> Residual:
    """Blocks `first` to `last`, or to the end. `checkpointed` recomputes one at a time in the backward pass."""
    for layer in range(first, frame.anatomy.n_layers if last is None else last + 1):
        if checkpointed:
            step: Callable[..., Any] = run_block
            x = checkpoint(step, frame, layer, x, recorder, use_reentrant=False, preserve_rng_state=False)
        else:
            x = run_block(frame, layer, x, recorder)
    return x


def last_rows(x: Residual, frame: Frame, lengths: Int[Tensor, " prompt"]) -> Float[Tensor, "batch d_model"]:
    """The last real position of each prompt; `x` may be several stacked copies of the batch."""
    at = (lengths - 1 - frame.start).repeat(x.shape[0] // len(lengths))
    return x[torch.arange(x.shape[0], device=x.device), at]


def answer_rows(x: Residual, frame: Frame, prompts: Prompts) -> Float[Tensor, "read d_model"]:
    """The positions at which answers are read; `x` may be several stacked copies of the batch."""
    if prompts.answers is None:
        return last_rows(x, frame, prompts.lengths)
    row, position = prompts.reads
    read: Tensor = x.unflatten(0, (-1, prompts.n_rows))[:, row, position - frame.start].flatten(0, 1)
    return read


def unembed(
    anatomy: Anatomy, x: Float[Tensor, "*batch d_model"], backward: Backward = PLAIN
) -> Float[Tensor, "*batch d_vocab"]:
    """Final norm and unembedding, of one position or of all; logits in at least float32."""
    logits = backward.affine(anatomy.unembed, backward.norm(anatomy.final_norm, x))
    if anatomy.cap is not None:
        logits = backward.activation(anatomy.cap, logits)
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class KeysValuesRecorder(Recorder):
    """Keeps the keys and values of every layer that is run."""

    def __init__(self) -> None:
        self.kept: list[KeysValues] = []

    def rotated(self, layer: int, k: PerPort, v: PerPort) -> None:
        self.kept.append((k, v))


@torch.no_grad()
def prepare(
    anatomy: Anatomy,
    tokens: Int[Tensor, "batch pos"],
    start: int,
    lengths: Int[Tensor, " batch"],
    answers: Answers | None = None,
) -> Frame:
    """The frame that runs `tokens` from position `start` on; computes the prefix's keys and values.

    `lengths` are those of the prompts without padding: rotary tables may depend on them. With `answers` rows of one
    prompt have one prefix, which is run once.

    Raises `InputError` for prompts longer than a model with learned positions can read.
    """
    stop = tokens.shape[1]
    if anatomy.max_positions is not None and stop > anatomy.max_positions:
        raise InputError(f"prompts of {stop} tokens are too long: model={anatomy.name!r} reads {anatomy.max_positions}")
    if start == 0:
        return Frame.of(anatomy, 0, stop, lengths)
    shared = answers is not None and not (anatomy.rotary is not None and anatomy.rotary.apart(lengths))
    first = answers.first if shared and answers is not None else slice(None)
    before, recorder = Frame.of(anatomy, 0, start, lengths[first]), KeysValuesRecorder()
    x = run_blocks(before, anatomy.embed(tokens[first, :start], before.positions), recorder, last=anatomy.n_layers - 2)
    # of the last layer only keys and values are ever read
    run_attention(before, anatomy.n_layers - 1, x, recorder)
    every = answers.prompt if shared and answers is not None else slice(None)
    return Frame.of(anatomy, start, stop, lengths, tuple((k[every], v[every]) for k, v in recorder.kept))
