"""Scores over the nodes of a level by any method that has a meaning for them, as `Scores`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.gradient import EAP, GradientMethod
from attribution.edges.mask_ig import MaskIG
from attribution.edges.method import Method, Passes, check_objective
from attribution.edges.patched import ActivationPatching, Exact
from attribution.inside import AT_THE_CIRCUIT
from attribution.scores import Scores
from attribution.sparse.nodes import mean_feature_scores
from attribution.units.explain import for_units
from attribution.units.scoring import mean_expert_scores, mean_neuron_scores
from attribution.units.weights import full_circuit, inside_node_scores
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.node_mask import NodeMask, Spans, node_masks
from interp.selection.nodes import countable
from interp.setting import Setting

Engine = Callable[[], tuple[Tensor, dict[str, Any]]]  # scores, and what is told of how they were made
_MEANS = {"neuron": mean_neuron_scores, "expert": mean_expert_scores, "feature": mean_feature_scores}
_AT_ONCE = 256  # circuits that each lack one node, measured together


def scores_of_nodes(setting: Setting, method: Method, level: str, spans: Spans = None) -> Scores:
    """What each node of a level is worth: means over prompts.

    Gradient methods score neurons as `attribution.neurons` does, an expert by the sum over its neurons, and features as
    `attribution.features`, summed over positions or at each of `spans`, and heads and MLPs as `attribute` does.
    `mask-ig`, and `eap` with `inside`, take gradients at nodes' weights (`attribution.units.weights`); `exact` patches
    each node alone. The last three score all levels and spans, but not mixtures by weights of neurons or experts.

    Raises `InputError` for methods without a meaning for the level.
    """
    started = time.perf_counter()
    features = setting.features if level == "feature" else None
    values, beside = _engine(setting, method, level, spans)()
    beside |= {} if features is None else features.to_dict()
    return Scores(
        values=values.to(torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32),
        graph=setting.graph,
        method=method.name,
        level=level,
        spans=spans,
        ablation=str(setting.ablation),
        settings={"kv": setting.kv, "objective": setting.goal.name, **method.settings(), **beside},
        dictionaries=None if features is None else features.dictionaries,
        task=setting.task.to_dict(),
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
        n_prompts=len(setting),
        goal=setting.goal,
        constants=setting.fitted,
    )


def check_nodes(setting: Setting, method: Method, level: str, spans: Spans = None) -> None:
    """Raise what scoring nodes would refuse, without a pass."""
    setting.nodes(level, spans)  # refuses missing dictionaries and positions that are not there
    _engine(setting, method, level, spans)


def passes_of_nodes(method: Method, graph: ComputationalGraph, count: int) -> Passes:
    """What scoring `count` nodes costs, in passes per prompt; NaN where nobody knows."""
    if isinstance(method, Exact | ActivationPatching):
        return Passes(count, 0)
    if isinstance(method, MaskIG):
        return Passes(method.steps + 2, method.steps)
    return method.passes(graph)


def _engine(setting: Setting, method: Method, level: str, spans: Spans) -> Engine:
    """What computes them, once all that could be refused has been."""
    if getattr(method, "positions", None) is not None:
        raise InputError(
            f"method={method.name!r} carries positions, which are those of edges; of {level}s give positions to "
            "find_circuit, and none to the method"
        )
    if isinstance(method, Exact | ActivationPatching):
        return lambda: (_patched(setting, level, spans), {})
    inside = getattr(method, "inside", None)
    if isinstance(method, MaskIG) or (isinstance(method, EAP) and inside is not None):
        return _by_weights(setting, method, inside, level, spans)
    if level in _MEANS:
        by_gradients = for_units(method, f"{level}s")
        assert isinstance(by_gradients, GradientMethod)
        by_gradients.check(setting)
        told = by_gradients.backward(setting)
        rules = {"rules": told.to_dict()} if told.rules else {}
        mean_scores = _MEANS[level]
        return lambda: (mean_scores(setting, by_gradients, spans), rules)
    if spans is not None:
        raise InputError(
            f"method={method.name!r} scores heads and MLPs at all positions together; positions are told apart by "
            "'mask-ig' and 'exact'"
        )
    if "level" not in {item.name for item in fields(method)}:  # type: ignore[arg-type]
        raise InputError(f"method={method.name!r} scores edges alone; use 'eap-ig', 'mask-ig' or 'exact'")
    of_nodes = replace(method, level="node")  # type: ignore[type-var]
    of_nodes.check(setting)
    return lambda: _by_graph(setting, of_nodes, level)


def _by_graph(setting: Setting, method: Method, level: str) -> tuple[Float[Tensor, "*axes"], dict[str, Any]]:
    found, graph = method.scores(setting), setting.graph
    beside = {name: found.settings[name] for name in ("rules",) if name in found.settings}
    if level == "node":
        return found.values, beside
    return torch.stack([found.values[graph.head_sources(layer)] for layer in range(graph.n_layers)]), beside


def _by_weights(setting: Setting, method: MaskIG | EAP, inside: Any, level: str, spans: Spans) -> Engine:
    if isinstance(method, EAP):
        method.refuse_rules(f"{level}s")
    points = method.points if isinstance(method, MaskIG) else AT_THE_CIRCUIT
    circuit = full_circuit(setting, level, spans)
    if inside is not None:
        (circuit,) = node_masks(inside, None if hasattr(inside, "level") else level, spans) or [circuit]
        if (circuit.level, circuit.spans) != (level, spans):
            raise InputError(f"inside is a circuit of {circuit.level}s and other positions than those that are scored")
    whole = inside is None and points is AT_THE_CIRCUIT
    check_objective(setting.goal, method.name, whole)
    beside = {} if inside is None else {"nodes_inside": circuit.n_nodes}
    return lambda: (inside_node_scores(setting, circuit, points), beside)


def _patched(setting: Setting, level: str, spans: Spans) -> Float[Tensor, "*axes"]:
    """How much the objective falls without each node alone: a forward pass for each.

    Features that the ablation leaves as they are, being active nowhere, score 0 without one.
    """
    full = full_circuit(setting, level, spans).mask
    values = torch.zeros(full.shape, dtype=torch.float64, device="cpu")
    moved = full
    if level == "feature":
        norms = setting.node_norms(level)
        moved = full & (norms if spans is None else norms[:, None]).ne(0)
    places = countable(full, level, moved)
    for some in places.split(_AT_ONCE):
        masks = []
        for place in some:
            mask = full.clone()
            mask.view(-1)[place] = False
            masks.append(NodeMask(mask, level, spans))
        found = setting.measure(masks)
        values.view(-1)[some] = (found.clean - found.circuits).double().mean(1)
    return values
