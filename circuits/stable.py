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
from attribution.engines import ScoringKeywords, chosen_method, method_keywords
from attribution.scores import Scores
from circuits.resampling import CHUNKS, resampled_scores
from interp import numbers, theme
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.keywords import chosen
from interp.result import Result
from interp.run import RunKeywords
from interp.running import door
from interp.selection import SELECTIONS, Selection, prune
from interp.selection.empty import PATHS, warn_if_empty
from interp.selection.named import Mask, rules_of
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.circuit.curve import AbsoluteKeyword

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """How a circuit of `edges` edges fares when its prompts are resampled.

    Attributes:
        mask: the circuit of all prompts.
        scores: on all prompts.
        frequency: share of the resamples that select each edge, [source, target].
        jaccard: overlap of a resample's circuit with that of all prompts; the median over resamples, and what a share
            `confidence` of them lie between. `pairs`: of two resamples. `halves`: of two disjoint halves of the
            prompts, over seeds (NaN under `mean` ablations).
        rank_correlation: Spearman correlation of the scores of all edges, resample against all prompts; NaN where
            scores are constant, which have no order.
        chance: Jaccard overlap of two random circuits of that size.
        resamples, edges: how many, and how large.
    """

    mask: Mask
    scores: Scores
    frequency: Float[Tensor, "source target"]
    jaccard: Estimate
    pairs: Estimate
    halves: Estimate
    rank_correlation: Estimate
    chance: float
    resamples: int
    edges: int

    @numbers.checked()
    def stable(self, share: float = 0.75) -> Mask:
        """The edges that at least a share of the resamples select, pruned; a warning says so when none are left."""
        mask = prune(self.frequency >= share - 1e-6, self.scores.graph)
        if not mask.any():
            logger.warning("share=%g leaves no edges: those that so many resamples select %s; the steadiest edge is in "
                           "%.0f %% of them", share, f"do not {PATHS}", 100 * float(self.frequency.max()))  # fmt: skip
        return mask

    def to_frame(self) -> pd.DataFrame:
        """One row for each edge that was ever selected, the steadiest first.

        Columns: edge, frequency, low, high (Wilson's interval over resamples), score, selected (on all prompts).
        """
        source, target = (self.frequency > 0).nonzero().unbind(1)
        share = self.frequency[source, target].double().numpy()
        counts = np.rint(share * self.resamples).astype(int)
        known = {int(k): binomtest(int(k), self.resamples).proportion_ci(method="wilson") for k in np.unique(counts)}
        graph = self.scores.graph
        frame = pd.DataFrame(
            {
                "edge": [graph.edge_name(*pair) for pair in zip(source.tolist(), target.tolist(), strict=True)],
                "frequency": share,
                "low": [known[int(k)].low for k in counts],
                "high": [known[int(k)].high for k in counts],
                "score": self.scores.values[source, target].numpy(),
                "selected": self.mask[source, target].numpy(),
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
        return (
            f"{self.edges:,} edges over {self.resamples} resamples: Jaccard with all prompts "
            f"{self.jaccard}, between resamples {self.pairs}, between halves {self.halves} (random circuits "
            f"{self.chance:.3f}); rank correlation {order}; {always:,} edges always selected, "
            f"{int((self.frequency > 0).sum()):,} ever"
        )

    def figure(self) -> Figure:
        """How many edges are selected how often."""
        import plotly.graph_objects as go

        selected = self.frequency[self.frequency > 0].numpy()
        figure = go.Figure(go.Histogram(x=selected, nbinsx=self.resamples, marker={"color": theme.OWN}))
        figure.update_xaxes(title="share of resamples that select the edge")
        figure.update_yaxes(title="edges")
        return theme.styled(figure, f"{self.edges:,} edges, {self.resamples} resamples")


class StabilityKeywords(ScoringKeywords, AbsoluteKeyword, SettingKeywords, RunKeywords, IntervalKeywords, total=False):
    """The keywords of `stability`."""


@numbers.checked(chunks=numbers.Limits(4))
@door
def stability(
    model: Any,
    task: Task,
    *,
    method: str | Method = "eap-ig",
    edges: int | float = 0.05,
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
        edges: size of the circuits before pruning: a number of edges, or a share of all.
        selection: as in `find_circuit`. `balanced` and others that run circuits settle what they keep on all prompts.
        chunks: of the prompts; fewer are quicker, more come closer to resampling prompts one by one.
        ablation, objective, kv: of the setting, see `interp.setting.Setting`.
        resamples: how many resamples of the prompts (20).
        confidence: of the intervals.
        seed: of chunks, resamples and halves.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        **keywords: of a method or a selection by name, as in `find_circuit`: `steps`, `rules`, `absolute`, ...

    Returns:
        `Stability`: `frequency`, `jaccard`, `rank_correlation`, `stable(share)`, `to_frame()`, `figure()`.

    Raises:
        InputError: fewer than 4 prompts or chunks, fewer than 2 resamples, and whatever `attribute` refuses.
    """
    told = method_keywords("stability", method, keywords, StabilityKeywords)
    scorer = chosen_method(method, {**chosen(keywords, ScoringKeywords), **told}, level="edge")
    rule = SELECTIONS.make(selection, chosen(keywords, AbsoluteKeyword))
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords, resamples=20)
    resamples, seed = interval.resamples, interval.seed
    drawn = resampled_scores(setting, scorer, resamples=resamples, chunks=chunks, seed=seed)
    graph, values = setting.graph, drawn.scores.values
    size = max(1, int(edges * graph.n_edges)) if isinstance(edges, float) else edges

    (select,) = rules_of(rule, setting, values, [size])
    mask = warn_if_empty(select(values), size, partial(rule.mask, values, graph), graph.n_edges)
    real = graph.edge_mask
    circuits = np.stack([select(drawn.values(i))[real].numpy() for i in range(resamples)])
    own = mask[real].numpy()
    halves = [pair for pair in map(drawn.halves, range(seed, seed + resamples)) if pair is not None]
    share = float(own.mean())
    frequency = torch.zeros(graph.shape, dtype=torch.float32, device="cpu")
    frequency[real] = torch.from_numpy(circuits.mean(0)).float()

    def spread(values: Sequence[float]) -> Estimate:
        return _spread(values, interval.confidence)

    return Stability(
        mask=mask,
        scores=drawn.scores,
        frequency=frequency,
        jaccard=spread([jaccard(own, one) for one in circuits]),
        pairs=spread([jaccard(*pair) for pair in itertools.combinations(circuits, 2)]),
        halves=spread([jaccard(*(select(half)[real].numpy() for half in pair)) for pair in halves]),
        rank_correlation=spread([_rank_correlation(values[real], drawn.values(i)[real]) for i in range(resamples)]),
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
