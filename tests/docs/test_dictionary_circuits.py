"""The study of a dictionary beside its layer's neurons, in small: what its page compares has the same ends."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import EAPIG
from attribution.units.nodes import scores_of_nodes
from interp import Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from tests.dictionaries import random_dictionary
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving

STUDY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "scripts" / "dictionary_circuits.py"))


@pytest.fixture(scope="module")
def halves() -> tuple[Setting, Setting]:
    model = model_of("llama")
    return Setting(model, behaving(model, 10), run=Run(quiet=True)).split(0.5, 0)


def test_a_layer_ablated_by_neurons_is_the_layer_ablated_by_features_and_their_errors(halves: Any) -> None:
    _, held_out = halves
    dictionary = random_dictionary("mlp", D_MODEL, normalization="none")
    mask = torch.ones(LAYERS, MLP, dtype=torch.bool)
    mask[dictionary.layer] = False
    neurons = held_out.measure([NodeMask(mask, "neuron")]).circuits[0]
    features = held_out.under(features=DictionarySet([dictionary], "ablated"))
    empty = features.measure([NodeMask(features.nodes("feature").full, "feature")]).empty
    assert torch.allclose(neurons, empty, atol=1e-9)


def test_the_page_has_all_sizes_of_both_and_all_neurons_are_the_model(halves: Any) -> None:
    scoring, held_out = halves
    dictionary = random_dictionary("mlp", D_MODEL, normalization="none")
    scores = scores_of_nodes(scoring, EAPIG(), "neuron").values
    assert 0 <= STUDY["busiest"]([scores, scores]) < LAYERS
    found = STUDY["compared"](scoring, held_out, scores, dictionary, (3, 20))
    whole = STUDY["compared"](scoring, held_out, scores, dictionary, (MLP - 4, dictionary.n_features))
    assert whole["features"][str(dictionary.n_features)] == whole["all features"][str(dictionary.n_features)]
    by_neurons = STUDY["compared"](scoring, held_out, scores, dictionary, (1, 2))["neurons"]
    assert set(by_neurons) == {"1", "2"}
    assert STUDY["unexplained"](dictionary, torch.randn(40, D_MODEL, generator=torch.Generator().manual_seed(0))) >= 0
    about = {"layer": 1, "tokens": 100, "steps": 5, "left": 0.5, "prompts": 5, "minutes": 0.1}
    text = STUDY["page"](about, {"agreement": found})
    assert "| 20 |" in text
    assert "on 100 tokens" in text.replace("\n", " ")
