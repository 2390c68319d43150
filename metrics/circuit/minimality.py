"""Minimality: what every edge or node of a circuit is worth inside it."""

from __future__ import annotations

import random as python_random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.interval import Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.evaluate import JudgeKeywords, SpanKeywords, resolution_of
from metrics.circuit.parts import parts_of
from metrics.circuit.samples import knock_out_sets
from metrics.statistics import bootstrapped
from metrics.testing import Testing, TestingKeywords, adjust, paired_test

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class Minimality(Result):
    """What removing each edge (node) of a circuit changes.

    Attributes:
        frame: one row an element, from the most to the least needed by |largest|: its name (`edge` or `node`);
            `largest` and `mean` change of the mean objective over knock-out sets (positive: removing it hurts), `low`
            and `high` the interval of `largest` over prompts; `share`: largest as a share of the model's distance from
            the empty circuit; `p`: that removing it changes nothing under any of the sets; `p_corrected` for all
            elements.
        level: what they are: `edge` or `node`; of a circuit of nodes its level.
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
    def _names(self) -> pd.Series[str]:
        return self.frame["edge" if self.level == "edge" else "node"]

    @property
    def unproven(self) -> tuple[str, ...]:
        """Elements whose removal is not shown to change anything: they may be superfluous."""
        return tuple(self._names[~(self.frame["p_corrected"] <= self.alpha)])

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
                x=self._names,
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
        figure.update_xaxes(title=self.level)
        return theme.styled(figure, titled(self.setting, "minimality"), self._summary)


class MinimalityKeywords(SpanKeywords, JudgeKeywords, TestingKeywords, total=False):
    """The keywords of `minimality`."""


@numbers.checked(sets=numbers.COUNT, largest=numbers.SHARE, sample=numbers.COUNT)
@door
def minimality(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    level: str | None = None,
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
        circuit: a `Circuit` or a bool mask `[source, target]`; or nodes, as in `evaluate`.
        level: of a circuit of edges `edge` (None), or `node`: all edges out of a head or MLP. Of a circuit of nodes
            elements are these; a bare tensor needs its level.
        sets: how many knock-out sets, the empty one among them.
        largest: share of the circuit that the largest set may hold.
        sample: so many random elements; None: all of them.
        spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        correction: `holm`, `bh` or `none` (see `metrics.testing.adjust`); `alpha` is the level of the verdicts.
        confidence: of the intervals over prompts.
        seed: of sets, sample, bootstrap and tests.

    Returns:
        `Minimality`: `frame` sorted by the size of the largest change, `unproven`, `figure()`.

    Raises:
        InputError: an empty circuit, unknown names, numbers out of range, a level beside nodes of another.
    """
    check_keywords("minimality", keywords, MinimalityKeywords)
    parts, mask = parts_of(model, task, circuit, level, "edge", keywords)
    interval, testing = Interval.of(keywords), Testing.of(keywords)
    everything = parts.inside(mask)
    numbered = range(len(everything))
    taken = [*numbered]
    if sample is not None and sample < len(everything):
        taken = sorted(python_random.Random(interval.seed).sample(numbered, sample))
    outs = [set(), *map(set, knock_out_sets(numbered, sets - 1, largest, interval.seed))]
    # with v in K the circuit to compare with is C without the rest of K: either way one new circuit an element and set
    removed = [*outs, *(out ^ {element} for element in taken for out in outs)]
    values = parts.elements.measure([parts.without(mask, [everything[i] for i in sorted(out)]) for out in removed])
    inside = [[1.0 if element not in out else -1.0 for out in outs] for element in taken]
    frame = _judged(values, np.array(inside), sets, testing, interval)
    frame.insert(0, parts.noun, parts.names([everything[element] for element in taken]))
    frame = frame.sort_values("largest", key=lambda column: -column.abs(), ignore_index=True, kind="stable")
    return Minimality(frame, parts.level, len(taken), len(everything), testing.alpha, parts.elements.setting.conditions)


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
