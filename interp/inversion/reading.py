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
from interp.kernels.forward import SILENT, KeysValuesRecorder, Recorder, Residual, run_blocks
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

    def placed(self, words: Float[Tensor, "candidate d_model"]) -> Float[Tensor, "candidate d_model"]:
        """What enters the first block where tokens of these embeddings come next."""
        embed = self.anatomy.embed
        return words if embed.places is None else words + embed.positional(self._next())

    def states(self, x: Float[Tensor, "candidate d_model"]) -> Float[Tensor, "candidate d_model"]:
        """The states behind `layer` blocks of rows that enter the first."""
        return self._run(x, SILENT)

    def append(self, token: int) -> None:
        """Read a token."""
        recorder = KeysValuesRecorder()
        with torch.no_grad():
            word = self.anatomy.embed.words(torch.tensor([token], device=self.anatomy.device))
            self._run(self.placed(word), recorder)
        pairs = zip(self._kept, recorder.kept, strict=True) if self._kept else ()
        joined = [(torch.cat((k, more_k), 1), torch.cat((v, more_v), 1)) for (k, v), (more_k, more_v) in pairs]
        self._kept = joined or recorder.kept
        self.read += 1

    def _next(self) -> Int[Tensor, " pos"]:
        return torch.tensor([self.read], device=self.anatomy.device)

    def _run(self, x: Float[Tensor, "candidate d_model"], recorder: Recorder) -> Float[Tensor, "candidate d_model"]:
        prefix = tuple(self._kept) if self.read else None
        frame = Frame.of(self.anatomy, self.read, self.read + 1, self._lengths, prefix)
        rows = run_blocks(frame, x[:, None], recorder, last=self.layer - 1)
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
    with torch.no_grad():
        for row, length in zip(inputs.ids, inputs.lengths.tolist(), strict=True):
            x = run_prompt(anatomy, row[:length], layer)
            found.append((anatomy.final_norm(x) if normed else x)[0])
    return found


def run_prompt(
    anatomy: Anatomy, ids: Int[Tensor, " pos"], layer: int, recorder: Recorder = SILENT
) -> Float[Tensor, "1 pos d_model"]:
    """The residual stream of one prompt behind the first `layer` blocks."""
    frame = Frame.of(anatomy, 0, len(ids), torch.tensor([len(ids)], device="cpu"))
    x: Residual = anatomy.embed(ids[None].to(anatomy.device), frame.positions)
    return run_blocks(frame, x, recorder, last=layer - 1)


def settled_tolerance(anatomy: Anatomy, tolerance: float | None) -> float:
    """How near two states must be to be called the same; None: the square root of the dtype's precision."""
    return torch.finfo(anatomy.dtype).eps ** 0.5 if tolerance is None else tolerance


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
