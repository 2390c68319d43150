"""A prompt that is read token by token: hidden states of candidates for the next token, the prefix kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.inputs import encode_inputs
from interp.inspection import anatomy_of
from interp.kernels.forward import KeysValuesRecorder, Recorder, run_block
from interp.kernels.frame import Frame, KeysValues
from interp.running import door

States = Float[Tensor, "pos d_model"]


class Reading:
    """A prompt of `length` tokens of which the first are read: the keys and values of the first `layer` blocks.

    A token's state depends on those before it alone, so that candidates for the next are rows of a single token.
    """

    def __init__(self, anatomy: Anatomy, layer: int, length: int, normed: bool = False) -> None:
        self.anatomy, self.layer, self.normed = anatomy, layer, normed
        self.read = 0
        self._lengths = torch.tensor([length], device="cpu")
        self._kept: list[KeysValues] = []

    def embedded(self, tokens: Int[Tensor, " candidate"]) -> Float[Tensor, "candidate d_model"]:
        """What enters the first block where these tokens come next."""
        rows: Tensor = self.anatomy.embed(tokens[:, None].to(self.anatomy.device), self._next())
        return rows[:, 0]

    def states(self, x: Float[Tensor, "candidate d_model"]) -> Float[Tensor, "candidate d_model"]:
        """The states behind `layer` blocks of rows that enter the first."""
        return self._run(x, Recorder())

    def append(self, token: int) -> None:
        """Read a token."""
        recorder = KeysValuesRecorder()
        with torch.no_grad():
            self._run(self.embedded(torch.tensor([token], device="cpu")), recorder)
        pairs = zip(self._kept, recorder.kept, strict=True) if self._kept else ()
        joined = [(torch.cat((k, more_k), 1), torch.cat((v, more_v), 1)) for (k, v), (more_k, more_v) in pairs]
        self._kept = joined or recorder.kept
        self.read += 1

    def _next(self) -> Int[Tensor, " pos"]:
        return torch.tensor([self.read], device=self.anatomy.device)

    def _run(self, x: Float[Tensor, "candidate d_model"], recorder: Recorder) -> Float[Tensor, "candidate d_model"]:
        prefix = tuple(self._kept) if self.read else None
        frame = Frame.of(self.anatomy, self.read, self.read + 1, self._lengths, prefix)
        rows = x[:, None]
        for layer in range(self.layer):
            rows = run_block(frame, layer, rows, recorder)
        rows = self.anatomy.final_norm(rows) if self.normed else rows
        return rows[:, 0]


@door
def hidden_states(model: Any, prompts: Any, layer: int, *, normed: bool = False) -> list[States]:
    """The residual stream behind the first `layer` blocks at every position of prompts.

    Args:
        model: what `interp.load_model` returns.
        prompts: strings, or token ids [n, pos].
        layer: 0 (what enters the first block) to the number of blocks; the stream behind the last block is in front of
            the final norm.
        normed: behind the final norm, as the last of transformers' `hidden_states` is.

    Returns:
        For each prompt float [pos, d_model] in the model's dtype.

    Raises:
        InputError: a layer that the model lacks, or prompts that it cannot read.
    """
    anatomy = anatomy_of(model)
    layer = check_layer(anatomy, layer, normed)
    inputs = encode_inputs(model, prompts)
    found = []
    for row, length in zip(inputs.ids, inputs.lengths.tolist(), strict=True):
        own = row[None, :length].to(anatomy.device)
        frame = Frame.of(anatomy, 0, length, torch.tensor([length], device="cpu"))
        with torch.no_grad():
            x = anatomy.embed(own, frame.positions)
            for index in range(layer):
                x = run_block(frame, index, x)
            found.append((anatomy.final_norm(x) if normed else x)[0])
    return found


def check_layer(anatomy: Anatomy, layer: Any, normed: bool) -> int:
    """The layer as a number. Raises `InputError` for one that the model lacks."""
    number = numbers.whole("layer", layer, numbers.Limits(0, anatomy.n_layers))
    if normed and number != anatomy.n_layers:
        raise InputError(
            f"normed=True goes with the stream behind the last block, layer={anatomy.n_layers}; got layer={number}"
        )
    return number


def as_states(states: Any, anatomy: Anatomy) -> list[States]:
    """What a caller gives as hidden states: one prompt's, or several.

    Raises `InputError` for what is no such tensor.
    """
    given = [states] if isinstance(states, Tensor) and states.ndim == 2 else states
    if not isinstance(given, Tensor | Sequence) or isinstance(given, str) or not len(given):
        raise InputError(f"states must be a tensor [pos, d_model], or a list of such; got {type(states).__name__}")
    for index, one in enumerate(given):
        if not isinstance(one, Tensor) or one.ndim != 2 or one.shape[1] != anatomy.d_model or not len(one):
            shape = list(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise InputError(f"states of prompt {index} must be [pos, {anatomy.d_model}]; got {shape}")
        if not one.is_floating_point() or not one.isfinite().all():
            raise InputError(f"states of prompt {index} must be finite floats; its dtype is {one.dtype}")
        if anatomy.max_positions is not None and len(one) > anatomy.max_positions:
            raise InputError(
                f"states of prompt {index} have {len(one)} positions; the model reads {anatomy.max_positions}"
            )
    return [one.detach().to(anatomy.device) for one in given]
