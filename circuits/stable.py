"""How much of a circuit is the same on other prompts: selection over bootstrap resamples of the prompts."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr
from torch import Tensor

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, method_keywords
from attribution.scores import Scores
from circuits.levels import Asked, NodeKeywords
from circuits.resampling import CHUNKS, resampled_scores, steady
from interp import numbers, theme
from interp.element_names import element_names
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.keywords import chosen
from interp.node_mask import NodeMask
from interp.result import Result
from interp.run import RunKeywords
from interp.running import door
from interp.selection import Selection
from interp.selection.empty import PATHS, warn_if_empty
from interp.selection.named import Mask
from interp.setting import MaskObject, Setting, SettingKeywords
from interp.span_mask import SpanMask
from interp.tasks.task import Task
from metrics.circuit.curve import AbsoluteKeyword
from metrics.circuit.elements import EdgeElements

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger(__name__)
SHARE = 0.05  # of all edges or nodes that circuits hold where nothing else is asked for


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """How a circuit of `edges` edges (of nodes: of so many nodes) fares when its prompts are resampled.

    Attributes:
        mask: the circuit of all prompts, of nodes as a `NodeMask`.
        scores: on all prompts.
        frequency: share of the resamples that select each edge, `[source, target]`; of nodes `[*axes]`, like scores.
        jaccard: overlap of a resample's circuit with that of all prompts; the median over resamples, and what a share
            `confidence` of them lie between. `pairs`: of two resamples. `halves`: of two disjoint halves of the
            prompts, over seeds (NaN under `mean` ablations).
        rank_correlation: Spearman correlation of the scores of all edges (nodes), resample against all prompts; NaN
            where scores are constant, which have no order.
        chance: Jaccard overlap of two random circuits of that size.
        resamples, edges: how many, and how large.
    """

    mask: Mask | MaskObject
    scores: Scores
    frequency: Float[Tensor, "*axes"]
    jaccard: Estimate
    pairs: Estimate
    halves: Estimate
    rank_correlation: Estimate
    chance: float
    resamples: int
    edges: int

    @numbers.checked()
    def stable(self, share: float = 0.75) -> Mask | MaskObject:
        """The edges (nodes) that at least a share of the resamples select; edges pruned.

        A warning says so when none are left.
        """
        mask, most = steady(self.frequency, share, self.scores), 100 * float(self.frequency.max())
        if self.scores.level != "edge":
            nodes = NodeMask(mask, self.scores.level, self.scores.spans)
            if not nodes.n_nodes:
                logger.warning("share=%g leaves no nodes: the steadiest is in %.0f %% of the resamples", share, most)
            return nodes
        if not mask.any():
            logger.warning("share=%g leaves no edges: those that so many resamples select %s; the steadiest edge is in "
                           "%.0f %% of them", share, f"do not {PATHS}", most)  # fmt: skip
        return mask if self.scores.spans is None else SpanMask(mask, self.scores.spans)

    def to_frame(self) -> pd.DataFrame:
        """One row for each edge (node) that was ever selected, the steadiest first.

        Columns: edge (node), frequency, low, high (Wilson's interval over resamples), score, selected (on all prompts).
        """
        ever = self.frequency.flatten().nonzero()[:, 0]
        share = self.frequency.flatten()[ever].double().numpy()
        counts = np.rint(share * self.resamples).astype(int)
        known = {int(k): binomtest(int(k), self.resamples).proportion_ci(method="wilson") for k in np.unique(counts)}
        scores, mask = self.scores, self.mask if isinstance(self.mask, Tensor) else self.mask.mask
        names = element_names(scores.graph, scores.level, scores.spans, mask.shape, ever, scores.settings)
        frame = pd.DataFrame(
            {
                "edge" if scores.level == "edge" else "node": names,
                "frequency": share,
                "low": [known[int(k)].low for k in counts],
                "high": [known[int(k)].high for k in counts],
                "score": scores.values.flatten()[ever].numpy(),
                "selected": mask.flatten()[ever].numpy(),
            }
        )
        order = np.lexsort((-frame["score"].abs().to_numpy(), -share))
        return frame.iloc[order].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """One row a measure: jaccard, pairs, halves, rank_correlation, with value (median), low, high, and chance."""
        rows = [
            {"measure": name, **getattr(self, name).to_dict(), "chance": chance}
            for name, chance in (
                ("jaccard", self.chance), ("pairs", self.chance), ("halves", self.chance), ("rank_correlation", 0.0),
            )
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def headline(self) -> str:
        always = int((self.frequency > 1 - 1e-6).sum())
        order = "none, for scores are constant" if math.isnan(self.rank_correlation.value) else self.rank_correlation
        level = self.scores.level
        return (
            f"{self.edges:,} {level}s over {self.resamples} resamples: Jaccard with all prompts "
            f"{self.jaccard}, between resamples {self.pairs}, between halves {self.halves} (random circuits "
            f"{self.chance:.3f}); rank correlation {order}; {always:,} {level}s always selected, "
            f"{int((self.frequency > 0).sum()):,} ever"
        )

    def figure(self) -> Figure:
        """How many edges (nodes) are selected how often."""
        import plotly.graph_objects as go

        selected = self.frequency[self.frequency > 0].numpy()
        figure = go.Figure(go.Histogram(x=selected, nbinsx=self.resamples, marker={"color": theme.OWN}))
        figure.update_xaxes(title=f"share of resamples that select the {self.scores.level}")
        figure.update_yaxes(title=f"{self.scores.level}s")
        told = f"{self.edges:,} {self.scores.level}s, {self.resamples} resamples of the prompts"
        return theme.styled(figure, self.scores.setting.title("stability"), told)


class StabilityKeywords(
    NodeKeywords, ScoringKeywords, AbsoluteKeyword, SettingKeywords, RunKeywords, IntervalKeywords, total=False
):
    """The keywords of `stability`."""


@numbers.checked(chunks=numbers.Limits(4))
@door
def stability(
    model: Any,
    task: Task,
    *,
    method: str | Method = "eap-ig",
    edges: int | float | None = None,
    selection: str | Selection = "top-n",
    chunks: int = CHUNKS,
    **keywords: Unpack[StabilityKeywords],
) -> Stability:
    """Stability of a method's circuit under resampling of its prompts.

    The prompts are cut into chunks at random, each is scored once, and bootstrap resamples draw chunks with
    replacement: scores are means over prompts, so that a resample's are a weighted mean, and the whole costs as much
    as scoring the prompts once. (Under `mean` ablations every resample is scored anew.) Halves of the prompts are
    compared, too, over as many seeds: two circuits of disjoint prompts.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts.
        method: an edge method, by name or as an object, as in `find_circuit`.
        edges: size of the circuits before pruning: a number of edges, or a share of all; None: 0.05 of them.
        selection: as in `find_circuit`. `balanced` and others that run circuits settle what they keep on all prompts.
        chunks: of the prompts; fewer are quicker, more come closer to resampling prompts one by one.
        ablation, objective, kv: of the setting, see `interp.setting.Setting`.
        resamples: how many resamples of the prompts (20).
        confidence: of the intervals.
        seed: of chunks, resamples and halves.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        level, positions, dictionaries, errors: circuits of nodes instead, as in `find_circuit`; `nodes` is then their
            size, a number or a share of all; None: 0.05 of them.
        **keywords: of a method or a selection by name, as in `find_circuit`: `steps`, `rules`, `absolute`, ...

    Returns:
        `Stability`: `frequency`, `jaccard`, `rank_correlation`, `stable(share)`, `to_frame()`, `figure()`.

    Raises:
        InputError: fewer than 4 prompts or chunks, fewer than 2 resamples, and whatever `attribute` refuses.
    """
    told = method_keywords("stability", method, keywords, StabilityKeywords)
    asked = Asked.of(keywords, {"edges": edges})
    scorer = asked.method(method, {**chosen(keywords, ScoringKeywords), **told})
    rule = asked.selection(selection, chosen(keywords, AbsoluteKeyword))
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords, resamples=20)
    resamples, seed = interval.resamples, interval.seed
    elements = asked.elements(setting)
    wanted, nodes = (edges, False) if asked.level == "edge" else (keywords.get("nodes"), True)
    size = elements.size("nodes" if nodes else "edges", SHARE if wanted is None else wanted)
    drawn = resampled_scores(elements, scorer, resamples=resamples, chunks=chunks, seed=seed)
    values = drawn.scores.values

    (select,) = elements.rules(rule, values, [size])
    mask = select(values)
    if isinstance(elements, EdgeElements):
        mask = warn_if_empty(mask, size, partial(rule.mask, values, setting.graph), setting.graph.n_edges)
    real = elements.places
    circuits = np.stack([select(drawn.values(i)).flatten()[real].numpy() for i in range(resamples)])
    own = mask.flatten()[real].numpy()
    halves = [pair for pair in map(drawn.halves, range(seed, seed + resamples)) if pair is not None]
    share = float(own.mean())
    frequency = torch.zeros(values.shape, dtype=torch.float32, device="cpu")
    frequency.view(-1)[real] = torch.from_numpy(circuits.mean(0)).float()

    def spread(values: Sequence[float]) -> Estimate:
        return _spread(values, interval.confidence)

    def ranked_alike(other: Tensor) -> float:
        return _rank_correlation(values.flatten()[real], other.flatten()[real])

    return Stability(
        mask=elements.circuit(mask),
        scores=drawn.scores,
        frequency=frequency,
        jaccard=spread([jaccard(own, one) for one in circuits]),
        pairs=spread([jaccard(*pair) for pair in itertools.combinations(circuits, 2)]),
        halves=spread([jaccard(*(select(half).flatten()[real].numpy() for half in pair)) for pair in halves]),
        rank_correlation=spread([ranked_alike(drawn.values(i)) for i in range(resamples)]),
        chance=share / (2 - share),
        resamples=resamples,
        edges=size,
    )


def jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Shared edges over edges in either; 1 when both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's; NaN, without scipy's warning, where either is constant."""
    constant = bool((one == one[0]).all() or (other == other[0]).all())
    return float("nan") if constant else float(spearmanr(one, other).statistic)


def _spread(values: Sequence[float], confidence: float) -> Estimate:
    """The median of the resamples, and what so many of them lie between."""
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail]) if len(values) else (np.nan,) * 3
    return Estimate(float(middle), float(low), float(high), confidence)
