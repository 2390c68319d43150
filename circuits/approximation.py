"""How good is an approximation? Scores of gradient methods against exact patching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import metrics
from attribution import attribute
from attribution.components import KINDS, component_scores
from attribution.methods import METHODS
from interp import numbers
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.objectives import Objective
from interp.running import door
from interp.tasks.task import Task
from metrics.agreement_table import AgreementTable, combine

DEFAULT_METHODS = ("eap", "eap-ig", "relp")
SETTINGS = {  # that methods may differ in; all else is shared
    "edge": ("method", "rules", "steps", "quadrature", "credit", "checkpointed"),
    "node": ("method", "rules", "steps", "quadrature"),
}
BANDS = (0.01, 0.1, 1.0)  # strata by magnitude: the top 1 %, the next 9 %, the rest


@numbers.checked(sample=numbers.Limits(3), top=numbers.COUNT, drop=numbers.FROM_ZERO)
@door
def agreement(
    model: Any,
    task: Task,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_METHODS,
    level: str = "edge",
    *,
    sample: int = 600,
    ablation: str = "patch",
    objective: str | Objective | None = None,
    top: Sequence[int] = (10, 50),
    drop: Sequence[int] = (0, 1, 5),
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    resume: Any = None,
    quiet: bool = False,
) -> AgreementTable:
    """Compare methods with exact patching: Pearson, Spearman, sign agreement and top-k overlap, with intervals.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        methods: gradient methods by name, or by a name of your own with what `attribute` is to be told:
            `{"relp along the path": {"method": "eap-ig", "rules": "relp"}}`.
        level: `edge`: a stratified sample of edges, each score a mean over prompts. `node`: attention output, MLP
            output and residual stream at every layer and position of every prompt (`attribution.components`), all
            of them patched; intervals resample whole prompts.
        sample: number of edges. Strata are the kinds of edge (which source, which target) times three bands of
            magnitude (the top 1 %, the next 9 % and the rest, by the mean rank over the methods compared, so that
            none chooses its own ground); every stratum gives as many. The figures hold for such a sample: among all
            edges, most of which do nothing, they would be others.
        ablation, objective, batch_size, memory, quiet: as for `attribute`.
        top, drop, resamples, confidence: as for `metrics.agreement`.
        seed: of the sample and of the bootstrap.
        resume: a file in which the exact scores of edges are kept, to go on from.

    Returns:
        A data frame (`AgreementTable`): one row a method, component and number of dropped points; `.figure()` draws
        the points.

    Raises:
        InputError: unknown names, a method that patches instead of approximating, a sample larger than the graph.
    """
    choose("level", level, ("edge", "node"))
    if resume is not None and level == "node":
        raise InputError("resume is for level='edge'; components are patched in one go")
    chosen = _checked_methods(methods, level)
    shared: dict[str, Any] = {
        "ablation": ablation, "objective": objective, "batch_size": batch_size, "memory": memory, "quiet": quiet,
    }  # fmt: skip
    judged: dict[str, Any] = {"top": top, "drop": drop, "resamples": resamples, "confidence": confidence, "seed": seed}
    if level == "node":
        return _nodes(model, task, chosen, shared, judged)
    values = {
        name: attribute(model, task, **settings, level="edge", **shared).values for name, settings in chosen.items()
    }
    graph = ComputationalGraph.of(model)
    mask = stratified_edges(graph, values, sample, seed)
    exact = attribute(model, task, "exact", edges=mask, resume=resume, **shared).values
    labels = [graph.edge_name(*edge) for edge in mask.nonzero().tolist()]
    return metrics.agreement(exact[mask], {n: v[mask] for n, v in values.items()}, labels=labels, **judged)


def _checked_methods(methods: Sequence[str] | Mapping[str, Mapping[str, Any]], level: str) -> dict[str, dict[str, Any]]:
    if isinstance(methods, str):
        methods = [methods]
    if isinstance(methods, Mapping):
        chosen = {name: dict(settings) for name, settings in methods.items()}
    else:
        chosen = {name: {"method": name} for name in methods}
    if not chosen:
        raise InputError("methods names no method; give at least one, such as 'eap'")
    for name, settings in chosen.items():
        if METHODS[choose(f"methods[{name!r}]", settings.get("method", name), METHODS)].path is None:
            raise InputError(f"methods names {name!r}, which patches: it is what the others are compared with")
        settings.setdefault("method", name)
        for setting in settings:
            choose(f"setting of methods[{name!r}]", setting, SETTINGS[level])
    return chosen


def _nodes(
    model: Any,
    task: Task,
    methods: dict[str, dict[str, Any]],
    shared: dict[str, Any],
    judged: dict[str, Any],
) -> AgreementTable:
    if len(task) < 2:
        raise InputError("level='node' resamples whole prompts for its intervals; give a task of at least 2 prompts")
    exact = component_scores(model, task, "exact", **shared)
    found = {name: component_scores(model, task, **settings, **shared) for name, settings in methods.items()}
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
    ranks = sizes.argsort(descending=True, stable=True).argsort()
    place = ranks.double().mean(0).argsort(stable=True).argsort() / len(edges)
    band = torch.bucketize(place, torch.tensor(BANDS[:-1], dtype=place.dtype, device="cpu"), right=True)
    sources, targets = ([_kind(name) for name in names] for names in (graph.sources, graph.targets))
    kinds = [f"{sources[s]}->{targets[t]}" for s, t in edges.tolist()]
    kind = torch.tensor(np.unique(kinds, return_inverse=True)[1], device="cpu")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(edges), generator=generator, device="cpu")
    stratum = (kind * len(BANDS) + band)[order]
    # how many of its stratum come before an edge in the random order: the lowest `n` make equal shares
    turn = torch.zeros(len(edges), dtype=torch.long, device="cpu")
    for number in stratum.unique().tolist():
        members = (stratum == number).nonzero()[:, 0]
        turn[members] = torch.arange(len(members), device="cpu")
    chosen = edges[order[turn.argsort(stable=True)[:n]]]
    mask = torch.zeros_like(graph.edge_mask)
    mask[tuple(chosen.T)] = True
    return mask


def _kind(node: str) -> str:
    """Kind of a source or target by its name: input, head, mlp; q, k, v, mlp, logits."""
    if node in ("input", "logits"):
        return node
    return "mlp" if node.startswith("m") else node[-2] if node.endswith(">") else "head"
