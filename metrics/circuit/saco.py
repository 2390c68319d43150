"""SaCo of circuits: do groups of edges or nodes with higher scores matter more when they are ablated?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.interval import Estimate, Interval
from interp.keywords import check_keywords
from interp.node_mask import NODE_LEVELS
from interp.result import Result
from interp.running import door
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.elements import EdgeElements, NodeElements
from metrics.circuit.evaluate import JudgeKeywords, SpanKeywords, graph_of_mask, refuse_dictionaries, resolution_of
from metrics.circuit.node_scores import NodeScores
from metrics.circuit.parts import Parts
from metrics.explanation.saco import TIES, group_bounds, salience_coefficient
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class CircuitSaCo(Result):
    """Salience-guided faithfulness of scores over a graph.

    Attributes:
        values: coefficient of each prompt, [n].
        mean: their mean, with its bootstrap interval over prompts.
        pooled: the coefficient of the mean objective's falls, whose noise the prompts average out; with interval.
        salience: summed score of each group, [group], from the highest to the lowest.
        drops: fall of the objective when a group is ablated, [group, n].
        sizes: how many edges (nodes) each group holds.
        level: `edge`, `node`, `neuron`, `head` or `feature`.
        random: mean coefficient of the same scores dealt out at random over the edges (nodes), with an interval over
            the draws; None if it was not asked for. Few groups scatter widely: this is what to stand above.
        draws: mean coefficient over prompts of each of those draws.
        setting: ablation, objective and prompts that it was judged under.
    """

    matching: ClassVar = (("salience", "drops", "sizes"),)

    values: Array
    mean: Estimate
    pooled: Estimate
    salience: Array
    drops: Array
    sizes: tuple[int, ...]
    level: str
    random: Estimate | None = None
    draws: tuple[float, ...] = ()
    setting: Conditions | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per group: how many edges or nodes, salience, and the mean fall of the objective with interval."""
        falls = bootstrapped(self.drops, lambda means: means, Interval(confidence=self.mean.confidence))
        return pd.DataFrame(
            {
                "group": np.arange(1, len(self.sizes) + 1),
                f"{self.level}s": self.sizes,
                "salience": self.salience,
                "drop": [one.value for one in falls],
                "low": [one.low for one in falls],
                "high": [one.high for one in falls],
            }
        )

    @property
    def _summary(self) -> str:
        against = "" if self.random is None else f"; dealt out at random {self.random}"
        under = "" if self.setting is None else f"; {self.setting}"
        return f"mean over prompts {self.mean}, pooled {self.pooled}{against}{under}"

    def headline(self) -> str:
        return self._summary

    def figure(self) -> Figure:
        """Fall of the objective by group, from the highest scores to the lowest: faithful scores go downhill."""
        import plotly.graph_objects as go

        frame = self.to_frame()
        figure = go.Figure()
        figure.add_bar(
            x=frame["group"],
            y=frame["drop"],
            customdata=frame["salience"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": frame["high"] - frame["drop"],
                "arrayminus": frame["drop"] - frame["low"],
            },
            hovertemplate="group %{x}: %{y:.3f}, salience %{customdata:.3g}<extra></extra>",
        )
        figure.update_xaxes(title=f"groups of {self.level}s, highest scores first", dtick=1)
        figure.update_yaxes(title="fall of the objective when ablated")
        return theme.styled(figure, titled(self.setting, "SaCo of scores"), f"SaCo {self.mean}, pooled {self.pooled}")


class CircuitSaCoKeywords(SpanKeywords, JudgeKeywords, total=False):
    """The keywords of `circuit_saco`."""


