"""Checks that a model was read rightly: what is misread must be refused, not mis-scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.forward import Recorder, Residual, prepare, run_blocks, unembed
from interp.kernels.frame import Frame, PerHead
from interp.parts import working
from interp.rotary import as_new
from interp.running import of_this_thread

# relative to the spread of the model's own values; half precision rounds at every step of either
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1.5e-1}

_SHORT, _LONG, _PREFIX = 7, 12, 3  # tokens of the two prompts, and how many of them are run as a prefix
# a window or an original context that ends below is crossed by running that many tokens; more would not be cheap
_AFFORDABLE = 64


@dataclass
class _Run:
    """What two runs are compared in: the final residual stream and the logits, [batch, pos, ...]."""

    residual: Tensor
    logits: Tensor

    def at(self, row: int, start: int, stop: int) -> _Run:
        """Some positions of a prompt."""
        return _Run(self.residual[row, start:stop], self.logits[row, start:stop])


class _Sum(Recorder):
    """Adds up all sources, in at least float32."""

    def __init__(self, anatomy: Anatomy, embedding: Residual) -> None:
        self.anatomy, self.total = anatomy, working(embedding).clone()

    def heads(self, layer: int, z: PerHead) -> None:
        self.total += torch.einsum("bphk,hkd->bpd", working(z), self.anatomy.head_weights(layer))
        bias = self.anatomy.blocks[layer].o.bias
        if bias is not None:
            self.total += bias

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        self.total += m
        return m


@torch.no_grad()
def check_anatomy(anatomy: Anatomy, model: Any) -> None:
    """Run short random prompts through the bridge, each alone, and through the anatomy, and compare.

    Two things must hold: the sum of all sources (and of the constant output biases of attention) equals the
    bridge's own final residual stream, and the logits equal the bridge's own. They must hold for prompts of two
    lengths, padded, from a cached prefix on; and for one from its start, at positions beyond those that the model
    was trained for where it can be asked about such: there tables and queries may be scaled. Raises `InputError`
    otherwise.

    Cost: three forward passes of some ten tokens of either; more tokens where a short window is to be crossed.
    """
    config = model.original_model.config
    long = _to_cross(anatomy, config)
    short, start = min(_SHORT, long), min(_PREFIX, long - 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(anatomy.d_vocab, (2, long), generator=generator, device="cpu").to(anatomy.device)
    lengths = torch.tensor([long, short], device=anatomy.device)
    alone = [_theirs(model, tokens[:1]), _theirs(model, tokens[1:, :short])]
    padded = _ours(prepare(anatomy, tokens, start, lengths), tokens[:, start:])
    pairs = [(padded.at(row, 0, end - start), alone[row].at(0, start, end)) for row, end in enumerate((long, short))]
    _compare(model, anatomy, f"random prompts of {long} and {short} tokens, padded, from position {start} on", pairs)
    tokens = tokens[1:, :short]
    plain = prepare(anatomy, tokens, 0, lengths[1:])
    if anatomy.rotary is None or anatomy.max_positions is not None:
        _compare(model, anatomy, "a random prompt", [(_ours(plain, tokens), alone[1])])
        return
    first = _trained_length(config)
    far = torch.arange(first, first + short, device=anatomy.device)
    theirs = _theirs(model, tokens, position_ids=far[None])
    ours = _ours(plain.placed(far, far[-1:] + 1), tokens)
    _compare(model, anatomy, f"a random prompt at positions {first} to {first + short - 1}", [(ours, theirs)])


def _theirs(model: Any, tokens: Tensor, **settings: Any) -> _Run:
    """The bridge's own run, as if it were its first."""
    seen: list[Tensor] = []
    keep = of_this_thread(lambda x, hook: seen.append(x))
    with as_new(model.original_model):
        logits = model.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_in", keep)], **settings)
    return _Run(seen[0], logits)


def _ours(frame: Frame, tokens: Tensor) -> _Run:
    x = frame.anatomy.embed(tokens, frame.positions)
    total = _Sum(frame.anatomy, x)
    return _Run(total.total, unembed(frame.anatomy, run_blocks(frame, x, total)))


def _to_cross(anatomy: Anatomy, config: Any) -> int:
    """A length beyond windows and original contexts, as far as they are short and the model reads so much."""
    edges = [block.window or 0 for block in anatomy.blocks] + _original_lengths(config)
    length = max([_LONG] + [edge + 4 for edge in edges if edge + 4 <= _AFFORDABLE])
    return length if anatomy.max_positions is None else min(length, anatomy.max_positions)


def _trained_length(config: Any) -> int:
    """A position beyond every length at which a configuration says that something changes."""
    known = [getattr(config, name, None) for name in ("max_position_embeddings", "floor_scale")]
    return max([int(length) for length in known if length] + _original_lengths(config) + [_LONG])


def _original_lengths(config: Any) -> list[int]:
    """`original_max_position_embeddings`, of each type of layer where they differ."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    found = [kind.get("original_max_position_embeddings") for kind in kinds]
    found += [config.max_position_embeddings for kind in kinds if "dynamic" in str(kind.get("rope_type"))]
    return [int(length) for length in found if length]


def _compare(model: Any, anatomy: Anatomy, where: str, pairs: list[tuple[_Run, _Run]]) -> None:
    """Raise `InputError` where ours and theirs differ."""
    residual = max(relative_error(ours.residual, theirs.residual) for ours, theirs in pairs)
    logits = max(relative_error(ours.logits, theirs.logits) for ours, theirs in pairs)
    tolerance = TOLERANCE[anatomy.dtype]
    if not (residual < tolerance and logits < tolerance):
        kind = type(model.original_model).__name__
        raise InputError(
            f"model={kind} is not understood: on {where} the sum of all heads and MLPs misses its final "
            f"residual stream by {residual:.1e} and its logits by {logits:.1e} (relative; allowed: "
            f"{tolerance:.0e}), so circuits in it would be wrong; if its modules were replaced after it was loaded, "
            "replace them before interp.load_model"
        )


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Relative error in the root mean square: a largest error would be ruled by half precision's outliers."""
    theirs = working(theirs)
    return float((working(ours) - theirs).norm() / (theirs - theirs.mean()).norm().clamp_min(1e-12))
