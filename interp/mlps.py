"""The kinds of MLP: dense, gated, and a mixture of gated experts. Each reads its weights live."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import InputError
from interp.kernels.backward import PLAIN, Backward
from interp.parts import Affine

Activation = Callable[[Tensor], Tensor]
Normed = Float[Tensor, "batch pos d_model"]
Rows = Float[Tensor, "row d_model"]
Hidden = Float[Tensor, "batch pos d_mlp"]


class _OneMatrix(ABC):
    """What MLPs with one output matrix have in common: neuron p writes column p of it."""

    down: Affine

    def __call__(self, x: Normed, backward: Backward = PLAIN) -> Normed:
        return self.opened(x, backward)[1]

    def opened(self, x: Normed, backward: Backward = PLAIN) -> tuple[Hidden, Normed]:
        """The neurons' activations in front of the output matrix, and the output."""
        hidden = self.hidden(x, backward)
        return hidden, self.write(hidden, backward)

    @abstractmethod
    def hidden(self, x: Normed, backward: Backward) -> Hidden:
        """The neurons' activations."""

    def write(self, hidden: Hidden, backward: Backward = PLAIN) -> Normed:
        """The output for these activations."""
        return backward.affine(self.down, hidden)

    def carried(self, gradient: Normed) -> Hidden:
        """The gradient in front of the output matrix, from that behind it."""
        return gradient @ self.down.weight.to(gradient.dtype)

    def directions(self, neurons: Int[Tensor, " neuron"]) -> Float[Tensor, "neuron d_model"]:
        """What neurons write at an activation of one."""
        weight = self.down.weight
        return weight[:, neurons.to(weight.device)].T

    def routes(self, normed: Float[Tensor, "pos d_model"]) -> list[Route]:
        """The MLPs that neurons belong to: this one."""
        assert isinstance(self, Dense | Gated)
        return [Route(self, 0, None)]

    def write_apart(self, hidden: Hidden) -> Float[Tensor, "batch pos expert d_model"]:
        """What each expert adds for these activations, without a bias: there is one."""
        return (hidden @ self.down.weight.to(hidden.dtype).T)[..., None, :]

    @property
    def n_experts(self) -> int:
        """An MLP that is no mixture is one expert."""
        return 1

    @property
    def width(self) -> int:
        """How many neurons there are."""
        return self.down.shape[1]


@dataclass(frozen=True)
class Dense(_OneMatrix):
    """down(act(up(x)))."""

    up: Affine
    down: Affine
    act: Activation

    def hidden(self, x: Normed, backward: Backward) -> Hidden:
        return backward.activation(self.act, backward.affine(self.up, x))


