"""Minimality: what every edge or node of a circuit is worth inside it."""

from __future__ import annotations

import random as python_random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.interval import Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.evaluate import JudgeKeywords, judging, resolution_of
from metrics.circuit.samples import edges_of, knock_out_sets, nodes_of, without_edges, without_nodes
from metrics.statistics import bootstrapped
from metrics.testing import Testing, TestingKeywords, adjust, paired_test

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mask = Bool[Tensor, "source target"]


@dataclass(frozen=True, repr=False)
class Minimality(Result):
    """What removing each edge (node) of a circuit changes.

    Attributes:
        frame: one row an element, from the most to the least needed by |largest|: its name; `largest` and `mean` change
            of the mean objective over knock-out sets (positive: removing it hurts), `low` and `high` the interval of
            `largest` over prompts; `share`: largest as a share of the model's distance from the empty circuit; `p`:
            that removing it changes nothing under any of the sets; `p_corrected` for all elements.
        level: `edge` or `node`.
        tested, total: how many elements were looked at, and how many the circuit has.
        alpha: the level of `needed`.
        setting: ablation, objective and prompts that it was judged under.
    """

    frame: pd.DataFrame
    level: str
    tested: int
    total: int
    alpha: float
    setting: Conditions | None = None

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    @property
    def unproven(self) -> tuple[str, ...]:
        """Elements whose removal is not shown to change anything: they may be superfluous."""
        return tuple(self.frame.loc[~(self.frame["p_corrected"] <= self.alpha), self.level])

    @property
    def _summary(self) -> str:
        of = f"{self.tested:,} of the circuit's {self.total:,} {self.level}s"
        under = "" if self.setting is None else f"; {self.setting}"
        return f"{of}; for {len(self.unproven):,} no change is shown (corrected p > {self.alpha:g}){under}"

    def headline(self) -> str:
        return self._summary

    def figure(self) -> Figure:
        """Largest change by element with intervals; grey where none is shown."""
        import plotly.graph_objects as go

        frame, shown = self.frame, self.frame["p_corrected"] <= self.alpha
        figure = go.Figure(
            go.Bar(
                x=frame[self.level],
                y=frame["largest"],
                marker={"color": np.where(shown, theme.OWN, theme.CONTROL).tolist()},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": frame["high"] - frame["largest"],
                    "arrayminus": frame["largest"] - frame["low"],
                },
                customdata=frame[["mean", "p_corrected"]],
                hovertemplate="%{x}: %{y:.3g} (mean %{customdata[0]:.3g}, p %{customdata[1]:.3g})<extra></extra>",
            )
        )
        figure.update_yaxes(title="fall of the objective when removed")
        return theme.styled(figure, f"Minimality: {self._summary}")


class MinimalityKeywords(JudgeKeywords, TestingKeywords, total=False):
    """The keywords of `minimality`."""


@numbers.checked(sets=numbers.COUNT, largest=numbers.SHARE, sample=numbers.COUNT)
@door
def minimality(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    level: str = "edge",
    sets: int = 3,
    largest: float = 0.5,
    sample: int | None = 50,
    **keywords: Unpack[MinimalityKeywords],
) -> Minimality:
    """What each edge (node) v does inside a circuit C (Wang et al. 2023): F(C without K) - F(C without K and v).

    F is the mean objective. K is empty at first and then random parts of the circuit: an element may matter only where
    another one, which does the same, is gone. An element is needed if its removal changes the objective for some K; the
    p-value is the smallest of its paired sign-flip tests over prompts, times the number of sets, then corrected for the
    number of elements. Costs `sets` circuits, and as many for each element.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: bool `[source, target]`, or anything with such a `.mask` (a `Circuit`).
        level: `edge`, or `node`: all edges out of a head or MLP.
        sets: how many knock-out sets, the empty one among them.
        largest: share of the circuit that the largest set may hold.
        sample: so many random elements; None: all of them.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        correction: `holm`, `bh` or `none` (see `metrics.testing.adjust`); `alpha` is the level of the verdicts.
        confidence: of the intervals over prompts.
        seed: of sets, sample, bootstrap and tests.

    Returns:
        `Minimality`: `frame` sorted by the size of the largest change, `unproven`, `figure()`.

    Raises:
        InputError: an empty circuit, unknown names, numbers out of range.
    """
    choose("level", level, ("edge", "node"))
    check_keywords("minimality", keywords, MinimalityKeywords)
    setting, mask = judging(model, task, circuit, keywords)
    graph, interval, testing = setting.graph, Interval.of(keywords), Testing.of(keywords)
    everything: Sequence[Any] = edges_of(mask) if level == "edge" else nodes_of(mask)
    if not everything:
        raise InputError(f"circuit holds no {level} that could be removed; minimality needs some")
    taken = everything
    if sample is not None and sample < len(everything):
        taken = sorted(python_random.Random(interval.seed).sample(list(everything), sample))
    outs = [set(), *map(set, knock_out_sets(everything, sets - 1, largest, interval.seed))]
    # with v in K the circuit to compare with is C without the rest of K: either way one new circuit an element and set
    masks = [_without(mask, out, level) for out in outs]
    masks += [_without(mask, out ^ {element}, level) for element in taken for out in outs]
    values = setting.measure(torch.stack(masks))
    inside = [[1.0 if element not in out else -1.0 for out in outs] for element in taken]
    frame = _judged(values, np.array(inside), sets, testing, interval)
    frame.insert(0, level, [_name(graph, element) for element in taken])
    frame = frame.sort_values("largest", key=lambda column: -column.abs(), ignore_index=True, kind="stable")
    return Minimality(frame, level, len(taken), len(everything), testing.alpha, setting.conditions)


def _judged(values: CircuitValues, signs: np.ndarray, sets: int, testing: Testing, interval: Interval) -> pd.DataFrame:
    """Changes, intervals and p-values; `signs` [element, set] say which of two circuits still has the element."""
    objectives = values.circuits.double().numpy()
    base, removed = objectives[:sets], objectives[sets:].reshape(len(signs), sets, -1)
    falls = signs[:, :, None] * (base[None] - removed)
    falls = np.where(np.abs(falls) > resolution_of(values), falls, 0.0)
    means = falls.mean(2)
    best = np.abs(means).argmax(1)
    chosen = falls[np.arange(len(falls)), best]
    intervals = bootstrapped(chosen, lambda drawn: drawn, interval)
    p = [
        min(
            1.0,
            sets
            * min(
                paired_test(fall, np.zeros_like(fall), seed=interval.seed, resamples=testing.permutations)
                for fall in one
            ),
        )
        for one in falls
    ]
    gap = float(values.clean.double().mean() - values.empty.double().mean())
    return pd.DataFrame(
        {
            "largest": means[np.arange(len(means)), best],
            "low": [one.low for one in intervals],
            "high": [one.high for one in intervals],
            "mean": means.mean(1),
            "share": means[np.arange(len(means)), best] / gap if gap else float("nan"),
            "p": p,
            "p_corrected": adjust(p, testing.correction),
        }
    )


def _without(mask: Mask, out: set[Any], level: str) -> Mask:
    return without_nodes(mask, sorted(out)) if level == "node" else without_edges(mask, sorted(out))


def _name(graph: ComputationalGraph, element: int | tuple[int, int]) -> str:
    return graph.sources[element] if isinstance(element, int) else graph.edge_name(*element)
