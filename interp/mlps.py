"""The kinds of MLP: dense, gated, and a mixture of gated experts. Each reads its weights live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.kernels.backward import PLAIN, Backward
from interp.parts import Affine

Activation = Callable[[Tensor], Tensor]
Normed = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True)
class Dense:
    """down(act(up(x)))."""

    up: Affine
    down: Affine
    act: Activation

    def __call__(self, x: Normed, backward: Backward = PLAIN) -> Normed:
        return backward.affine(self.down, backward.activation(self.act, backward.affine(self.up, x)))


@dataclass(frozen=True)
class Gated:
    """down(act(gate(x)) * up(x))."""

    gate: Affine
    up: Affine
    down: Affine
    act: Activation

    def __call__(self, x: Normed, backward: Backward = PLAIN) -> Normed:
        gate = backward.activation(self.act, backward.affine(self.gate, x))
        return backward.affine(self.down, backward.product(gate, backward.affine(self.up, x)))


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts: one node. It is run by the model's own module."""

    module: nn.Module

    def __call__(self, x: Normed, backward: Backward = PLAIN) -> Normed:
        return backward.mixture(self._own(x), lambda: self._by_expert(x, backward))

    def _own(self, x: Normed) -> Normed:
        out = self.module(x)
        result: Normed = out[0] if isinstance(out, tuple) else out
        return result

    def _by_expert(self, x: Normed, backward: Backward) -> Normed:
        """The same output, expert by expert under the rules, with the routing weights held constant."""
        rows, module = x.flatten(0, 1), cast(Any, self.module)
        try:
            experts, act = module.experts, module.experts.act_fn
            gates_ups, downs = experts.gate_up_proj, experts.down_proj
            with torch.no_grad():
                _, weights, chosen = module.gate(rows)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the mixture of experts {type(self.module).__name__} is not laid out like Mixtral's ({error}), so "
                "backward rules cannot enter it; use a method without rules, such as 'eap-ig'"
            ) from error
        total = torch.zeros_like(rows)
        for expert in chosen.unique().tolist():
            row, rank = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (backward.affine(Affine(Matrix(part)), rows[row]) for part in gates_ups[expert].chunk(2))
            inner = backward.product(backward.activation(act, gate), up)
            out = backward.affine(Affine(Matrix(downs[expert])), inner)
            total = total.index_add(0, row, out * weights[row, rank, None].to(out.dtype))
        return total.view_as(x)


class Matrix(nn.Module):
    """A linear layer's shell around a weight that it does not own: an expert's or a head's slice of a larger one."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.__dict__ |= {"weight": weight, "bias": bias}  # not parameters of its own


def held_equals_own(value: Tensor, held: Tensor) -> bool:
    """Whether a mixture computed expert by expert is what its own module gives, to rounding."""
    largest = float(value.detach().abs().max())
    tolerance = 1e-3 if value.dtype in (torch.float32, torch.float64) else 1e-1
    return bool(F.l1_loss(held.detach(), value.detach(), reduction="mean") <= tolerance * max(largest, 1e-12))
