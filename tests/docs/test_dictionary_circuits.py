"""The study of a dictionary beside its layer's neurons, in small: what its page compares has the same ends."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
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
    about = {"layer": 1, "tokens": 100, "steps": 5, "prompts": 5, "minutes": 0.1}
    about |= {"whole": 0.5, "left": 0.3, "median": 0.4, "new": 0.6, "count": 9, "own": 0.2, "distinct": 30}
    text = STUDY["page"](about, {"agreement": found})
    assert "| 20 |" in text
    assert "on 100 tokens" in text.replace("\n", " ")


def test_training_reads_no_prompt_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [f"the <{i}> of many" for i in range(98)]  # four words each, without two of them six rows
    numbers: dict[str, int] = {}
    words = SimpleNamespace(
        tokenizer=lambda text: {"input_ids": [numbers.setdefault(word, len(numbers)) for word in text.split()]}
    )
    monkeypatch.setitem(STUDY["text_of"].__globals__, "prompts_of", lambda model, names: said)
    rows = STUDY["text_of"](words, 64 * 18, {said[3], said[70]})
    read = set(rows.flatten().tolist())
    assert [i for i in range(98) if numbers.get(f"<{i}>") not in read] == [3, 70]
    assert len(rows) == 18
    first = {tuple(row) for row in rows[:, :4].tolist()}
    assert len(first) > 12  # the manual and the pages are there, too


def test_what_is_left_is_told_of_first_tokens_and_of_new_ones_apart():
    dictionary = random_dictionary("mlp", D_MODEL, normalization="none")
    read = torch.randn(5, 4, D_MODEL, generator=torch.Generator().manual_seed(0))
    new = torch.zeros(5, 4, dtype=torch.bool)
    new[2, 1:3] = new[4, 0] = True
    left = STUDY["unexplained"](dictionary, read)
    own = read[:, 1:].flatten(0, 1)
    rest, spread = (
        (one).square().sum(1) for one in (own - dictionary.decode(dictionary.encode(own)), own - own.mean(0))
    )
    assert left["left"] == pytest.approx(float(rest.sum() / spread.sum()), rel=1e-4)
    assert left["median"] == pytest.approx(float((rest / spread).median()), rel=1e-4)
    assert STUDY["new_left"](dictionary, read, new) == pytest.approx(
        float(rest[6:8].sum() / spread[6:8].sum()), rel=1e-4
    )
    read[:, 0] *= 1e4
    read[0, 0] *= -1
    huge = STUDY["unexplained"](dictionary, read)
    assert huge["left"] == pytest.approx(left["left"], rel=1e-4)
    assert huge["whole"] != pytest.approx(left["whole"], rel=1e-2)
