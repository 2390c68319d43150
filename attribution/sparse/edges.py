"""`feature_edges`: how much of a feature's effect comes to it from each feature and error in front of it.

    edge(u -> d) = dM/dd . (gradient of d at u, with the dictionaries between them held) . (u clean - u corrupted)

(Marks et al. 2024, arXiv:2403.19647). Held: between the two, what a dictionary's place writes is a constant, so that
the edge is what goes from u to d past all other places.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Method
from attribution.gradients import BatchScorer, GradientScorer
from attribution.rules.sets import RuleSet
from attribution.sparse.explain import method_of
from attribution.sparse.gradients import site_gradients
from attribution.sparse.observed import Observer, Seen, mean_parts
from attribution.sparse.patched import places_of
from attribution.sparse.scoring import scorer_of
from attribution.units.asked import asked
from attribution.units.explain import NeuronKeywords, NeuronMethodKeywords
from attribution.units.scoring import score_mask
from attribution.units.single import Place
from attribution.units.sinks import Largest, Rows
from interp import numbers, theme
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import MeanParts
from interp.dictionaries.sites import SiteRecorder, check_dictionaries, run_order, run_sites
from interp.errors import InputError
from interp.kernels.batching import Batch, make_batches, run_batches
from interp.kernels.forward import Residual
from interp.keywords import check_keywords, chosen
from interp.parts import working
from interp.result import Result
from interp.running import door
from interp.setting import Setting
from interp.tasks.refusals import refuse_rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLUMNS = ["prompt", "into_dictionary", "into_position", "into_feature"]
_SOURCE = ["dictionary", "layer", "site", "position", "feature"]


@dataclass(frozen=True, eq=False, repr=False)
class FeatureEdges(Result):
    """The largest edges into some features.

    Attributes:
        edges: columns prompt, into_dictionary, into_position, into_feature, dictionary, layer, site, position, feature
            (-1: the error), activation (NaN for errors), score; by falling |score|.
        places: of each dictionary its layer and site.
        tokens, target_tokens, method, rules, ablation, model, seconds, settings: as for `FeatureScores`.
    """

    edges: pd.DataFrame
    places: list[tuple[int, str]]
    tokens: list[list[str]]
    target_tokens: list[str]
    method: str
    rules: str
    ablation: str
    model: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        return self.edges.copy()

    def headline(self) -> str:
        into = len(self.edges[_COLUMNS[1:]].drop_duplicates())
        return f"{self.method}: {len(self.edges):,} edges into {into} features, {self.model}, {self.seconds:.3g} s"

    @numbers.checked(n=numbers.COUNT)
    def figure(self, n: int = 20) -> Figure:
        """Bars of the `n` edges of largest |score|, the largest on top."""
        rows = self.edges.head(n)
        names = [self._name(row) for row in rows.to_dict("records")]
        title = theme.named(self.model, f"{self.method}: strongest edges into features")
        return theme.signed_bars(names, rows["score"].tolist(), title, "score (effect on the objective)", "edge")

    def _name(self, row: Mapping[Hashable, Any]) -> str:
        """Where an edge comes from and leads to, each end as layer, site, feature and position."""
        layer, site = self.places[row["into_dictionary"]]
        unit = "error" if row["feature"] < 0 else row["feature"]
        source = f"{row['layer']}.{row['site']}.{unit} at {row['position']}"
        return f"{source} -> {layer}.{site}.{row['into_feature']} at {row['into_position']}, prompt {row['prompt']}"


@numbers.checked(keep=numbers.COUNT)
@door
def feature_edges(
    model: Any,
    inputs: Any,
    dictionaries: Dictionary | Sequence[Dictionary],
    into: Any,
    target: Any = None,
    rules: str | RuleSet | None = None,
    keep: int = 1000,
    *,
    method: str | Method | None = None,
    **keywords: Unpack[NeuronKeywords],
) -> FeatureEdges:
    """Score the edges from all features and errors into some features.

        edge(u -> d) = dM/dd . (gradient of d at u, with the dictionaries between them held) . (u clean - u corrupted)

    dM/dd is averaged over the method's way, as for `features`; the gradient of d at u is taken at the clean prompts, so
    that a feature that is not active there has none ("Sparse Feature Circuits", arXiv:2403.19647).

    Args:
        model, inputs, dictionaries, target, rules, method: as for `features`.
        into: the features that edges lead to, as `(dictionary, position, feature)`.
        keep: hold so many of the largest |edge|, of all prompts and features together.
        **keywords: as for `features`.

    Returns:
        `FeatureEdges`: `.edges`, a data frame.

    Cost: that of `features`; and for each pair of dictionaries a forward pass, for each feature of the second a
    backward pass through what lies between.

    Raises:
        InputError: as `features` does; errors and features at all positions at once as ends of edges; methods that take
            no gradients.
    """
    check_keywords("feature_edges", keywords, NeuronKeywords)
    started = time.perf_counter()
    given = {"target": target, "attention_mask": None, "prepend_bos": None, "centred": keywords.get("centred", False)}
    question = asked(model, inputs, given, keywords)
    setting = question.setting
    found = check_dictionaries(dictionaries, setting.anatomy)
    how = method_of(method, rules, chosen(keywords, NeuronMethodKeywords))
    if not isinstance(how, GradientMethod):
        raise InputError(f"method={how.name!r} takes no gradients, of which edges are made; use 'eap-ig' or None")
    how.check(setting)
    refuse_rows(setting.prompts, "edges of features")
    ends = places_of(into, found, setting.prompts.clean.shape[1], "into")
    if any(position < 0 or feature < 0 for _, position, feature in ends):
        raise InputError(
            "into holds features at one position each, (dictionary, position, feature); errors have no edges"
        )
    leave_out = tuple(numbers.many("leave_out", keywords.get("leave_out", ()), numbers.whole, numbers.FROM_ZERO))
    sink = Largest(keep, torch.float64)
    _score_edges(setting, how, found, ends, sink, score_mask(setting, leave_out))
    backward = how.backward(setting)
    return FeatureEdges(
        edges=_frame(sink, found, ends),
        places=[(one.layer, one.site) for one in found],
        tokens=question.tokens,
        target_tokens=question.target_tokens,
        method=how.name,
        rules=backward.name if backward.rules else "gradient",
        ablation=str(setting.ablation),
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
        settings={**how.settings(), "objective": setting.goal.name, "leave_out": list(leave_out)},
    )


def _score_edges(
    setting: Setting,
    method: GradientMethod,
    dictionaries: list[Dictionary],
    ends: list[Place],
    sink: Largest,
    mask: Bool[Tensor, "n pos"],
) -> None:
    scorer, means = scorer_of(setting, method, len(dictionaries)), mean_parts(setting, dictionaries)

    def work(batch: Batch) -> None:
        sink.begin()
        _BatchEdges(scorer, batch, dictionaries, method, means).score(ends, sink, mask)
        sink.done()
        bar.advance(len(batch))

    with setting.run.progress(f"scoring edges of features ({method.name})", len(setting)) as bar:
        size, device = scorer.plan.batch_size, setting.anatomy.device
        with torch.inference_mode(False):
            run_batches(make_batches(setting.prompts, size, device, skip_prefix=setting.skip_prefix), work)


class _BatchEdges:
    """Edges of one batch: what its dictionaries see, and the gradients at their places."""

    def __init__(
        self,
        scorer: GradientScorer,
        batch: Batch,
        dictionaries: list[Dictionary],
        method: GradientMethod,
        means: MeanParts | None,
    ) -> None:
        self.runs, self.batch, self.dictionaries = BatchScorer(scorer, batch), batch, dictionaries
        self.gradients = site_gradients(self.runs, dictionaries, method, means)
        self.seen: dict[int, Seen] = {}
        Observer(self.runs, dictionaries, means, self.seen.__setitem__).run()

    def score(self, ends: list[Place], sink: Largest, mask: Bool[Tensor, "n pos"]) -> None:
        """Hand the edges to the sink, in the place of a layer `end * dictionaries + source`; errors stand last."""
        indices = torch.tensor(self.batch.indices, device="cpu")
        here = mask[indices, self.batch.start : self.batch.start + self.batch.n_positions]
        prompt, position = here.nonzero(as_tuple=True)
        rows = Rows(indices[prompt], position + self.batch.start)
        for last, one in enumerate(self.dictionaries):
            chosen = [i for i, (index, _, _) in enumerate(ends) if index == last]
            for first, other in enumerate(self.dictionaries):
                if chosen and run_order(other) < run_order(one):
                    found = self._between(first, last, [ends[i] for i in chosen])
                    for i, gradient in zip(chosen, found, strict=True):
                        scores, activations = (part[here] for part in self._edges(first, gradient))
                        sink.add(i * len(self.dictionaries) + first, rows, scores, activations)

    def _edges(self, first: int, gradient: Residual) -> tuple[Tensor, Tensor]:
        seen = self.seen[first]
        features = seen.feature_change * seen.one.coder.carried(gradient, seen.read)
        errors = (seen.error_change * gradient).sum(-1, keepdim=True)
        nothing = torch.full_like(errors, float("nan"))
        return torch.cat((features, errors), -1), torch.cat((seen.features, nothing), -1)

    def _between(self, first: int, last: int, ends: list[Place]) -> list[Residual]:
        """Of each end, dM/dd times its gradient where the first dictionary writes, `[batch, pos, d_model]`."""
        runs, caught = self.runs, {}
        leaf = self.seen[first].written.detach().requires_grad_()

        def visit(index: int, read: Residual, written: Residual) -> Residual:
            if index == first:
                return leaf.to(written.dtype)
            if index == last and "features" not in caught:
                caught["features"] = self.dictionaries[last].encode(working(read))
            inside = run_order(self.dictionaries[first]) < run_order(self.dictionaries[index])
            return written.detach() if inside else written

        with torch.enable_grad():
            run_sites(runs.frame, runs.embedding, SiteRecorder(runs.anatomy, self.dictionaries, visit))
        seen, found = self.seen[last], []
        down = seen.one.coder.carried(self.gradients[last], seen.read)
        for _, position, feature in ends:
            inside = position - self.batch.start
            if not 0 <= inside < self.batch.n_positions or not caught["features"].requires_grad:
                found.append(torch.zeros_like(leaf))
                continue
            value = (caught["features"][:, inside, feature] * down[:, inside, feature]).sum()
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
            found.append(torch.zeros_like(leaf) if gradient is None else gradient)
        return found


def _frame(sink: Largest, dictionaries: list[Dictionary], ends: list[Place]) -> pd.DataFrame:
    kept = sink.best.frame(("prompt", "pair", "position", "feature"))
    end, index = kept["pair"] // len(dictionaries), (kept["pair"] % len(dictionaries)).tolist()
    for i, column in enumerate(_COLUMNS[1:]):
        kept[column] = [ends[number][i] for number in end]
    kept["dictionary"] = index
    kept["layer"] = [dictionaries[i].layer for i in index]
    kept["site"] = [dictionaries[i].site for i in index]
    widths = pd.Series([dictionaries[i].n_features for i in index], dtype="int64")
    kept["feature"] = kept["feature"].where(kept["feature"] < widths, -1)
    return kept[[*_COLUMNS, *_SOURCE, "activation", "score"]]
