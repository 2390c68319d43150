"""Completeness: whether knocking out parts of a circuit hurts it as much as it hurts the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.evaluate import JudgeKeywords, judging, model_gap, stacked
from metrics.circuit.samples import edges_of, knock_out_sets, nodes_of, random_circuit, without_edges, without_nodes
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mask = Bool[Tensor, "source target"]


@dataclass(frozen=True, repr=False)
class Completeness(Result):
    """How far a circuit and the model come apart when the same parts are knocked out of both.

    Attributes:
        sets: names of the nodes (edges) that each knock-out set holds.
        level: `node` or `edge`.
        gaps: |F(C without K) - F(M without K)| on the scale of faithfulness, one for each set, with intervals over
            prompts; F is the mean objective, and 1 on that scale is the distance of the model from the empty circuit.
        incompleteness: the mean of the gaps; `worst` the largest. 0 is complete.
        random: mean gap of random circuits of as many edges, knocked out in the same way; None if not asked for.
        values: objectives per prompt; circuits C without K_1, C without K_2, ..., then M without K_1, ...
        setting: ablation, objective and prompts that it was judged under.
    """

    matching: ClassVar = (("sets", "gaps"),)

    sets: tuple[tuple[str, ...], ...]
    level: str
    gaps: tuple[Estimate, ...]
    incompleteness: Estimate
    worst: Estimate
    values: CircuitValues
    random: Estimate | None = None
    setting: Conditions | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per knock-out set, from the largest gap to the smallest.

        Columns: removed (how many), circuit and model (faithfulness without the set), gap, low, high, objective_gap,
        set.
        """
        clean, empty = float(self.values.clean.mean()), float(self.values.empty.mean())
        means = self.values.circuits.double().mean(1).reshape(2, -1)
        scaled = ((means - empty) / (clean - empty)).numpy()
        rows = pd.DataFrame(
            {
                "removed": [len(one) for one in self.sets],
                "circuit": scaled[0],
                "model": scaled[1],
                "gap": [one.value for one in self.gaps],
                "low": [one.low for one in self.gaps],
                "high": [one.high for one in self.gaps],
                "objective_gap": (means[0] - means[1]).abs().numpy(),
                "set": [", ".join(one) for one in self.sets],
            }
        )
        return rows.sort_values("gap", ascending=False, ignore_index=True)

    @property
    def _summary(self) -> str:
        against = "" if self.random is None else f"; random circuits {self.random}"
        under = "" if self.setting is None else f"; {self.setting}"
        return f"mean gap {self.incompleteness}, largest {self.worst}{against}{under}"

    def headline(self) -> str:
        return f"{len(self.sets)} knock-out sets of {self.level}s: {self._summary}"

    def figure(self) -> Figure:
        """Model against circuit, one point a knock-out set; a complete circuit's points lie on the diagonal."""
        import plotly.graph_objects as go

        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=frame["model"],
            y=frame["circuit"],
            mode="markers",
            marker={"color": theme.OWN},
            customdata=frame[["removed", "gap"]],
            hovertemplate=(
                f"%{{customdata[0]}} {self.level}s out: model %{{x:.3f}}, circuit %{{y:.3f}}, "
                "gap %{customdata[1]:.3f}<extra></extra>"
            ),
            showlegend=False,
        )
        ends = [min(frame["model"].min(), frame["circuit"].min()), max(frame["model"].max(), frame["circuit"].max())]
        figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": theme.DARK}, showlegend=False)
        figure.update_xaxes(title="model without the set, as faithfulness")
        figure.update_yaxes(title="circuit without the set, as faithfulness")
        return theme.styled(figure, f"Incompleteness {self.incompleteness}")


@numbers.checked(sets=numbers.COUNT, largest=numbers.SHARE, n_random=numbers.FROM_ZERO)
@door
def completeness(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    level: str = "node",
    sets: int = 20,
    largest: float = 0.5,
    n_random: int = 1,
    **keywords: Unpack[JudgeKeywords],
) -> Completeness:
    """Completeness of a circuit (Wang et al. 2023, arXiv:2211.00593): |F(C without K) - F(M without K)|.

    F is the mean objective, and K are random parts of the circuit C, knocked out of the circuit and of the whole model
    M. A circuit may be faithful and yet lack what the model falls back on when a part of the circuit is gone: then the
    model without K does better than the circuit without K. Costs 2 circuits a set, times 1 + `n_random`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: bool `[source, target]`, or anything with such a `.mask` (a `Circuit`).
        level: `node`: K are heads and MLPs of the circuit, all their outgoing edges are knocked out; `edge`: edges.
        sets: number of knock-out sets.
        largest: share of the circuit's nodes (edges) that the largest set may hold; sizes are uniform from 1 to that.
        n_random: so many random circuits of as many edges (paths from input to logits), as a baseline.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws sets and random circuits.

    Returns:
        `Completeness`: `incompleteness`, `worst`, `random`, `to_frame()`, `figure()`.

    Raises:
        InputError: an empty circuit, unknown names, numbers out of range.
    """
    choose("level", level, ("node", "edge"))
    check_keywords("completeness", keywords, JudgeKeywords)
    setting, mask = judging(model, task, circuit, keywords)
    graph, interval = setting.graph, Interval.of(keywords)
    if not (nodes_of(mask) if level == "node" else mask.any()):
        raise InputError(f"circuit holds no {level} that could be knocked out; completeness needs some")
    circuits = [mask, *(random_circuit(graph, int(mask.sum()), interval.seed + i) for i in range(n_random))]
    drawn = [_drawn(graph, one, level, sets, largest, interval.seed) for one in circuits]
    parts = [(part, outs) for one, outs in zip(circuits, drawn, strict=True) for part in (one, graph.edge_mask)]
    values = setting.measure(torch.stack([_without(part, out, level) for part, outs in parts for out in outs]))

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gaps of the sets, their mean and largest, and the mean gap of the random circuits."""
        parts = means[:, 2:].reshape(len(means), len(circuits), 2, sets)
        gaps = np.abs(parts[:, :, 0] - parts[:, :, 1]) / np.abs(model_gap(means))[:, None, None]
        own = gaps[:, 0]
        others = gaps[:, 1:].mean((1, 2)) if n_random else np.full(len(means), np.nan)
        return np.column_stack((own, own.mean(1), own.max(1), others))

    *gaps, mean, worst, baseline = bootstrapped(stacked(values), statistic, interval)
    names = [tuple(_name(graph, one) for one in out) for out in drawn[0]]
    return Completeness(
        sets=tuple(names),
        level=level,
        gaps=tuple(gaps),
        incompleteness=mean,
        worst=worst,
        values=values.only(slice(2 * sets)),
        random=baseline if n_random else None,
        setting=setting.conditions,
    )


def _drawn(
    graph: ComputationalGraph, circuit: Mask, level: str, sets: int, largest: float, seed: int
) -> list[list[Any]]:
    items: Sequence[Any] = nodes_of(circuit) if level == "node" else edges_of(circuit)
    # a small random circuit may be but the edge from input to logits
    return knock_out_sets(items, sets, largest, seed) if items else [[]] * sets


def _without(mask: Mask, out: list[Any], level: str) -> Mask:
    return without_nodes(mask, out) if level == "node" else without_edges(mask, out)


def _name(graph: ComputationalGraph, item: int | tuple[int, int]) -> str:
    return graph.sources[item] if isinstance(item, int) else graph.edge_name(*item)
