"""How large the effect of an edge may be that nobody looked at: a bound from random subsets (AtP*'s diagnostic)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.errors import InputError
from interp.keywords import check_keywords
from interp.result import Result
from interp.run import RunKeywords
from interp.running import door
from interp.setting import UnderKeywords
from interp.tasks.task import Task
from metrics.circuit.evaluate import judging

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]
_AT_ONCE = 8192  # edges whose draws are made together: bounds memory
_TWICE = 2  # subsets with an edge, and without it, below which nothing is known of their spread


@dataclass(frozen=True, repr=False)
class Missed(Result):
    """An upper confidence bound on the largest effect among edges that were not looked at.

    Attributes:
        frame: a row for each of these edges, the largest bound first: `edge`; `effect`, how much more the objective
            falls in subsets with it than in those without; `bound`, the upper end for its size.
        bound: the largest of them: with this confidence no edge that was left out has a larger effect.
        model: what the objective falls by when every edge is ablated, to compare with.
        subsets, share: how many were patched, and which share of them holds each edge.
        fall: what the objective fell by in a subset, on average.
        confidence: of the bound.
        setting: ablation, objective and prompts.
    """

    frame: pd.DataFrame
    bound: float
    model: float
    subsets: int
    share: float
    fall: float
    confidence: float
    setting: Conditions | None = None

    def to_frame(self) -> pd.DataFrame:
        return self.frame.copy()

    def headline(self) -> str:
        return (
            f"{len(self.frame):,} edges that were not looked at: none has an effect above {self.bound:.3g} "
            f"({self.confidence:.0%} confidence; all edges together {self.model:.3g}), from {self.subsets} random "
            f"subsets that lower the objective by {self.fall:.3g}; {self.setting}"
        )

    def figure(self) -> Figure:
        """The largest bounds, by edge."""
        import plotly.graph_objects as go

        shown = self.frame.head(30)
        figure = go.Figure(go.Bar(x=shown["edge"], y=shown["bound"], marker={"color": theme.OWN}))
        figure.update_xaxes(title="edge that is left out")
        figure.update_yaxes(title="upper bound on its |effect|")
        told = f"no edge left out has an effect above {self.bound:.3g}"
        return theme.styled(figure, titled(self.setting, "missed effects"), told)


class MissedKeywords(UnderKeywords, RunKeywords, total=False):
    """The keywords of `missed_effects`."""


@numbers.checked(subsets=numbers.Limits(8, advice="200 is usual"), share=numbers.BETWEEN)
@door
def missed_effects(
    model: Any,
    task: Task,
    looked_at: Any,
    *,
    subsets: int = 200,
    share: float = 0.1,
    confidence: float = 0.95,
    seed: int = 0,
    **keywords: Unpack[MissedKeywords],
) -> Missed:
    """Bound the largest effect of an edge among those that were not patched: subset sampling (Kramar et al. 2024).

    Methods that estimate effects may miss some (false negatives). Random subsets of the other edges are patched
    together. For each edge the mean fall of the objective in the subsets with it is compared with that in the others,
    as in Welch's t-test, and

        bound = max over edges  |difference| + t(confidence) * its standard error

    The edge of largest effect is one fixed edge, so that no correction for their number is needed: the bound is too low
    only if that edge's own is. It is about the prompts given. What an edge does is taken among random others that are
    ablated too: effects that the others hide, or that need them, count as they are there; a smaller `share` is nearer
    to patching alone, and needs more subsets.

    Costs one run of a circuit for each subset.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts.
        looked_at: bool `[source, target]`, or anything with such a `.mask`: the edges whose effects are known, such as
            `scores.mask(50, pruned=False)` where these were patched (`AtPStar(verify=50)`, `exact`).
        subsets: how many; each edge is in the same number of them.
        share: of the subsets that hold an edge.
        confidence, seed: of the bound, and of the draws.
        ablation, objective, kv, batch_size, memory, quiet: as in `metrics.evaluate`.

    Raises:
        InputError: a circuit of nodes or by position, one that holds every edge, fewer than two subsets with an edge or
            without it.
    """
    check_keywords("missed_effects", keywords, MissedKeywords)
    confidence = numbers.real("confidence", confidence, numbers.COMMON["confidence"])
    setting, mask = judging(model, task, looked_at, keywords)
    if not isinstance(mask, Tensor):
        raise InputError("looked_at is a circuit of nodes, or by position; give edges: bool [source, target]")
    graph = setting.graph
    places = (graph.edge_mask & ~mask).flatten().nonzero()[:, 0]
    if not len(places):
        raise InputError("looked_at holds every edge; nothing was left out that could be missed")
    drawn = drawn_subsets(len(places), subsets, share, seed)
    kept = graph.edge_mask.flatten().repeat(subsets, 1)
    kept[:, places] = ~drawn
    values = setting.measure(kept.view(subsets, *graph.shape))
    falls = (values.clean - values.circuits).double().mean(1).numpy()
    effects, bounds = upper_bounds(falls, drawn.numpy(), confidence)
    order = np.argsort(-bounds, kind="stable")
    frame = pd.DataFrame(
        {
            "edge": [graph.edge_name(*divmod(place, graph.shape[1])) for place in places[order.tolist()].tolist()],
            "effect": effects[order],
            "bound": bounds[order],
        }
    )
    whole = float((values.clean - values.empty).double().mean())
    return Missed(
        frame, float(bounds.max()), whole, subsets, share, float(falls.mean()), confidence, setting.conditions
    )


def drawn_subsets(n: int, subsets: int, share: float, seed: int) -> Bool[Tensor, "subset n"]:
    """Random subsets of `n` things, each of which is in the same number of them.

    Raises `InputError` where that is less than two, or all but one.
    """
    each = round(share * subsets)
    if not _TWICE <= each <= subsets - _TWICE:
        raise InputError(
            f"share={share} of subsets={subsets} puts an edge into {each} of them; at least {_TWICE} must hold it, and "
            f"{_TWICE} must not"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(n, subsets, dtype=torch.bool, device="cpu")
    for first in range(0, n, _AT_ONCE):
        some = drawn[first : first + _AT_ONCE]
        noise = torch.rand(some.shape, generator=generator, dtype=torch.float32, device="cpu")
        some.scatter_(1, noise.topk(each).indices, True)
    return drawn.T.contiguous()


def upper_bounds(
    falls: Float[np.ndarray, " subset"], drawn: Bool[np.ndarray, "subset n"], confidence: float
) -> tuple[Array, Array]:
    """Differences of the mean fall with and without each thing, and upper ends for their sizes, `[n]` each (Welch)."""
    inside = drawn.astype(np.float64)
    centred = falls - falls.mean()
    parts = []
    for member in (inside, 1 - inside):
        count = member.sum(0)
        mean = centred @ member / count
        variance = np.maximum((centred**2 @ member / count - mean**2) * count / (count - 1), 0.0)
        parts.append((mean, variance / count, count - 1))
    (with_it, one, free), (without, other, free_of_others) = parts
    error = one + other
    freedom = error**2 / np.maximum(one**2 / free + other**2 / free_of_others, np.finfo(np.float64).tiny)
    difference = with_it - without
    reach = np.where(error > 0, stdtrit(np.maximum(freedom, 1.0), confidence), 0.0)
    return difference, np.abs(difference) + reach * np.sqrt(error)
