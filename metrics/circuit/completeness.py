"""Completeness: whether knocking out parts of a circuit hurts it as much as it hurts the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.interval import Estimate, Interval
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.elements import Mask
from metrics.circuit.evaluate import JudgeKeywords, SpanKeywords, model_gap, stacked
from metrics.circuit.parts import Part, Parts, parts_of
from metrics.circuit.samples import knock_out_sets
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class Completeness(Result):
    """How far a circuit and the model come apart when the same parts are knocked out of both.

    Attributes:
        sets: names of the nodes (edges) that each knock-out set holds.
        level: what they are: `node` or `edge`; of a circuit of nodes its level.
        gaps: |F(C without K) - F(M without K)| on the scale of faithfulness, one for each set, with intervals over
            prompts; F is the mean objective, and 1 on that scale is the distance of the model from the empty circuit.
        incompleteness: the mean of the gaps; `worst` the largest. 0 is complete.
        random: mean gap of random circuits of as many edges (nodes), knocked out in the same way; None if not asked
            for.
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
        return theme.styled(figure, titled(self.setting, "completeness"), f"incompleteness {self.incompleteness}")


class CompletenessKeywords(SpanKeywords, JudgeKeywords, total=False):
    """The keywords of `completeness`."""


@numbers.checked(sets=numbers.COUNT, largest=numbers.SHARE, n_random=numbers.FROM_ZERO)
@door
def completeness(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    level: str | None = None,
    sets: int = 20,
    largest: float = 0.5,
    n_random: int = 1,
    **keywords: Unpack[CompletenessKeywords],
) -> Completeness:
    """Completeness of a circuit (Wang et al. 2023, arXiv:2211.00593): |F(C without K) - F(M without K)|.

    F is the mean objective, and K are random parts of the circuit C, knocked out of the circuit and of the whole model
    M (where positions are told apart, of all nodes at these). A circuit may be faithful and yet lack what the model
    falls back on when a part of the circuit is gone: then the model without K does better than the circuit without K.
    Costs 2 circuits a set, times 1 + `n_random`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: a `Circuit` or a bool mask `[source, target]`; or nodes, as in `evaluate`.
        level: of a circuit of edges `node` (None): K are heads and MLPs of the circuit, all their outgoing edges are
            knocked out; or `edge`: edges. Of a circuit of nodes K are some of these; a bare tensor needs its level.
        sets: number of knock-out sets.
        largest: share of the circuit's nodes (edges) that the largest set may hold; sizes are uniform from 1 to that.
        n_random: so many random circuits, as a baseline: of as many edges (paths from input to logits), or of as many
            nodes of the same layers, near in norm (`metrics.circuit.controls`).
        spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws sets and random circuits.

    Returns:
        `Completeness`: `incompleteness`, `worst`, `random`, `to_frame()`, `figure()`.

    Raises:
        InputError: an empty circuit, unknown names, numbers out of range, a level beside nodes of another.
    """
    check_keywords("completeness", keywords, CompletenessKeywords)
    parts, mask = parts_of(model, task, circuit, level, "node", keywords)
    elements, interval = parts.elements, Interval.of(keywords)
    circuits = [mask, *elements.random(mask, n_random, interval.seed)]
    drawn = [_drawn(parts, one, sets, largest, interval.seed) for one in circuits]
    pairs = [(whole, outs) for one, outs in zip(circuits, drawn, strict=True) for whole in (one, elements.full)]
    values = elements.measure([parts.without(whole, out) for whole, outs in pairs for out in outs])

    def statistic(means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gaps of the sets, their mean and largest, and the mean gap of the random circuits."""
        both = means[:, 2:].reshape(len(means), len(circuits), 2, sets)
        gaps = np.abs(both[:, :, 0] - both[:, :, 1]) / np.abs(model_gap(means))[:, None, None]
        own = gaps[:, 0]
        others = gaps[:, 1:].mean((1, 2)) if n_random else np.full(len(means), np.nan)
        return np.column_stack((own, own.mean(1), own.max(1), others))

    *gaps, mean, worst, baseline = bootstrapped(stacked(values), statistic, interval)
    return Completeness(
        sets=tuple(tuple(parts.names(out)) for out in drawn[0]),
        level=parts.level,
        gaps=tuple(gaps),
        incompleteness=mean,
        worst=worst,
        values=values.only(slice(2 * sets)),
        random=baseline if n_random else None,
        setting=elements.setting.conditions,
    )


def _drawn(parts: Parts, circuit: Mask, sets: int, largest: float, seed: int) -> list[list[Part]]:
    # a small random circuit may be but the edge from input to logits
    inside = parts.inside(circuit)
    return knock_out_sets(inside, sets, largest, seed) if inside else [[]] * sets
