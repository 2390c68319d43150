"""Faithfulness against size: the MIB ladder, the areas CPR and CMD, and random circuits of equal size."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective
from interp.running import door
from interp.selection import LADDER_FRACTIONS, ladder, select
from interp.setting import Setting, judged_under
from interp.tasks.task import Task
from metrics.circuit.balance import balanced
from metrics.circuit.evaluate import faithfulness_of_means, graph_of_mask, measure
from metrics.circuit.samples import random_circuit
from metrics.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def cpr(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit performance ratio: the trapezoid area under f over p (MIB 2025). No upper bound.

    `fractions` [k] ascending, `faithfulness` [..., k].

    >>> float(cpr([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return np.asarray(np.trapezoid(np.asarray(faithfulness), np.asarray(fractions), axis=-1))


def cmd(fractions: ArrayLike, faithfulness: ArrayLike) -> NDArray[np.float64]:
    """Integrated circuit-model distance: the trapezoid area under |1 - f| over p (MIB 2025). 0 is perfect.

    >>> float(cmd([0.0, 1.0], [0.0, 1.0]))
    0.5
    """
    return cpr(fractions, np.abs(1 - np.asarray(faithfulness)))


def areas(faithfulness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Faithfulness on the ladder `[..., size]` -> CPR, CMD and their means over log p `[..., 4]`."""
    p = np.array(LADDER_FRACTIONS)
    width = np.log(p[-1]) - np.log(p[0])
    f, log_p = faithfulness, np.log(p)
    return np.stack([cpr(p, f), cmd(p, f), cpr(log_p, f) / width, cmd(log_p, f) / width], -1)


@dataclass(frozen=True, repr=False)
class Curve:
    """Faithfulness on a ladder of circuit sizes.

    Attributes:
        fractions: nominal sizes p as shares of the graph's edges; `sizes` are int(p n) edges, before pruning.
        edges: what pruning left of each size.
        points: faithfulness at each size with its bootstrap interval over prompts.
        cpr_estimate, cmd_estimate: areas over p with intervals; `log_cpr`, `log_cmd` the means over log p, which
            the two largest sizes do not rule.
        random: the same curve for random circuits of as many edges, if it was asked for.
        values: objectives per prompt of the clean model, the empty circuit and each circuit.
        setting: ablation, objective and prompts that it was judged under.
    """

    fractions: tuple[float, ...]
    sizes: tuple[int, ...]
    edges: tuple[int, ...]
    points: tuple[Estimate, ...]
    cpr_estimate: Estimate
    cmd_estimate: Estimate
    log_cpr: Estimate
    log_cmd: Estimate
    values: CircuitValues
    random: tuple[Estimate, ...] | None = None
    setting: Setting | None = None

    @property
    def faithfulness(self) -> tuple[float, ...]:
        """Faithfulness at each size."""
        return tuple(point.value for point in self.points)

    @property
    def cpr(self) -> float:
        """Area under f over p. Never report it alone: a circuit that beats the model raises it beyond 1."""
        return self.cpr_estimate.value

    @property
    def cmd(self) -> float:
        """Area under |1 - f| over p; lower is better."""
        return self.cmd_estimate.value

    def to_frame(self) -> pd.DataFrame:
        """One row per size: fraction, size, edges, faithfulness, low, high, and random circuits' if known."""
        columns: dict[str, Any] = {
            "fraction": self.fractions,
            "size": self.sizes,
            "edges": self.edges,
            "faithfulness": self.faithfulness,
            "low": [p.low for p in self.points],
            "high": [p.high for p in self.points],
        }
        if self.random is not None:
            columns |= {
                "random": [p.value for p in self.random],
                "random low": [p.low for p in self.random],
                "random high": [p.high for p in self.random],
            }
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        table = self.to_frame().to_string(index=False, float_format=lambda v: f"{v:.3f}")
        under = "" if self.setting is None else f"; {self.setting}"
        return f"Curve: CPR {self.cpr_estimate}, CMD {self.cmd_estimate}{under}\n{table}"

    def _repr_html_(self) -> str:
        head = html.escape(f"CPR {self.cpr_estimate}, CMD {self.cmd_estimate}")
        return f"<p>{head}</p>{self.to_frame().to_html(index=False, float_format='{:.3f}'.format)}"

    def figure(self) -> Figure:
        """Faithfulness over log p with intervals, beside random circuits and the clean model's 1."""
        import plotly.graph_objects as go

        figure = go.Figure()
        lines = [("circuit", self.points, "#0072B2")]
        if self.random is not None:
            lines.append(("random circuits of equal size", self.random, "#999999"))
        for name, points, colour in lines:
            figure.add_scatter(
                x=self.fractions,
                y=[p.value for p in points],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [p.high - p.value for p in points],
                    "arrayminus": [p.value - p.low for p in points],
                },
                name=name,
                mode="lines+markers",
                line={"color": colour},
                customdata=list(self.edges),
                hovertemplate="%{y:.3f} with %{customdata} edges<extra>" + name + "</extra>",
            )
        figure.add_hline(y=1, line={"dash": "dot", "color": "#666666"})
        figure.update_xaxes(type="log", title="share of edges")
        figure.update_yaxes(title="faithfulness")
        figure.update_layout(template="plotly_white", title=f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}")
        return figure


