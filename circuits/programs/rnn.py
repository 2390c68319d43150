"""`RNN`: a recurrent network small enough to be read: two perceptrons, one for the state and one for the output."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Generator, Tensor

from interp.arrays import as_tensor
from interp.errors import InputError
from interp.files import existing, write_bytes
from interp.headers import check_header, validated
from interp.keeping import kept
from interp.numbers import COUNT, settle

FORMAT = "faithful-circuits/rnn"
VERSION = 1

# (weight [..., out, in], bias [..., out]) of each layer; several networks at once have an axis in front
Layers = Sequence[tuple[Tensor, Tensor]]


@kept
@dataclass(frozen=True)
class Shape:
    """The sizes of an `RNN`; a depth of 1 is a linear map, and its width does not matter.

    Attributes:
        inputs, outputs: numbers in and out at a position.
        hidden: size of the state.
        transition_depth, transition_width: linear layers of f, and neurons between two of them.
        output_depth, output_width: the same of g.

    >>> print(Shape(hidden=2, output_depth=2, output_width=4), Shape().parameters)
    2 hidden, f linear, g 4 wide 5
    """

    inputs: int = 1
    outputs: int = 1
    hidden: int = 1
    transition_depth: int = 1
    transition_width: int = 1
    output_depth: int = 1
    output_width: int = 1

    def __post_init__(self) -> None:
        settle(self, **dict.fromkeys(asdict(self), COUNT))

    @property
    def transition(self) -> list[int]:
        """Sizes of f's layers, from its input to its output."""
        between = [self.transition_width] * (self.transition_depth - 1)
        return [self.hidden + self.inputs, *between, self.hidden]

    @property
    def output(self) -> list[int]:
        """The same of g."""
        return [self.hidden, *[self.output_width] * (self.output_depth - 1), self.outputs]

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        both = zip([*self.transition[:-1], *self.output[:-1]], [*self.transition[1:], *self.output[1:]], strict=True)
        return sum((into + 1) * out for into, out in both)

    def __str__(self) -> str:
        f, g = (
            "linear" if depth == 1 else f"{width} wide" + (f", {depth} deep" if depth > 2 else "")
            for depth, width in (
                (self.transition_depth, self.transition_width),
                (self.output_depth, self.output_width),
            )
        )
        return f"{self.hidden} hidden, f {f}, g {g}"


