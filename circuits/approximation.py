"""How good is an approximation? Scores of gradient methods against exact patching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import metrics
from attribution.components import KINDS, components_in
from attribution.edges.method import Method
from attribution.edges.named import METHODS
from attribution.edges.patched import ActivationPatching, Exact
from attribution.engines import chosen_method
from attribution.sparse.patched import mean_patched_features
from attribution.units.nodes import check_nodes, scores_of_nodes
from attribution.units.patched import mean_patched
from circuits.levels import Asked
from interp import numbers
from interp.dictionaries.sets import FeatureKeywords
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.interval import Interval, IntervalKeywords
from interp.keywords import check_keywords
from interp.run import RunKeywords
from interp.running import door
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.agreement_table import AgreementTable, combine
from metrics.circuit.elements import Elements, NodeElements, Places
from metrics.circuit.evaluate import refuse_dictionaries

DEFAULT_METHODS = ("eap", "eap-ig", "relp")
Given = str | Method | Mapping[str, Any]
SETTINGS = {  # that methods may differ in; all else is shared
    "edge": ("method", "rules", "steps", "quadrature", "credit", "checkpointed"),
    "node": ("method", "rules", "steps", "quadrature"),
    "neuron": ("method", "rules", "steps", "quadrature", "credit", "checkpointed"),
    "expert": ("method", "rules", "steps", "quadrature", "credit", "checkpointed"),
    "head": ("method", "rules", "steps", "quadrature", "credit", "checkpointed"),
    "feature": ("method", "rules", "steps", "quadrature", "checkpointed"),
}
SAMPLE = 600  # edges or nodes that are patched where nobody says how many
BANDS = (0.01, 0.1, 1.0)  # strata by magnitude: the top 1 %, the next 9 %, the rest


class AgreementKeywords(FeatureKeywords, SettingKeywords, RunKeywords, IntervalKeywords, total=False):
    """The keywords of `agreement`."""


@numbers.checked(sample=numbers.Limits(3), top=numbers.COUNT, drop=numbers.FROM_ZERO)
@door
def agreement(
    model: Any,
    task: Task,
    methods: str | Method | Sequence[str | Method] | Mapping[str, Given] = DEFAULT_METHODS,
    level: Literal["edge", "node", "neuron", "expert", "head", "feature"] = "edge",
    *,
    sample: int | None = None,
    top: Sequence[int] = (10, 50),
    drop: Sequence[int] = (0, 1, 5),
    resume: Any = None,
    **keywords: Unpack[AgreementKeywords],
) -> AgreementTable:
    """Compare methods with exact patching: Pearson, Spearman, sign agreement and top-k overlap, with intervals.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        methods: methods by name or as objects, or by a name of your own with their settings:
            `{"relp along the path": {"method": "eap-ig", "rules": "relp"}}`.
        level: `edge`: a stratified sample of edges, each score a mean over prompts. `node`: attention output, MLP
            output and residual stream at every layer and position of every prompt (`attribution.components`), all
            of them patched; intervals resample whole prompts. `neuron`: a stratified sample of the MLPs' neurons
            (`attribution.neurons`), each at all positions together and a mean over prompts; with ablation `zero`
            this is single-neuron ablation. `head` and `feature`: the same for heads and for features of `dictionaries`
            (errors among them with `errors="nodes"`): each alone is ablated in the whole model.
        sample: number of edges, neurons, heads or features; None: 600, or all where there are fewer. Strata are the
            kinds of edge (which source, which target; of nodes their layer or dictionary) times three bands of
            magnitude (the top 1 %, the next 9 % and the rest, by the mean rank over the methods compared, so that none
            chooses its own ground); every stratum gives as many. The figures hold for such a sample: among all edges,
            most of which do nothing, they would be others.
        dictionaries, errors: of features: what they are of, and whether what dictionaries leave of their outputs is
            `kept` (None), `ablated`, or `nodes` behind the features.
        ablation, objective, kv: of the setting, see `interp.setting.Setting`.
        top, drop: as for `metrics.agreement`.
        confidence, resamples, seed: of the bootstrap over points (1000 draws); `seed` also draws the sample.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        resume: a file in which the exact scores of edges are kept, to go on from.

    Returns:
        `AgreementTable`: `to_frame()` has one row a method, component and number of dropped points; `.figure()` draws
        the points.

    Raises:
        InputError: unknown names, a method that patches instead of approximating, a sample larger than the graph.
    """
    check_keywords("agreement", keywords, AgreementKeywords)
    choose("level", level, tuple(SETTINGS))
    refuse_dictionaries(keywords, level)
    if resume is not None and level != "edge":
        raise InputError(f"resume is for level='edge'; at level={level!r} all is patched in one go")
    chosen = _chosen(methods, level)
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords, resamples=1000)
    judged: dict[str, Any] = {
        "top": top, "drop": drop,
        "resamples": interval.resamples, "confidence": interval.confidence, "seed": interval.seed,
    }  # fmt: skip
    if level == "node":
        found = _nodes(setting, chosen, judged)
    elif level != "edge":
        found = _single(NodeElements(setting, level), chosen, sample, interval.seed, judged)
    else:
        found = _edges(setting, chosen, sample, resume, judged)
    return replace(found, about=setting.conditions.title())


def _edges(
    setting: Setting, methods: dict[str, Method], sample: int | None, resume: Any, judged: dict[str, Any]
) -> AgreementTable:
    values, graph = {name: method.scores(setting).values for name, method in methods.items()}, setting.graph
    mask = stratified_edges(graph, values, _size(sample, graph.n_edges), judged["seed"])
    exact = Exact(edges=mask, resume=resume).scores(setting).values
    labels = [graph.edge_name(*edge) for edge in mask.nonzero().tolist()]
    return metrics.agreement(exact[mask], {n: v[mask] for n, v in values.items()}, labels=labels, **judged)


def _chosen(methods: str | Method | Sequence[str | Method] | Mapping[str, Given], level: str) -> dict[str, Method]:
    """The methods by the names that the table gives them."""
    if isinstance(methods, Mapping):
        given = dict(methods)
    else:
        several = [methods] if isinstance(methods, (str, Method)) else list(methods)
        given = {one if isinstance(one, str) else one.name: one for one in several}
        if len(given) < len(several):
            raise InputError("methods has two of one name; give a dictionary with a name for each")
    if not given:
        raise InputError("methods names no method; give at least one, such as 'eap'")
    return {name: _method(name, one, level) for name, one in given.items()}


def _method(name: str, given: Given, level: str) -> Method:
    told = dict(given) if isinstance(given, Mapping) else {"method": given}
    method = told.pop("method", name)
    for setting in told:
        choose(f"setting of methods[{name!r}]", setting, SETTINGS[level])
    if level == "edge" and isinstance(method, str) and "level" in (METHODS.settings(method) or ()):
        told["level"] = "edge"  # also of those that score nodes by default
    made = Asked(level).method(method, told) if level == "feature" else chosen_method(method, told)
    if isinstance(made, Exact | ActivationPatching):
        raise InputError(f"methods names {name!r}, which patches: it is what the others are compared with")
    return chosen_method(made, level="edge") if level == "edge" else made


def _nodes(setting: Setting, methods: dict[str, Method], judged: dict[str, Any]) -> AgreementTable:
    if len(setting) < 2:
        raise InputError("level='node' resamples whole prompts for its intervals; give a task of at least 2 prompts")
    exact = components_in(setting, Exact(), KINDS)
    found = {name: components_in(setting, method, KINDS) for name, method in methods.items()}
    where = exact.mask[:, None, :].expand_as(exact.values[KINDS[0]])
    prompt, layer, position = (part.tolist() for part in where.nonzero().T)
    tables = {
        kind: metrics.agreement(
            exact.values[kind][where],
            {name: scores.values[kind][where] for name, scores in found.items()},
            labels=[f"layer {i}, position {p}, prompt {n}" for n, i, p in zip(prompt, layer, position, strict=True)],
            clusters=prompt,
            **judged,
        )
        for kind in KINDS
    }
    return combine(tables, name="component")


def _single(
    elements: NodeElements, methods: dict[str, Method], sample: int | None, seed: int, judged: dict[str, Any]
) -> AgreementTable:
    """Methods against nodes that are ablated one at a time."""
    setting, level = elements.setting, elements.level
    for method in methods.values():
        check_nodes(setting, method, level)
    values = {name: scores_of_nodes(setting, method, level).values.double() for name, method in methods.items()}
    places = stratified_nodes(elements, values, _size(sample, len(elements.places)), seed)
    exact = _patched(elements, places)
    found = {name: one.flatten()[places] for name, one in values.items()}
    return metrics.agreement(exact, found, labels=elements.names(places), **judged)


def _size(sample: int | None, count: int) -> int:
    return min(SAMPLE, count) if sample is None else sample


def _patched(elements: NodeElements, places: Places) -> Float[Tensor, " n"]:
    """What patching each alone does; of neurons and features all in front of them is run once."""
    setting, width = elements.setting, elements.full.shape[1]
    single = [divmod(place, width) for place in places.tolist()]
    if elements.level == "neuron":
        return mean_patched(setting, single)
    if elements.level in ("head", "expert"):
        return _removed(elements, places)
    assert setting.features is not None
    error = width - 1 if setting.features.errors == "nodes" else width  # errors stand last
    chosen = [(index, -1 if feature == error else feature) for index, feature in single]
    return mean_patched_features(setting, setting.features.on(setting.anatomy), chosen)


def _removed(elements: Elements, places: Places) -> Float[Tensor, " n"]:
    found = elements.measure([elements.without(elements.full, [place]) for place in places.tolist()])
    return (found.clean - found.circuits).double().mean(1)


def patched_sample(
    elements: Elements, values: Mapping[str, Tensor], n: int, seed: int
) -> tuple[Places, Float[Tensor, " n"]]:
    """A stratified sample of `n` edges (nodes), and how much the objective falls when each alone is patched."""
    if elements.level == "edge":
        mask = stratified_edges(elements.setting.graph, values, n, seed)
        return elements.inside(mask), Exact(edges=mask).scores(elements.setting).values[mask]
    places = stratified_nodes(elements, values, n, seed)
    return places, _removed(elements, places)


def stratified_nodes(elements: Elements, values: Mapping[str, Tensor], n: int, seed: int) -> Places:
    """`n` nodes in equal shares from every layer (dictionary; of heads and MLPs from either) and band of magnitude."""
    places = elements.places
    numbers.whole("sample", n, numbers.Limits(3, len(places), advice=f"there are no more {elements.level}s"))
    kind = places // elements.full[0].numel()
    if elements.level == "node":
        sources = elements.setting.graph.sources
        kind = torch.tensor([_kind(sources[place % len(sources)]) == "mlp" for place in places.tolist()], device="cpu")
    sizes = torch.stack([one.flatten()[places].abs() for one in values.values()])
    return places[stratified(sizes, kind.long(), n, seed).sort().values]


def stratified_edges(
    graph: ComputationalGraph, values: Mapping[str, Float[Tensor, "source target"]], n: int, seed: int
) -> Bool[Tensor, "source target"]:
    """`n` edges in equal shares from every kind of edge and band of magnitude; see `agreement`.

    A stratum smaller than its share gives all it has, and the others make up for it.
    """
    numbers.whole("sample", n, numbers.Limits(3, graph.n_edges, advice="the graph has no more edges"))
    edges = graph.edge_mask.nonzero()
    source, target = edges.T
    sizes = torch.stack([one[source, target].abs() for one in values.values()])
    sources, targets = ([_kind(name) for name in names] for names in (graph.sources, graph.targets))
    kinds = [f"{sources[s]}->{targets[t]}" for s, t in edges.tolist()]
    kind = torch.tensor(np.unique(kinds, return_inverse=True)[1], device="cpu")
    chosen = edges[stratified(sizes, kind, n, seed)]
    mask = torch.zeros_like(graph.edge_mask)
    mask[tuple(chosen.T)] = True
    return mask


def stratified(sizes: Float[Tensor, "method item"], kind: Int[Tensor, " item"], n: int, seed: int) -> Int[Tensor, " n"]:
    """`n` items in equal shares from every kind and band of magnitude, by the mean rank over methods."""
    count = sizes.shape[1]
    ranks = sizes.argsort(descending=True, stable=True).argsort()
    place = ranks.double().mean(0).argsort(stable=True).argsort() / count
    band = torch.bucketize(place, torch.tensor(BANDS[:-1], dtype=place.dtype, device="cpu"), right=True)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")
    stratum = (kind * len(BANDS) + band)[order]
    # how many of its stratum come before an item in the random order: the lowest `n` make equal shares
    turn = torch.zeros(count, dtype=torch.long, device="cpu")
    for number in stratum.unique().tolist():
        members = (stratum == number).nonzero()[:, 0]
        turn[members] = torch.arange(len(members), device="cpu")
    return order[turn.argsort(stable=True)[:n]]


def _kind(node: str) -> str:
    """Kind of a source or target by its name: input, head, mlp; q, k, v, mlp, logits."""
    if node in ("input", "logits"):
        return node
    return "mlp" if node.startswith("m") else node[-2] if node.endswith(">") else "head"