@numbers.checked()
@door
def faithfulness_curve(
    model: Any,
    task: Task,
    scores: Any,
    *,
    ablation: str | None = None,
    objective: str | Objective | None = None,
    selection: str = "top-n",
    absolute: bool = True,
    choosing: Task | None = None,
    random: int = 0,
    reference: str = "paths",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> Curve:
    """Faithfulness of the circuits that scores choose, over the size ladder of the MIB benchmark.

    Sizes are int(p n) of the graph's n edges, p = .001 .002 .005 .01 .02 .05 .1 .2 .5 1, chosen by score and
    then pruned. With the defaults CPR and CMD are what MIB computes; MIB chooses by signed score
    (`absolute=False`) for CPR and by absolute score for CMD: `mib` gives both for each.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        scores: a float `[source, target]` tensor, or anything with such `.values`.
        ablation, objective: as in `evaluate`; None: those that the scores were found under.
        selection: `top-n`, `greedy`, `connected` or `program` (`interp.selection`), or `balanced`
            (`metrics.circuit.balance`).
        absolute: choose by |score| rather than by signed score; `balanced` weighs the signs itself.
        choosing: the prompts that `balanced` chooses on: others than `task`.
        random: so many random circuits per size, of as many edges, as a baseline.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        confidence, resamples, seed: of the bootstrap intervals over prompts, and of the random circuits.
        batch_size, memory, quiet: as in `evaluate`.

    Returns:
        `Curve`, with sizes, faithfulness, cpr, cmd, `to_frame()` and `figure()`.

    Raises:
        InputError: scores of another shape or not finite, unknown names, a negative `random`.
    """
    # a tensor has a method of that name
    values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
    if not isinstance(values, Tensor):
        raise InputError(f"scores must be a tensor [source, target] or have such .values; got {type(scores).__name__}")
    graph = graph_of_mask(anatomy_of(model), values)
    judged = judged_under(scores, task, ablation, objective)
    if (selection == "balanced") != (choosing is not None):
        raise InputError(
            f"selection={selection!r} and choosing={'None' if choosing is None else choosing.name!r} do not fit: "
            "'balanced' chooses on prompts of its own, choosing=task; other selections look at scores alone"
        )
    if choosing is None:
        chosen = ladder_masks(values, graph, selection, absolute)
    else:
        found = balanced(
            model, choosing, values, graph, ladder(graph), ablation=judged.ablation, objective=judged.objective,
            batch_size=batch_size, memory=memory, quiet=quiet,
        )  # fmt: skip
        chosen = [one.mask for one in found]
    edges = [int(mask.sum()) for mask in chosen]
    others = [random_circuit(graph, n, seed + i, reference) for n in edges for i in range(random)]
    measured = measure(
        model,
        task,
        torch.stack([*chosen, *others]),
        judged.ablation,
        objective=judged.objective,
        batch_size=batch_size,
        memory=memory,
        quiet=quiet,
    )
    settings = {"confidence": confidence, "resamples": resamples, "seed": seed}
    own = CircuitValues(measured.clean, measured.empty, measured.circuits[: len(chosen)])
    summary = _areas(own, settings)
    baseline = None
    if random:
        # a random circuit of each size per prompt on average: mean over the circuits of a size
        means = measured.circuits[len(chosen) :].unflatten(0, (len(chosen), random)).mean(1)
        baseline = tuple(_estimates(CircuitValues(measured.clean, measured.empty, means), settings))
    area, distance, log_area, log_distance = summary[len(chosen) :]
    return Curve(
        fractions=LADDER_FRACTIONS,
        sizes=ladder(graph),
        edges=tuple(edges),
        points=tuple(summary[: len(chosen)]),
        cpr_estimate=area,
        cmd_estimate=distance,
        log_cpr=log_area,
        log_cmd=log_distance,
        values=own,
        random=baseline,
        setting=judged.on(task, graph.kv),
    )


def ladder_masks(
    scores: Float[Tensor, "source target"], graph: ComputationalGraph, selection: str = "top-n", absolute: bool = True
) -> list[Bool[Tensor, "source target"]]:
    """The circuits that scores choose at each size of the ladder."""
    return [select(scores, graph, size, selection, absolute) for size in ladder(graph)]


@door
def mib(model: Any, task: Task, scores: Any, **settings: Any) -> pd.DataFrame:
    """CPR and CMD under both of MIB's selections: a row for signed and one for absolute scores.

    `settings` are those of `faithfulness_curve`. MIB's own CPR stands in the row `signed`, its CMD in the row
    `absolute`.
    """
    rows = []
    for name, absolute in (("signed", False), ("absolute", True)):
        curve = faithfulness_curve(model, task, scores, absolute=absolute, **settings)
        row: dict[str, Any] = {"selection": name}
        for area, estimate in (("cpr", curve.cpr_estimate), ("cmd", curve.cmd_estimate)):
            row |= {area: estimate.value, f"{area} low": estimate.low, f"{area} high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _stacked(values: CircuitValues) -> NDArray[np.float64]:
    return torch.cat((values.clean[None], values.empty[None], values.circuits)).double().numpy()


def _estimates(values: CircuitValues, settings: dict[str, Any]) -> list[Estimate]:
    return bootstrap(_stacked(values), faithfulness_of_means, **settings)


def _areas(values: CircuitValues, settings: dict[str, Any]) -> list[Estimate]:
    """Faithfulness at each size, then CPR, CMD and their means over log p, from the same resamples."""

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        f = faithfulness_of_means(means)
        return np.concatenate((f, areas(f)), 1)

    return bootstrap(_stacked(values), statistic, **settings)
