"""Checks that a model was read rightly: what is misread must be refused, not mis-scored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.anatomy import Anatomy, working
from interp.errors import InputError
from interp.kernels.forward import PerHead, Recorder, Residual, prepare, run_blocks, unembed

# relative to the spread of the model's own values; half precision rounds at every step of either
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1.5e-1}


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
    """Run a short random prompt through the bridge and through the anatomy, and compare.

    Two things must hold: the sum of all sources (and of the constant output biases of attention) equals the
    bridge's own final residual stream, and the logits equal the bridge's own. Raises `InputError` otherwise.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(12, anatomy.max_positions or 12)
    tokens = torch.randint(anatomy.d_vocab, (2, length), generator=generator).to(anatomy.device)
    seen: list[Tensor] = []
    theirs = model.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_in", lambda x, hook: seen.append(x))])
    frame = prepare(anatomy, tokens, 0)
    x = anatomy.embed(tokens, frame.positions)
    total = _Sum(anatomy, x)
    ours = unembed(anatomy, run_blocks(frame, x, total))
    residual = _error(total.total, seen[0])
    logits = _error(ours, theirs)
    tolerance = _TOLERANCE[anatomy.dtype]
    if not (residual < tolerance and logits < tolerance):
        kind = type(model.original_model).__name__
        raise InputError(
            f"model={kind} is not understood: on a random prompt the sum of all heads and MLPs misses its final "
            f"residual stream by {residual:.1e} and its logits by {logits:.1e} (relative; allowed: "
            f"{tolerance:.0e}), so circuits in it would be wrong"
        )


def _error(ours: Tensor, theirs: Tensor) -> float:
    """Relative error in the root mean square: a largest error would be ruled by half precision's outliers."""
    theirs = working(theirs)
    return float((working(ours) - theirs).norm() / (theirs - theirs.mean()).norm().clamp_min(1e-12))


def refuse_hooks(model: Any) -> None:
    """Refuse a bridge that carries hooks: circuits run the weights themselves, so hooks would be ignored."""
    from transformer_lens.hook_points import HookPoint

    for point in model.modules():  # `model.hook_dict` is rebuilt at every access, which takes a tenth of a second
        for handle in (*point.fwd_hooks, *point.bwd_hooks) if isinstance(point, HookPoint) else ():
            # the bridge wires some architectures (OPT) with permanent hooks of its own
            if not str(getattr(handle.user_hook, "__module__", "")).startswith("transformer_lens."):
                raise InputError(
                    f"model carries a hook at {point.name}, which a circuit would silently ignore; "
                    "take it off with model.reset_hooks(), or edit the weights instead"
                )
