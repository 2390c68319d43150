"""Scores of heads and of features against each of them really ablated alone, as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution import attribute, features
from circuits import agreement
from interp import InputError
from metrics import evaluate
from tests.dictionaries import UNEQUAL, unequal
from tests.oracle import mixed_task, model_of
from tests.tiny import D_MODEL, HEADS, LAYERS

METHODS = {"eap": {"method": "eap"}, "ig": {"method": "eap-ig", "steps": 2}}
QUICK: dict[str, Any] = {"resamples": 30, "quiet": True}
UNITS = unequal(D_MODEL)


def assert_same(found: Any, exact: np.ndarray, scores: dict[str, np.ndarray]) -> None:
    expected = metrics.agreement(exact, scores, resamples=30).to_frame()
    assert found.to_frame()[["method", "dropped", "n"]].equals(expected[["method", "dropped", "n"]])
    for column in ("pearson", "spearman", "sign"):
        assert found.to_frame()[column].tolist() == pytest.approx(expected[column].tolist(), abs=1e-9)


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_heads_are_compared_with_each_alone_ablated(ablation: str) -> None:
    model, task = model_of("llama"), mixed_task(model_of("llama"))
    methods = {key: how for key, how in METHODS.items() if ablation == "patch" or key != "ig"}
    found = agreement(model, task, methods, "head", ablation=ablation, **QUICK)
    full = torch.ones(LAYERS, HEADS, dtype=torch.bool)
    told: dict[str, Any] = {"ablation": ablation, "quiet": True}
    whole, exact = evaluate(model, task, full, level="head", **told).mean(), []
    for place in range(full.numel()):
        less = full.clone()
        less.view(-1)[place] = False
        exact.append(float(whole - evaluate(model, task, less, level="head", **told).mean()))
    scores = {}
    for key, how in methods.items():
        values = attribute(model, task, level="node", **told, **how).values[1:]  # [input, heads and the MLP of a layer]
        scores[key] = values.view(LAYERS, HEADS + 1)[:, :-1].flatten().numpy()
    assert_same(found, np.array(exact), scores)


@pytest.mark.parametrize("errors", ["kept", "nodes"])
def test_features_are_compared_with_each_alone_patched(errors: str) -> None:
    model, task = model_of("llama"), mixed_task(model_of("llama"))
    count = sum(UNEQUAL) + (len(UNITS) if errors == "nodes" else 0)
    found = agreement(model, task, METHODS, "feature", sample=count, dictionaries=UNITS, errors=errors, **QUICK)
    places = []
    for number, one in enumerate(UNITS):  # an error stands behind the features
        places += [(number, feature) for feature in range(one.n_features)]
        places += [(number, -1)] if errors == "nodes" else []
    kept = features(model, task, UNITS, method="exact", only=places, quiet=True).kept
    means = kept.groupby(["dictionary", "feature"])["score"].mean()
    exact = np.array([means[place] for place in places])
    scores = {}
    for key, how in METHODS.items():
        one = features(model, task, UNITS, quiet=True, **how)
        values, left = one.values.sum(2).mean(0), one.errors.sum(2).mean(0)
        scores[key] = np.array([float(values[d, f]) if f >= 0 else float(left[d]) for d, f in places])
    assert_same(found, exact, scores)


@pytest.mark.parametrize(
    ("level", "methods", "settings", "message"),
    [
        ("head", ("exact",), {}, "which patches"),
        ("head", ("eap",), {"resume": "x"}, "resume is for level='edge'"),
        ("head", ("eap",), {"dictionaries": UNITS}, "dictionaries are for features"),
        ("feature", ("eap",), {}, "dictionaries"),
        ("feature", ("acdc",), {"dictionaries": UNITS}, "has no meaning for features"),
        ("feature", ("eap",), {"dictionaries": UNITS, "sample": 10_000}, "sample=10000"),
        ("heads", ("eap",), {}, "did you mean 'head'"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(level: Any, methods: Any, settings: dict[str, Any], message: str) -> None:
    model = model_of("llama")
    with pytest.raises(InputError, match=message):
        agreement(model, mixed_task(model), methods, level, **{**QUICK, **settings})
