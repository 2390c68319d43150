"""Completeness: whether knocking out parts of a circuit hurts it as much as it hurts the whole model."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective
from interp.running import door
from interp.setting import Setting, judged_under
from interp.tasks.task import Task
from metrics.circuit.evaluate import checked_circuit, measure, model_gap
from metrics.circuit.samples import edges_of, knock_out_sets, nodes_of, random_circuit, without_edges, without_nodes
from metrics.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mask = Bool[Tensor, "source target"]


@dataclass(frozen=True, repr=False)
class Completeness:
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

    sets: tuple[tuple[str, ...], ...]
    level: str
    gaps: tuple[Estimate, ...]
    incompleteness: Estimate
    worst: Estimate
    values: CircuitValues
    random: Estimate | None = None
    setting: Setting | None = None

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

    def __repr__(self) -> str:
        table = self.to_frame().drop(columns="set").to_string(index=False, float_format=lambda v: f"{v:.3f}")
        return f"Completeness ({len(self.sets)} knock-out sets of {self.level}s): {self._summary}\n{table}"

    def _repr_html_(self) -> str:
        head = html.escape(f"{len(self.sets)} knock-out sets of {self.level}s: {self._summary}")
        table = self.to_frame().drop(columns="set")
        return f"<p>{head}</p>{table.to_html(index=False, border=0, float_format='{:.3f}'.format)}"

    def figure(self) -> Figure:
        """Model against circuit, one point a knock-out set; a complete circuit's points lie on the diagonal."""
        import plotly.graph_objects as go

        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=frame["model"],
            y=frame["circuit"],
            mode="markers",
            marker={"color": "#0072B2"},
            customdata=frame[["removed", "gap"]],
            hovertemplate=(
                f"%{{customdata[0]}} {self.level}s out: model %{{x:.3f}}, circuit %{{y:.3f}}, "
                "gap %{customdata[1]:.3f}<extra></extra>"
            ),
            showlegend=False,
        )
        ends = [min(frame["model"].min(), frame["circuit"].min()), max(frame["model"].max(), frame["circuit"].max())]
        figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#666666"}, showlegend=False)
        figure.update_xaxes(title="model without the set, as faithfulness")
        figure.update_yaxes(title="circuit without the set, as faithfulness")
        figure.update_layout(template="plotly_white", title=f"Incompleteness {self.incompleteness}")
        return figure


@numbers.checked(sets=numbers.COUNT, largest=numbers.SHARE)
@door
def completeness(
    model: Any,
    task: Task,
    mask: Any,
    *,
    level: str = "node",
    sets: int = 20,
    largest: float = 0.5,
    random: int = 1,
    ablation: str | None = None,
    objective: str | Objective | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> Completeness:
    """Completeness of a circuit (Wang et al. 2023, arXiv:2211.00593): |F(C without K) - F(M without K)|.

    F is the mean objective, and K are random parts of the circuit C, knocked out of the circuit and of the whole model
    M. A circuit may be faithful and yet lack what the model falls back on when a part of the circuit is gone: then the
    model without K does better than the circuit without K. Costs 2 circuits a set, times 1 + `random`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        mask: bool `[source, target]`, or anything with such a `.mask` (a `Circuit`).
        level: `node`: K are heads and MLPs of the circuit, all their outgoing edges are knocked out; `edge`: edges.
        sets: number of knock-out sets.
        largest: share of the circuit's nodes (edges) that the largest set may hold; sizes are uniform from 1 to that.
        random: so many random circuits of as many edges (paths from input to logits), as a baseline.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws sets and random circuits.

    Returns:
        `Completeness`: `incompleteness`, `worst`, `random`, `to_frame()`, `figure()`.

    Raises:
        InputError: an empty circuit, unknown names, numbers out of range.
    """
    choose("level", level, ("node", "edge"))
    graph, circuit = checked_circuit(model, mask)
    judged = judged_under(mask, task, ablation, objective)
    if not (nodes_of(circuit) if level == "node" else circuit.any()):
        raise InputError(f"mask holds no {level} that could be knocked out; completeness needs a circuit with some")
    circuits = [circuit, *(random_circuit(graph, int(circuit.sum()), seed + i) for i in range(random))]
    drawn = [_drawn(graph, one, level, sets, largest, seed) for one in circuits]
    parts = [(part, outs) for one, outs in zip(circuits, drawn, strict=True) for part in (one, graph.edge_mask)]
    masks = torch.stack([_without(part, out, level) for part, outs in parts for out in outs])
    values = measure(
        model, task, masks, judged.ablation, objective=judged.objective,
        batch_size=batch_size, memory=memory, quiet=quiet,
    )  # fmt: skip
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    stacked = torch.cat((values.clean[None], values.empty[None], values.circuits)).double().numpy()

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gaps of the sets, their mean and largest, and the mean gap of the random circuits."""
        parts = means[:, 2:].reshape(len(means), len(circuits), 2, sets)
        gaps = np.abs(parts[:, :, 0] - parts[:, :, 1]) / np.abs(model_gap(means))[:, None, None]
        own = gaps[:, 0]
        others = gaps[:, 1:].mean((1, 2)) if random else np.full(len(means), np.nan)
        return np.column_stack((own, own.mean(1), own.max(1), others))

    *gaps, mean, worst, baseline = bootstrap(stacked, statistic, **settings)
    names = [tuple(_name(graph, one) for one in out) for out in drawn[0]]
    return Completeness(
        sets=tuple(names),
        level=level,
        gaps=tuple(gaps),
        incompleteness=mean,
        worst=worst,
        values=CircuitValues(values.clean, values.empty, values.circuits[: 2 * sets]),
        random=baseline if random else None,
        setting=judged.on(task, graph.kv),
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
