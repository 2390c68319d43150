"""Scores of neurons against neurons really patched, as a table."""

from __future__ import annotations

import pytest
import torch

import metrics
from attribution import neurons
from circuits import agreement
from circuits.approximation import stratified
from interp.errors import InputError
from tests.oracle import mixed_task, model_of
from tests.tiny import LAYERS, MLP

METHODS = {
    "eap": {"method": "eap"},
    "ig": {"method": "eap-ig", "steps": 2},
    "relp-ah": {"method": "eap", "rules": "relp-ah"},
}
QUICK = {"resamples": 30, "quiet": True}


@pytest.mark.parametrize("ablation", ["patch", "zero", "mean"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_table_is_that_of_all_neurons_patched_one_by_one(name, ablation):
    model, task = model_of(name), mixed_task(model_of(name))
    methods = {key: how for key, how in METHODS.items() if ablation == "patch" or key != "ig"}
    found = agreement(model, task, methods, "neuron", sample=LAYERS * MLP, ablation=ablation, **QUICK)
    places = [(layer, neuron) for layer in range(LAYERS) for neuron in range(MLP)]
    kept = neurons(model, task, method="exact", only=places, ablation=ablation, quiet=True).kept
    exact = kept.groupby(["layer", "neuron"])["score"].mean().to_numpy()  # in the order of places
    scores = {}
    for key, how in methods.items():
        values = neurons(model, task, ablation=ablation, quiet=True, **{"rules": None, **how}).values
        scores[key] = values.sum(2).mean(0).flatten().numpy()
    expected = metrics.agreement(exact, scores, resamples=30)
    for column in ("method", "dropped", "n"):
        assert found.to_frame()[column].tolist() == expected.to_frame()[column].tolist()
    for column in ("pearson", "spearman", "sign"):
        assert found.to_frame()[column].tolist() == pytest.approx(expected.to_frame()[column].tolist(), abs=1e-9)


def test_the_sample_takes_every_layer_and_every_band():
    sizes, kind = torch.rand(2, 900), torch.arange(900) % 3
    chosen = stratified(sizes, kind, 90, seed=1)
    assert len(set(chosen.tolist())) == 90
    assert torch.equal(chosen, stratified(sizes, kind, 90, seed=1))
    assert torch.bincount(kind[chosen]).min() > 20


@pytest.mark.parametrize(
    ("methods", "settings", "message"),
    [
        (("acdc",), {}, "method='acdc' has no meaning for neurons"),
        (("eap",), {"dictionaries": []}, "dictionaries are for features"),
        (("exact",), {}, "which patches"),
        (("eap-ig",), {"ablation": "zero"}, "follows a path between two prompts"),
        (("eap",), {"sample": 10_000}, "sample=10000"),
        (("eap",), {"resume": "x"}, "resume is for level='edge'"),
        ({"a": {"method": "eap", "window": 3}}, {}, "setting of methods"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(methods, settings, message):
    model = model_of("llama")
    with pytest.raises(InputError, match=message):
        agreement(model, mixed_task(model), methods, "neuron", **{**QUICK, **settings})