@numbers.checked(groups=numbers.Limits(2), tolerance=numbers.FROM_ZERO, n_random=numbers.FROM_ZERO)
@door
def circuit_saco(
    model: Any,
    task: Task,
    scores: Any,
    groups: int = 10,
    level: str | None = None,
    *,
    absolute: bool = False,
    ties: str = "agree",
    tolerance: float | None = None,
    n_random: int = 0,
    **keywords: Unpack[CircuitSaCoKeywords],
) -> CircuitSaCo:
    """Salience-guided faithfulness coefficient (Wu et al., CVPR 2024) over groups of edges or nodes.

    Edges (nodes) are sorted by falling score and cut into K groups; s_i is the summed score of group i and d_i the
    fall of the objective when that group alone is ablated in the whole model.
    F = sum over i < j of sigma_ij (s_i - s_j) / sum over i < j of |s_i - s_j|, sigma = +1 if d_i >= d_j, else -1.
    Costs K circuits, and K more for each of `n_random`.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts to measure on; use others than the scores were made on.
        scores: a float tensor, [source, target] for edges, [source] for nodes, or anything with such `.values`; or
            scores of neurons, heads or features, as `faithfulness_curve` takes them.
        groups: K; where it does not divide the number of edges, the first groups are larger by one.
        level: `edge`, or `node`: all edges out of the group's heads and MLPs are ablated; `input` is none of them. Or
            `neuron`, `head`, `feature`. None: what scores say of themselves, or `edge`.
        spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation: as in `evaluate`.
        absolute: sort and sum |score|. By default scores are signed, as the fall of the objective is.
        ties: what two groups with equal falls count: `agree` as in the paper (sigma = 1), or `zero`.
        tolerance: falls that differ by no more are equal; None: a ten-thousandth of what separates model and empty
            circuit, for edges without an effect would be ordered by how a processor rounds.
        n_random: deal the same scores out at random so many times, as a baseline.
        objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the bootstrap intervals over prompts; `seed` also deals.

    Returns:
        `CircuitSaCo`: `values`, `mean`, `pooled`, `random`, `to_frame()`, `figure()`.

    Raises:
        InputError: scores of another shape, NaN or constant, more groups than edges (nodes), unknown names.
    """
    choose("ties", ties, TIES)
    check_keywords("circuit_saco", keywords, CircuitSaCoKeywords)
    parts, found = _scored_parts(model, task, scores, level, keywords)
    elements, interval = parts.elements, Interval.of(keywords)
    salience = found.abs() if absolute else found
    _check(salience, groups, parts.level)
    ranked, order = salience.sort(descending=True, stable=True)
    bounds = list(itertools.pairwise(group_bounds(np.array([len(order)]), groups)[0].tolist()))
    generator = torch.Generator().manual_seed(interval.seed)
    orders = [order, *(torch.randperm(len(order), generator=generator, device="cpu") for _ in range(n_random))]
    everything = parts.inside(elements.full)
    cut = [one[first:last].tolist() for one in orders for first, last in bounds]
    measured = elements.measure([parts.without(elements.full, [everything[i] for i in group]) for group in cut])
    falls = (measured.clean - measured.circuits).double().numpy().reshape(1 + n_random, groups, -1)
    sums = np.array([float(ranked[first:last].sum()) for first, last in bounds])
    equal = resolution_of(measured) if tolerance is None else tolerance

    def coefficients(drops: Array) -> Array:
        """[resample, group] -> [resample, 1]."""
        return np.array([[salience_coefficient(sums, one, ties, equal)[0]] for one in drops])

    per_prompt = coefficients(falls[0].T)[:, 0]
    draws = [float(coefficients(drops.T).mean()) for drops in falls[1:]]
    return CircuitSaCo(
        values=per_prompt,
        mean=bootstrapped(per_prompt, lambda means: means[:, None], interval)[0],
        pooled=bootstrapped(falls[0], coefficients, interval)[0],
        salience=sums,
        drops=falls[0],
        sizes=tuple(last - first for first, last in bounds),
        level=parts.level,
        random=bootstrapped(draws, lambda means: means[:, None], interval)[0] if draws else None,
        draws=tuple(draws),
        setting=elements.setting.conditions,
    )


def _scored_parts(
    model: Any, task: Task, scores: Any, level: str | None, keywords: Mapping[str, Any]
) -> tuple[Parts, Float[Tensor, " part"]]:
    """What is ablated in groups, in the setting that scores are judged in, and the score of each."""
    told = getattr(scores, "level", "edge") if level is None else level
    choose("level", told, ("edge", *NODE_LEVELS))
    spans = keywords.get("spans") if isinstance(scores, Tensor) else getattr(scores, "spans", None)
    if told not in ("edge", "node") or spans is not None:
        nodes = NodeScores.of(scores, {**keywords, "level": told})
        assert nodes is not None
        refuse_dictionaries(keywords, told)
        own = NodeElements(Setting.of(model, task, keywords, scores), told, nodes.spans)
        return Parts(own, told), nodes.among(own.setting).values.double().flatten()[own.places]
    refuse_dictionaries(keywords, told)
    values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
    if not isinstance(values, Tensor) or values.ndim != (2 if told == "edge" else 1):
        shape = "[source, target]" if told == "edge" else "[source]"
        given = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(scores).__name__
        raise InputError(f"scores must be a tensor {shape} for level={told!r}, or have such .values; got {given}")
    kv = _graph(model, values, told).kv
    elements = EdgeElements(Setting.of(model, task, {**keywords, "kv": kv}, scores))
    found = values.detach().cpu().double()
    return Parts(elements, told), found.flatten()[elements.places] if told == "edge" else found[1:]


def _graph(model: Any, scores: Float[Tensor, "..."], level: str) -> ComputationalGraph:
    if level == "edge":
        return graph_of_mask(anatomy_of(model), scores)
    graph = ComputationalGraph.of(model)
    if len(scores) != len(graph.sources):
        raise InputError(f"scores has {len(scores)} values; the graph has {len(graph.sources)} sources, one for each")
    return graph


def _check(salience: Float[Tensor, " element"], groups: int, level: str) -> None:
    if groups > len(salience):
        raise InputError(f"groups={groups} is more than the {len(salience):,} {level}s of the graph")
    bad = int((~torch.isfinite(salience)).sum())
    if bad:
        raise InputError(f"{bad:,} of {len(salience):,} scores are NaN or infinite and cannot be ranked")
    if salience.min() == salience.max():
        raise InputError("scores are constant: there is no order to judge")