@dataclass(frozen=True)
class Gated(_OneMatrix):
    """down(act(gate(x)) * up(x))."""

    gate: Affine
    up: Affine
    down: Affine
    act: Activation

    def hidden(self, x: Normed, backward: Backward) -> Hidden:
        gate = backward.activation(self.act, backward.affine(self.gate, x))
        return backward.product(gate, backward.affine(self.up, x))


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts: one node. It is run by the model's own module.

    Its neurons are those of all experts, one expert after the other; an activation is the expert's own times the
    expert's routing weight, 0 where it is not chosen.
    """

    module: nn.Module

    def __call__(self, x: Normed, backward: Backward = PLAIN) -> Normed:
        return backward.mixture(self._own(x), lambda: self._by_expert(x, backward))

    def _own(self, x: Normed) -> Normed:
        out = self.module(x)
        result: Normed = out[0] if isinstance(out, tuple) else out
        return result

    def _by_expert(self, x: Normed, backward: Backward) -> Normed:
        """The same output, expert by expert under the rules, with the routing weights held constant."""
        rows = x.flatten(0, 1)
        total = torch.zeros_like(rows)
        for expert, row, weight, inner in self._routed(rows, backward):
            out = backward.affine(Affine(Matrix(self._parts[1][expert])), inner)
            total = total.index_add(0, row, out * weight.to(out.dtype))
        return total.view_as(x)

    @property
    def act(self) -> Activation:
        """The activation function of its experts."""
        return self._parts[2]

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Activation]:
        """Gates with values, outputs and activation function of all experts."""
        with self._understood():
            experts = cast(Any, self.module).experts
            return experts.gate_up_proj, experts.down_proj, experts.act_fn

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the mixture of experts {type(self.module).__name__} is not laid out like Mixtral's ({error}), so "
                "neither backward rules nor scores of neurons can enter it; use a method without rules, such as "
                "'eap-ig', for heads and MLPs"
            ) from error

    def _routed(self, rows: Rows, backward: Backward) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Of each expert that is chosen: its number, the rows that it gets, their weights [row, 1], its neurons."""
        gates_ups, _, act = self._parts
        with self._understood(), torch.no_grad():
            _, weights, chosen = cast(Any, self.module).gate(rows)
        for expert in chosen.unique().tolist():
            row, rank = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (backward.affine(Affine(Matrix(part)), rows[row]) for part in gates_ups[expert].chunk(2))
            yield expert, row, weights[row, rank, None], backward.product(backward.activation(act, gate), up)

    @torch.no_grad()
    def opened(self, x: Normed, backward: Backward = PLAIN) -> tuple[Hidden, Normed]:
        """The neurons' activations times routing weights, and the output; without gradients.

        Raises `InputError` for a mixture that is more than its experts.
        """
        rows = x.flatten(0, 1)
        hidden = rows.new_zeros(len(rows), *self._parts[1].shape[::2])
        for expert, row, weight, inner in self._routed(rows, PLAIN):
            hidden[row, expert] = inner * weight.to(inner.dtype)
        flat, out = hidden.flatten(1).unflatten(0, x.shape[:2]), self._own(x)
        if not held_equals_own(out, self.write(flat)):
            raise InputError(
                f"the mixture of experts {type(self.module).__name__} does more than Mixtral's (shared experts, other "
                "routing), so it has no neurons here; score it as one node"
            )
        return flat, out

    def write(self, hidden: Hidden, backward: Backward = PLAIN) -> Normed:
        """The output for these activations."""
        downs = self._parts[1]
        parts = zip(downs, hidden.chunk(len(downs), -1), strict=True)
        return torch.stack([backward.affine(Affine(Matrix(down)), inner) for down, inner in parts]).sum(0)

    def write_apart(self, hidden: Hidden) -> Float[Tensor, "batch pos expert d_model"]:
        """What each expert adds for these activations; `write` is their sum."""
        downs = self._parts[1]
        return torch.einsum("bpen,edn->bped", hidden.unflatten(-1, (len(downs), -1)), downs.to(hidden.dtype))

    def carried(self, gradient: Normed) -> Hidden:
        """The gradient in front of the output matrices, from that behind them."""
        return torch.cat([gradient @ down.to(gradient.dtype) for down in self._parts[1]], -1)

    def directions(self, neurons: Int[Tensor, " neuron"]) -> Float[Tensor, "neuron d_model"]:
        """What neurons write at an activation (times routing weight) of one."""
        downs = self._parts[1]
        neurons = neurons.to(downs.device)
        return downs[neurons // downs.shape[2], :, neurons % downs.shape[2]]

    @torch.no_grad()
    def routes(self, normed: Float[Tensor, "pos d_model"]) -> list[Route]:
        """The experts that are chosen somewhere, with the routing weights of all positions."""
        gates_ups, downs, act = self._parts
        found = []
        for expert, row, weight, _ in self._routed(normed, PLAIN):
            weights = normed.new_zeros(len(normed), 1)
            weights[row] = weight.to(normed.dtype)
            gate, up = (Affine(Matrix(part)) for part in gates_ups[expert].chunk(2))
            own = Gated(gate, up, Affine(Matrix(downs[expert])), act)
            found.append(Route(own, expert * downs.shape[2], weights))
        return found

    @property
    def n_experts(self) -> int:
        """How many experts there are."""
        return int(self._parts[1].shape[0])

    @property
    def width(self) -> int:
        """How many neurons there are, experts one after the other."""
        return int(self._parts[1].shape[0] * self._parts[1].shape[2])


@dataclass(frozen=True)
class Route:
    """An MLP with one output matrix, the number of its first neuron, and its routing weights (None: all one)."""

    mlp: Dense | Gated
    start: int
    weights: Float[Tensor, "pos 1"] | None


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