@dataclass(frozen=True, eq=False, repr=False)
class RNN:
    """h_t = f(h_{t-1}, x_t), y_t = g(h_t), h_0 = 0; f and g are perceptrons with ReLU (arXiv:2402.05110, section 3.1).

    Attributes:
        transition: of f, a weight [out, in] and a bias [out] a layer; the state stands in front of what is read.
        output: the same of g.

    Raises `InputError` for layers that do not fit each other.
    """

    transition: Layers
    output: Layers

    def __post_init__(self) -> None:
        if not (self.transition and self.output):
            raise InputError("transition and output must have at least one layer each")
        for name, layers in (("transition", self.transition), ("output", self.output)):
            sizes = [layers[0][0].shape[-1]] if name == "transition" else [self.hidden]
            for index, (weight, bias) in enumerate(layers):
                if weight.shape[-1] != sizes[-1] or weight.shape[-2] != bias.shape[-1]:
                    raise InputError(
                        f"{name}[{index}] has a weight {tuple(weight.shape)} and a bias {tuple(bias.shape)}; it must "
                        f"take {sizes[-1]} numbers"
                    )
                sizes.append(bias.shape[-1])
        if self.inputs < 1:
            raise InputError(f"transition takes {self.transition[0][0].shape[-1]} numbers; more than its state's size")

    @classmethod
    def drawn(cls, shape: Shape, generator: Generator, copies: tuple[int, ...] = (), gain: float = 1.0) -> Self:
        """Random weights: normal, of a spread of `gain` over the root of the inputs; `copies` are axes in front."""

        def layers(sizes: list[int]) -> Layers:
            drawn = []
            for into, out in itertools.pairwise(sizes):
                weight, bias = (
                    torch.randn(*copies, *size, generator=generator, dtype=torch.float64, device="cpu")
                    for size in ((out, into), (out,))
                )
                drawn.append((weight * gain / into**0.5, bias * gain / into**0.5))
            return drawn

        return cls(layers(shape.transition), layers(shape.output))

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.transition[-1][1].shape[-1])

    @property
    def inputs(self) -> int:
        """Numbers in at a position."""
        return int(self.transition[0][0].shape[-1]) - self.hidden

    @property
    def shape(self) -> Shape:
        """The sizes."""
        return Shape(
            self.inputs, int(self.output[-1][1].shape[-1]), self.hidden,
            len(self.transition), int(self.transition[0][1].shape[-1]),
            len(self.output), int(self.output[0][1].shape[-1]),
        )  # fmt: skip

    def states(self, x: Float[Tensor, "*copies n pos inputs"]) -> Float[Tensor, "*copies n pos hidden"]:
        """The state behind every position."""
        (weight, bias), *rest = self.transition
        into = as_tensor(x).to(weight.dtype)
        if into.ndim < 3 or into.shape[-1] != self.inputs:
            raise InputError(f"x has the shape {tuple(into.shape)}; it must be [n, pos, {self.inputs}]")
        columns = into.movedim(-1, -3).transpose(-1, -2).contiguous()  # [inputs, pos, n]: long rows are fast
        driven = weight[..., self.hidden :] @ columns.flatten(-2) + bias.unsqueeze(-1)
        back = weight[..., : self.hidden]
        state: Tensor = driven.new_zeros(*driven.shape[:-2], self.hidden, into.shape[-3])
        found = []
        for drive in driven.unflatten(-1, columns.shape[-2:]).unbind(-2):
            state = behind(rest, back @ state + drive)
            found.append(state)
        return torch.stack(found, -3).movedim(-1, -3)

    def read(self, states: Float[Tensor, "*any n hidden"]) -> Float[Tensor, "*any n outputs"]:
        """g of states."""
        (weight, bias), *rest = self.output
        return behind(rest, weight @ states.mT + bias.unsqueeze(-1)).mT

    def __call__(self, x: Float[Tensor, "*copies n pos inputs"]) -> Float[Tensor, "*copies n pos outputs"]:
        """The output at every position."""
        states = self.states(x)
        found: Tensor = self.read(states.flatten(-3, -2)).unflatten(-2, states.shape[-3:-1])
        return found

    def parameters(self) -> list[Tensor]:
        """All weights and biases."""
        return [tensor for layers in (self.transition, self.output) for pair in layers for tensor in pair]

    def replaced(self, parameters: Sequence[Tensor]) -> RNN:
        """The same network with other weights, in the order of `parameters()`."""
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        return RNN(pairs[: len(self.transition)], pairs[len(self.transition) :])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, which `load` reads; a kill leaves the file that was there before."""
        header = {"rnn": json.dumps({"format": FORMAT, "version": VERSION, "shape": asdict(self.shape)})}
        tensors = {str(index): tensor.detach().contiguous() for index, tensor in enumerate(self.parameters())}
        return write_bytes(path, safetensors.torch.save(tensors, header))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RNN:
        """Read what `save` wrote. Raises `InputError` for a missing, damaged or newer file."""
        file, where = existing(path, "network file")
        try:
            with safe_open(file, "pt") as opened:
                about: Any = json.loads((opened.metadata() or {}).get("rnn", "null"))
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
        except (safetensors.SafetensorError, ValueError) as error:
            raise InputError(f"{where} is damaged: {error}") from None
        check_header(about, FORMAT, VERSION, where)
        empty = cls.drawn(validated(Shape, about.get("shape"), where), Generator().manual_seed(0))
        found = [tensors.get(str(index)) for index in range(len(tensors))]
        wanted = empty.parameters()
        if [tensor.shape for tensor in found if tensor is not None] != [tensor.shape for tensor in wanted]:
            raise InputError(f"{where} is damaged: its tensors are not those of its shape")
        return empty.replaced([tensor for tensor in found if tensor is not None])

    def __repr__(self) -> str:
        return f"RNN({self.shape})"


def behind(layers: Layers, x: Float[Tensor, "*copies width n"]) -> Float[Tensor, "*copies out n"]:
    """What layers give whose first is a ReLU of `x`."""
    for weight, bias in layers:
        x = weight @ x.relu() + bias.unsqueeze(-1)
    return x
