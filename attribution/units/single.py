"""Single units that are named to be patched, and the tables of what patching them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import numbers
from interp.errors import InputError, short
from interp.kernels.batching import Batch

Place = tuple[int, int, int]  # layer or dictionary, position (-1: all together), unit


def read_places(name: str, given: Any, wanted: str, read: Callable[[Any], Place]) -> list[Place]:
    """Each of those listed; raises `InputError`, saying what is `wanted`, for what is no list."""
    listed = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise InputError(f"{name} must list {wanted}; got {short(given)}")
    return [read(one) for one in listed]


def parts_of(given: Any, length: int) -> Place | None:
    """`(where, unit)`, at all positions, or `(where, position, unit)`; None for what is neither."""
    parts = [numbers.read(part) for part in given] if isinstance(given, Sequence) else []
    if len(parts) == 2:
        parts = [parts[0], -1, parts[1]]
    whole = [part for part in parts if isinstance(part, int)]
    if len(whole) != 3 or len(parts) != 3:
        return None
    where, position, unit = whole
    lowest = -1 if len(given) == 2 else 0
    return (where, position, unit) if lowest <= position < length else None


def rows(
    batch: Batch,
    axes: Sequence[str],
    place: Place,
    activations: Float[Tensor, "batch pos"] | None,
    scores: Float[Tensor, " batch"],
    mask: Bool[Tensor, "n pos"],
) -> pd.DataFrame:
    """A unit's rows, one for each prompt: of one at all positions, and of an error, the activation is NaN."""
    where, position, unit = place
    indices, inside = torch.tensor(batch.indices, device="cpu"), position - batch.start
    values = torch.full((len(indices),), float("nan"), dtype=torch.float64, device="cpu")
    if activations is not None and 0 <= inside < batch.n_positions:
        values = activations[:, inside].to("cpu", torch.float64)
    kept = torch.ones(len(indices), dtype=torch.bool, device="cpu") if position < 0 else mask[indices, position]
    columns = dict(zip(axes, (indices[kept].numpy(), where, position, unit), strict=True))
    return pd.DataFrame(columns | {"activation": values[kept].numpy(), "score": scores[kept].numpy()})


def by_size(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows, by falling |score|."""
    found = pd.concat(frames, ignore_index=True)
    order = found["score"].abs().sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)
