"""How much of a circuit is the same on other prompts: selection over bootstrap resamples of the prompts."""

from __future__ import annotations

import html
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr
from torch import Tensor

from attribution.scores import Scores
from circuits.resampling import Mask, resampled_scores
from interp import numbers
from interp.errors import choose
from interp.running import door
from interp.selection import greedy, prune, top_n
from interp.selection.empty import PATHS, warn_if_empty
from interp.tasks.task import Task
from metrics.statistics import Estimate

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Stability:
    """How a circuit of `edges` edges fares when its prompts are resampled.

    Attributes:
        mask: the circuit of all prompts.
        scores: on all prompts.
        frequency: share of the resamples that select each edge, [source, target].
        jaccard: overlap of a resample's circuit with that of all prompts; the median over resamples, and what 95 % of
            them lie between. `pairs`: of two resamples. `halves`: of two disjoint halves of the prompts, over seeds
            (NaN under `mean` ablations).
        rank_correlation: Spearman correlation of the scores of all edges, resample against all prompts.
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

    def __repr__(self) -> str:
        always = int((self.frequency > 1 - 1e-6).sum())
        return (
            f"Stability of {self.edges:,} edges over {self.resamples} resamples: Jaccard with all prompts "
            f"{self.jaccard}, between resamples {self.pairs}, between halves {self.halves} (random circuits "
            f"{self.chance:.3f}); rank correlation {self.rank_correlation}; {always:,} edges always selected, "
            f"{int((self.frequency > 0).sum()):,} ever"
        )

    def _repr_html_(self) -> str:
        table = self.summary().to_html(index=False, border=0, float_format="{:.3f}".format)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def figure(self) -> Figure:
        """How many edges are selected how often."""
        import plotly.graph_objects as go

        chosen = self.frequency[self.frequency > 0].numpy()
        figure = go.Figure(go.Histogram(x=chosen, nbinsx=self.resamples, marker={"color": "#0072B2"}))
        figure.update_xaxes(title="share of resamples that select the edge")
        figure.update_yaxes(title="edges")
        figure.update_layout(template="plotly_white", title=f"{self.edges:,} edges, {self.resamples} resamples")
        return figure


@numbers.checked(resamples=numbers.Limits(2), chunks=numbers.Limits(4))
@door
def stability(
    model: Any,
    task: Task,
    *,
    method: str = "eap-ig",
    edges: int | float = 0.05,
    resamples: int = 20,
    chunks: int = 16,
    selection: str = "top-n",
    absolute: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Stability:
    """Stability of a method's circuit under resampling of its prompts.

    The prompts are cut into chunks at random, each is scored once, and bootstrap resamples draw chunks with
    replacement: scores are means over prompts, so that a resample's are a weighted mean, and the whole costs as much
    as scoring the prompts once. (Under `mean` ablations every resample is scored anew.) Halves of the prompts are
    compared, too, over as many seeds: two circuits of disjoint prompts.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts.
        method: an edge method of `attribution.methods()`.
        edges: size of the circuits before pruning: a number of edges, or a share of all.
        resamples: how many.
        chunks: of the prompts; fewer are quicker, more come closer to resampling prompts one by one.
        selection, absolute: as in `find_circuit`.
        seed: of chunks, resamples and halves.
        **settings: as in `attribute`: `ablation`, `objective`, `steps`, `kv`, `batch_size`, `quiet`, ...

    Returns:
        `Stability`: `frequency`, `jaccard`, `rank_correlation`, `stable(share)`, `to_frame()`, `figure()`.

    Raises:
        InputError: fewer than 4 prompts or chunks, fewer than 2 resamples, and whatever `attribute` refuses.
    """
    choose("selection", selection, ("top-n", "greedy"))
    drawn = resampled_scores(model, task, method, resamples=resamples, chunks=chunks, seed=seed, **settings)
    graph = drawn.scores.graph
    size = max(1, int(edges * graph.n_edges)) if isinstance(edges, float) else edges

    rule = greedy if selection == "greedy" else top_n

    def select(values: Tensor) -> Mask:
        return rule(values, graph, size, absolute)

    own_size = partial(rule, drawn.scores.values, graph, absolute=absolute)
    mask, real = warn_if_empty(own_size(size), size, own_size, graph.n_edges), graph.edge_mask
    circuits = np.stack([select(drawn.values(i))[real].numpy() for i in range(resamples)])
    own = mask[real].numpy()
    halves = [pair for pair in map(drawn.halves, range(seed, seed + resamples)) if pair is not None]
    share = float(own.mean())
    frequency = torch.zeros(graph.shape, dtype=torch.float32, device="cpu")
    frequency[real] = torch.from_numpy(circuits.mean(0)).float()
    return Stability(
        mask=mask,
        scores=drawn.scores,
        frequency=frequency,
        jaccard=_spread([jaccard(own, one) for one in circuits]),
        pairs=_spread([jaccard(*pair) for pair in itertools.combinations(circuits, 2)]),
        halves=_spread([jaccard(*(select(half)[real].numpy() for half in pair)) for pair in halves]),
        rank_correlation=_spread(
            [spearmanr(drawn.scores.values[real], drawn.values(i)[real]).statistic for i in range(resamples)]
        ),
        chance=share / (2 - share),
        resamples=resamples,
        edges=size,
    )


def jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Shared edges over edges in either; 1 when both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _spread(values: Sequence[float]) -> Estimate:
    """The median of the resamples, and what 95 % of them lie between."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975]) if len(values) else (np.nan,) * 3
    return Estimate(float(middle), float(low), float(high))
