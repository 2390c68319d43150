"""torch's default dtype and device change nothing: every tensor that is made here says its own."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metrics
from attribution import (
    TOKEN_METHODS,
    Schedule,
    attribute,
    component_scores,
    edge_pruning,
    feature_edges,
    features,
    tokens,
)
from circuits import Stable, find_circuit, stability, trace
from circuits.candidates import noise
from circuits.planted import models as planted
from circuits.planted.programs import PROGRAMS
from interp.arrays import as_tensor
from interp.dictionaries import splice, train_dictionary
from interp.graph import ComputationalGraph
from interp.selection import top_n
from metrics.circuit.samples import random_circuit
from metrics.explanation.masked import mask_random
from tests.dictionaries import random_dictionary
from tests.tiny import D_MODEL, behaving, mostly_slow, tiny

ROOT = Path(__file__).parents[2]
IDS = [[1, 5, 9, 13, 20], [1, 7, 30]]
DICTIONARIES = [random_dictionary("residual", D_MODEL), random_dictionary("transcoder", D_MODEL, skip=True)]
GRAPH = ComputationalGraph(2, 4, 2)

# functions that put what they make on the default device
MAKERS = {
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
}
# and that in the default dtype, whatever they are given
FLOATS = {"empty", "eye", "linspace", "logspace", "ones", "rand", "randn", "zeros"}


@contextlib.contextmanager
def default(dtype: torch.dtype = torch.float32, device: str | None = None) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device) if device else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


DEFAULTS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64},
    "float16": {"dtype": torch.float16},
    "meta": {"device": "meta"},  # no value can be read from a tensor that has come to lie there
}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama", torch.float32)


def scores(model: Any) -> Tensor:
    return noise(ComputationalGraph.of(model).edge_mask, 1)


def mask(model: Any) -> Tensor:
    return top_n(scores(model), ComputationalGraph.of(model), 40)


def classifier(inputs: Tensor) -> Tensor:
    weights = torch.tensor([[1.0, -0.5, 0.25, 2.0], [-1.0, 0.5, 0.1, -2.0]], dtype=torch.float32, device="cpu")
    return (inputs @ weights.T).softmax(-1)


def inputs() -> Tensor:
    return torch.arange(24, dtype=torch.float32, device="cpu").sin().reshape(6, 4)


def net() -> nn.Module:
    with torch.device("cpu"):
        made = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).float().eval()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = torch.arange(parameter.numel(), device="cpu").add(i).float().sin().reshape(parameter.shape)
    return made


def flat(found: Any) -> list[np.ndarray[Any, Any]]:
    """The numbers of a result, without times."""
    if isinstance(found, Tensor):
        return [found.detach().double().numpy()]
    if isinstance(found, (list, tuple)):
        return [array for one in found for array in flat(one)]
    frame = found.to_frame() if hasattr(found, "to_frame") else found
    numbers = frame.select_dtypes("number")
    return [numbers[[name for name in numbers if "seconds" not in name]].to_numpy(dtype=float)]


def learn(train: Any, validation: Any, seed: int) -> nn.Module:
    made = nn.Linear(4, 2, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        made.weight.copy_(torch.stack([train[0][train[1] == label].mean(0) for label in (0, 1)]))
        made.bias.zero_()
    return made


def roar() -> Any:
    x = inputs().repeat(4, 1) + torch.arange(24, dtype=torch.float32, device="cpu")[:, None].cos()
    data = dict.fromkeys(("train", "validation", "test"), (x, (x[:, 0] > 0).long()))
    explain = {"size": lambda model, given, labels, seed: given.abs()}
    return metrics.recursive_roar(learn, data, explain, seeds=2, ratios=(0.5, 1.0), quiet=True).curves


SHARED: dict[str, Any] = {"quiet": True}
CLASSIFIED: dict[str, Any] = {"target": 0, "baseline": "zero"}
EXPLAIN = {"true": lambda given: given.abs(), "noisy": lambda given: given.cos()}

# what is asked of the tiny model and a task, by name
ON_MODELS: dict[str, Callable[[Any, Any], Any]] = {
    **{
        f"tokens {method}": lambda model, task, method=method: tokens(model, IDS, method=method, **SHARED).values
        for method in TOKEN_METHODS.names()
    },
    **{
        f"edges {method}": lambda model, task, method=method: attribute(model, task, method, **SHARED).values
        for method in ("eap", "eap-ig", "eap-ig-activations", "mask-ig", "clean-corrupted", "attnlrp", "gim", "decompx")
    },
    "sampled exact edges": lambda model, task: attribute(model, task, "exact", sample=5, seed=1, **SHARED).values,
    "patched nodes": lambda model, task: attribute(model, task, "activation-patching", **SHARED).values,
    "mean ablation": lambda model, task: attribute(model, task, "mask-ig", ablation="mean", **SHARED).values,
    "components": lambda model, task: component_scores(model, task, **SHARED),
    "edge pruning": lambda model, task: edge_pruning(model, task, 20, schedule=Schedule(steps=3), **SHARED).values,
    "circuit": lambda model, task: find_circuit(
        model, task, method="eap", edges=20, stable=Stable(resamples=4), **SHARED
    ),
    "stability": lambda model, task: stability(model, task, method="eap", edges=20, resamples=4, **SHARED),
    "curve": lambda model, task: metrics.faithfulness_curve(model, task, scores(model), n_random=2, **SHARED),
    "saco of circuits": lambda model, task: metrics.circuit_saco(model, task, scores(model), n_random=2, **SHARED),
    "tests": lambda model, task: metrics.circuit_tests(model, task, mask(model), **SHARED),
    "completeness": lambda model, task: metrics.completeness(model, task, mask(model), **SHARED),
    "minimality": lambda model, task: metrics.minimality(model, task, mask(model), **SHARED),
    "output": lambda model, task: metrics.output_agreement(model, task, mask(model), **SHARED),
    "trace": lambda model, task: trace(model, IDS[0], top=5, **SHARED).adjacency,
    "features": lambda model, task: features(model, task, DICTIONARIES, ablation="mean", steps=2, **SHARED).values,
    "patched features": lambda model, task: features(
        model, task, DICTIONARIES, method="exact", only=[(1, 3)], **SHARED
    ),
    "feature edges": lambda model, task: feature_edges(model, task, DICTIONARIES, [(1, 4, 3)], keep=5, **SHARED),
    "splice": lambda model, task: splice(model, task.prompts(model).clean, DICTIONARIES).logits,
}

# what is drawn or measured without one
WITHOUT: dict[str, Callable[[], Any]] = {
    "noise": lambda: noise(GRAPH.edge_mask, 3),
    "random circuit": lambda: random_circuit(GRAPH, 40, 3),
    "planted": lambda: [list(program.pairs(8, torch.Generator().manual_seed(0))) for program in PROGRAMS.values()],
    "masked": lambda: mask_random(
        torch.arange(40, device="cpu").reshape(2, 20),
        torch.ones(2, 20, dtype=torch.bool, device="cpu"),
        0.5,
        0,
        torch.Generator().manual_seed(0),
    ),
    "training": lambda: train_dictionary(inputs(), 0, "residual", 8, 2, steps=3).W_dec,
    "saco": lambda: metrics.saco(classifier, inputs(), inputs().abs(), groups=3, **CLASSIFIED),
    "removal": lambda: metrics.removal_curves(
        classifier, inputs(), inputs().abs(), fractions=3, n_random=2, **CLASSIFIED
    ),
    "erasure": lambda: metrics.erasure(classifier, inputs(), inputs().abs(), n_random=2, **CLASSIFIED),
    "noise in place": lambda: metrics.saco(classifier, inputs(), inputs().abs(), groups=3, target=0, baseline="noise"),
    "randomisation": lambda: metrics.randomisation(
        net(), inputs(), lambda model, given, target: given * model(given)[:, :1].detach(), target=0
    ),
    "sensitivity": lambda: metrics.sensitivity(classifier, inputs(), lambda given, target: given * given, target=0),
    "roar": roar,
    "planted model": lambda: list(planted.load("induction", n=2).model.state_dict().values()),
    "lists": lambda: as_tensor([[0.1, 0.7], [2.0, 3.0]]),
}


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, 8)


def same(run: Callable[[], Any], setting: dict[str, Any]) -> None:
    expected = flat(run())
    with default(**setting):
        found = flat(run())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


SETTINGS = mostly_slow(DEFAULTS, {"meta"}.__contains__)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ON_MODELS)
def test_results_over_models_are_the_same_under_other_defaults(name: str, setting: str, model: Any, task: Any) -> None:
    same(lambda: ON_MODELS[name](model, task), DEFAULTS[setting])


@pytest.mark.parametrize("setting", DEFAULTS)
@pytest.mark.parametrize("name", WITHOUT)
def test_draws_and_metrics_are_the_same_under_other_defaults(name: str, setting: str) -> None:
    same(WITHOUT[name], DEFAULTS[setting])


def makers(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that put what they make on the default device."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("torch"), attr=name)) if name in MAKERS:
                yield node


@pytest.mark.parametrize("package", ["interp", "attribution", "circuits", "metrics"])
def test_every_tensor_that_is_made_says_its_device_and_dtype(package: str) -> None:
    lacking = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for call in makers(ast.parse(path.read_text(encoding="utf-8"))):
            assert isinstance(call.func, ast.Attribute)
            named, name = {word.arg for word in call.keywords}, call.func.attr
            numbers = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
            by_default = name in FLOATS or (name != "as_tensor" and any(isinstance(one, float) for one in numbers))
            if "device" not in named or (by_default and "dtype" not in named):
                lacking.append(f"{path.relative_to(ROOT)}:{call.lineno}: torch.{name}")
    assert lacking == []
