"""Prompts as functions take them, strings or token ids, made into right-padded ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp import numbers
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.tasks.encoding import Encoder
from interp.tasks.examples import readable


@dataclass(frozen=True)
class Inputs:
    """Tokenised inputs, padded on the right: causal attention never sees the padding."""

    ids: Int[Tensor, "n pos"]
    lengths: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> Bool[Tensor, "n pos"]:
        """True at real tokens."""
        return torch.arange(self.ids.shape[1], device="cpu") < self.lengths[:, None]

    def select(self, chosen: slice) -> Inputs:
        """Some of the inputs, with no more padding than they need."""
        lengths = self.lengths[chosen]
        return Inputs(self.ids[chosen, : int(lengths.max())], lengths)


def encode_inputs(model: Any, inputs: Any, attention_mask: Any = None, prepend_bos: bool | None = None) -> Inputs:
    """What a language model is given; see `as_inputs`. Strings are tokenised as tasks do it, BOS included."""

    def texts(strings: list[str]) -> list[list[int]]:
        return Encoder(model, prepend_bos).texts(strings)

    longest = getattr(anatomy_of(model), "max_positions", None)
    return as_inputs(inputs, attention_mask, texts, int(model.cfg.d_vocab), longest)


def as_inputs(
    inputs: Any,
    attention_mask: Any,
    texts: Callable[[list[str]], list[list[int]]],
    vocabulary: int,
    longest: int | None,
) -> Inputs:
    """Strings, one or several, or token ids `[n, pos]` (or `[pos]`, or lists of different length).

    `texts` tokenises strings. `attention_mask` marks the real tokens of padded ids, which may be padded on either
    side. Raises `InputError` for what is neither, for empty inputs, for unknown ids, and for more than `longest`
    tokens.
    """
    rows = _rows(inputs)
    if all(isinstance(row, str) for row in rows):
        rows = [readable(f"input {index}", row) for index, row in enumerate(rows)]
        if attention_mask is not None:
            raise InputError("attention_mask goes with token ids; strings are padded here")
        rows = texts(rows)
    elif attention_mask is not None:
        rows = _without_padding(rows, attention_mask)
    for index, row in enumerate(rows):
        if not isinstance(row, list) or not row or not all(is_id(i, vocabulary) for i in row):
            raise InputError(
                f"input {index} must be a string or at least one token id from 0 to {vocabulary - 1}, all inputs of "
                f"one kind; got {row!r}"
            )
    lengths = torch.tensor([len(row) for row in rows], device="cpu")
    if longest is not None and int(lengths.max()) > longest:
        raise InputError(
            f"input {int(lengths.argmax())}: {int(lengths.max())} tokens are too long: the model reads {longest}"
        )
    return Inputs(pad_sequence([torch.tensor(row, device="cpu") for row in rows], batch_first=True), lengths)


def _rows(inputs: Any) -> list[Any]:
    """One entry an input: a string or a list of what should be ids."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, Mapping) and "input_ids" in inputs:
        raise InputError("inputs is a tokenizer's output; give its 'input_ids', its 'attention_mask' beside them")
    if hasattr(inputs, "ndim"):  # tensors, arrays and series
        inputs = _entries(inputs)
    if isinstance(inputs, Mapping | bytes) or not isinstance(inputs, Iterable) or not (inputs := list(inputs)):
        raise InputError(f"inputs must be strings or token ids [n, pos], at least one; got {inputs!r}")
    if all(isinstance(numbers.read(row), int) for row in inputs):
        inputs = [inputs]
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in inputs]
    return [[plain_id(entry) for entry in row] if isinstance(row, list | tuple) else row for row in rows]


def _entries(inputs: Any) -> list[Any]:
    """The rows of a tensor, array or series: ids, or strings in one dimension."""
    if isinstance(inputs, Tensor):
        inputs = (inputs.detach().float() if inputs.is_floating_point() else inputs).cpu().numpy()
    array = np.asarray(inputs)
    ids = array.ndim in (1, 2) and array.dtype.kind in "iu"
    strings = array.ndim == 1 and array.dtype.kind in "OUT"
    if not ids and not strings:
        raise InputError(f"inputs as a tensor must be whole numbers [n, pos]; got {array.dtype} {list(array.shape)}")
    return list(array.tolist())


def plain_id(entry: Any) -> Any:
    """The id that a number of numpy or torch is; whatever else it is, to be refused by `is_id`."""
    found = numbers.read(entry)
    return found if isinstance(found, int) else entry


def _without_padding(rows: list[Any], attention_mask: Any) -> list[Any]:
    """The real tokens of padded ids."""
    masks = attention_mask.tolist() if hasattr(attention_mask, "tolist") else attention_mask
    if len(rows) == 1 and isinstance(masks, Sequence) and masks and all(isinstance(one, int | float) for one in masks):
        masks = [masks]
    shape = [len(row) if isinstance(row, list) else None for row in rows]
    given = [len(m) if isinstance(m, list | tuple) else None for m in masks] if isinstance(masks, Sequence) else None
    if shape != given:
        raise InputError(f"attention_mask must have the shape of inputs, rows of {shape} tokens; got {given or masks}")
    real = []
    for index, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        kept = [place for place, one in enumerate(mask) if one]
        if kept and kept[-1] - kept[0] + 1 != len(kept):
            raise InputError(f"attention_mask of input {index} has a hole; padding stands at either end; got {mask}")
        real.append([row[place] for place in kept])
    return real


def is_id(token: Any, vocabulary: int) -> bool:
    """Whether `token` is a whole number below `vocabulary`."""
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary
