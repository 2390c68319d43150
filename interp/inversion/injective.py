"""`injectivity`: how far apart a layer keeps the states of different prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers, theme
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.inputs import Inputs, encode_inputs
from interp.inspection import anatomy_of
from interp.inversion.reading import run_prompt, settled_tolerance
from interp.kernels.forward import Recorder, Residual
from interp.result import Result
from interp.run import Run, RunKeywords
from interp.running import door

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Injectivity(Result):
    """Distances between states of different prompts; made by `interp.inversion.injectivity`.

    Attributes:
        nearest: float [layer, prompt]: of each prompt's last state the distance to the nearest of another prompt, over
            the mean norm of the two.
        neighbour: int [layer, prompt]: which prompt that is.
        layers: the blocks in front of these states.
        tolerance: states nearer than this would be called the same (`invert`).
        model, seconds: what was asked.
    """

    nearest: Float[Tensor, "layer prompt"]
    neighbour: Int[Tensor, "layer prompt"]
    layers: tuple[int, ...]
    tolerance: float
    model: str
    seconds: float

    def to_frame(self) -> pd.DataFrame:
        """One row a layer. Columns: layer, prompts, smallest, median, largest, collisions, prompt, neighbour."""
        rows = []
        for layer, near, other in zip(self.layers, self.nearest, self.neighbour, strict=True):
            least = int(near.argmin())
            rows.append(
                {
                    "layer": layer,
                    "prompts": len(near),
                    "smallest": float(near.min()),
                    "median": float(near.median()),
                    "largest": float(near.max()),
                    "collisions": int((near <= self.tolerance).sum()),
                    "prompt": least,
                    "neighbour": int(other[least]),
                }
            )
        return pd.DataFrame(rows)

    def figure(self) -> Figure:
        """Histograms of the distances to the nearest other prompt, a layer each."""
        import plotly.graph_objects as go

        picture = go.Figure()
        for layer, near in zip(self.layers, self.nearest, strict=True):
            logs = near.double().clamp(min=1e-18).log10()
            picture.add_histogram(x=logs.tolist(), name=f"layer {layer}", nbinsx=40, opacity=0.6)
        picture.update_layout(barmode="overlay")
        picture.update_xaxes(title="log10 of the distance to the nearest other prompt, over the states' norm")
        picture.update_yaxes(title="prompts")
        return theme.styled(picture, theme.named(self.model, "nearest states of different prompts"))

    def headline(self) -> str:
        frame = self.to_frame()
        least = frame.iloc[int(frame["smallest"].argmin())]
        return (
            f"{int(frame['collisions'].sum())} collisions among {self.nearest.shape[1]} prompts in {len(frame)} layers "
            f"of {self.model}; the nearest two are {least['smallest']:.1e} apart, behind layer {int(least['layer'])}"
        )


@numbers.checked(tolerance=numbers.POSITIVE)
@door
def injectivity(
    model: Any,
    prompts: Any,
    layers: Sequence[int] | None = None,
    *,
    tolerance: float | None = None,
    **keywords: Unpack[RunKeywords],
) -> Injectivity:
    """How near the last states of different prompts come to each other (arXiv:2510.15511, section 4.1).

    Args:
        model: what `interp.load_model` returns.
        prompts: at least two, all different: strings, or token ids [n, pos].
        layers: of whose states, 0 to the number of blocks; None: all.
        tolerance: nearer states count as collisions; None: as in `invert`.
        keywords: `quiet`.

    Returns:
        `Injectivity`: `.to_frame()` (smallest and median distance, collisions), `.nearest`, `.figure()`.

    Cost: a forward pass a prompt, and all distances between prompts.

    Raises:
        InputError: fewer than two prompts, two that are the same, or a layer that the model lacks.
    """
    started, run, anatomy = time.perf_counter(), Run.of(keywords), anatomy_of(model)
    every = range(anatomy.n_layers + 1) if layers is None else layers
    chosen = numbers.many("layers", every, limits=numbers.Limits(0, anatomy.n_layers))
    if not chosen:
        raise InputError("layers must name at least one layer")
    inputs = encode_inputs(model, prompts)
    _refuse_same(inputs)
    with run.progress("injectivity", len(inputs)) as bar:
        last = []
        for row, length in zip(inputs.ids, inputs.lengths.tolist(), strict=True):
            last.append(_last(anatomy, row[:length], chosen))
            bar.advance()
    states = torch.stack(last, 1).double()  # [layer, prompt, d_model]
    sizes = states.norm(dim=2)
    apart = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")
    apart = apart / (sizes[:, :, None] + sizes[:, None]).div(2).clamp(min=1e-300)
    apart.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    nearest = apart.min(dim=2)
    return Injectivity(
        nearest=nearest.values.cpu(),
        neighbour=nearest.indices.cpu(),
        layers=tuple(chosen),
        tolerance=settled_tolerance(anatomy, tolerance),
        model=anatomy.name,
        seconds=time.perf_counter() - started,
    )


class _LastStates(Recorder):
    """Keeps the state of the last token behind every block."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def block_output(self, layer: int, x: Residual) -> Residual:
        self.states.append(x[0, -1])
        return x


@torch.no_grad()
def _last(anatomy: Anatomy, ids: Int[Tensor, " pos"], layers: Sequence[int]) -> Float[Tensor, "layer d_model"]:
    """The states of one prompt's last token."""
    behind = _LastStates()
    run_prompt(anatomy, ids, max(layers), behind)
    entered = run_prompt(anatomy, ids, 0)
    return torch.stack([entered[0, -1], *behind.states])[list(layers)]


def _refuse_same(inputs: Inputs) -> None:
    if len(inputs) < 2:
        raise InputError(f"prompts must be at least two, to be told apart; got {len(inputs)}")
    seen: dict[tuple[int, ...], int] = {}
    for index, (row, length) in enumerate(zip(inputs.ids.tolist(), inputs.lengths.tolist(), strict=True)):
        before = seen.setdefault(tuple(row[:length]), index)
        if before != index:
            raise InputError(f"prompts {before} and {index} are the same tokens; leave one of them out")
