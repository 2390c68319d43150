"""Figures of dictionaries made by hand, against transformers' own loss with the reconstruction hooked in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from interp import InputError
from interp.dictionaries import Dictionary, capture_activations
from metrics import DictionaryQuality
from tests.dictionaries import random_dictionary
from tests.tiny import D_MODEL, VOCAB, shared

IDS = torch.randint(VOCAB, (5, 8), generator=torch.Generator().manual_seed(0))
EYE = torch.eye(D_MODEL, dtype=torch.float64)


def quality(dictionary: Dictionary, ids: torch.Tensor = IDS, **settings: Any) -> DictionaryQuality:
    return metrics.dictionary_quality(shared("llama"), dictionary, ids, quiet=True, resamples=50, **settings)


def both_signs(**settings: Any) -> Dictionary:
    """A dictionary that loses nothing: a feature for each direction of each sign."""
    return Dictionary.from_tensors(1, "mlp", torch.cat((EYE, -EYE)), None, torch.cat((EYE, -EYE)), None, **settings)


def test_nothing_lost_and_everything_lost() -> None:
    found = quality(both_signs())
    assert found.rise.value == pytest.approx(0, abs=1e-10)
    assert found.recovered.value == found.explained.value == pytest.approx(1)
    assert found.active.value == D_MODEL
    assert (found.dead.value, found.dense.value) == (0, 1)
    mean = capture_activations(shared("llama"), IDS, 1, "mlp")[1].view(5, 8, -1)[:, 1:].mean((0, 1))
    constant = Dictionary.from_tensors(1, "mlp", 0 * EYE[:1], None, 0 * EYE[:1], mean)
    lost = quality(constant)
    assert lost.rise == lost.rise_of_mean
    assert (lost.recovered.value, lost.explained.value) == (pytest.approx(0), pytest.approx(0))
    assert lost.dead.value == 1


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("place", ["mlp", "residual", "transcoder"])
def test_figures_are_those_of_the_module_with_hooks(place: str, first: int) -> None:
    model, one = shared("llama"), random_dictionary(place, D_MODEL)
    found = quality(one, first=first, batch_size=2)
    module = model.original_model
    read, written = (
        part.view(*IDS.shape, -1)[:, first:]
        for part in capture_activations(model, IDS, one.layer, one.site, reads=one.reads, writes=one.writes)
    )
    features = one.encode(read)
    left = (written - one.decode(features, read)).square().sum()
    explained = 1 - left / (written - written.mean((0, 1))).square().sum()
    assert found.explained.value == pytest.approx(float(explained))
    on = (features > 0).double()
    torch.testing.assert_close(found.frequency, on.mean((0, 1)))
    assert found.active.value == pytest.approx(float(on.sum(-1).mean()))
    assert found.dense.value == pytest.approx(float((on.mean((0, 1)) > 0.1).double().mean()))
    block = module.model.layers[one.layer]
    part = block if place == "residual" else block.mlp

    def instead(_: Any, given: Any, out: Any) -> Any:
        source = given[0] if place == "transcoder" else out
        return one.decode(one.encode(source), source)

    with torch.no_grad():
        clean = loss(module(IDS).logits, first)
        handle = part.register_forward_hook(instead)
        spliced = loss(module(IDS).logits, first)
        handle.remove()
    assert found.cross_entropy.value == pytest.approx(clean)
    assert found.rise.value == pytest.approx(spliced - clean)
    assert found.rise.low < found.rise.value < found.rise.high


def loss(logits: torch.Tensor, first: int) -> float:
    return float(torch.nn.functional.cross_entropy(logits[:, first:-1].flatten(0, 1), IDS[:, first + 1 :].flatten()))


def test_planted_features_are_dead_dense_and_fake(tmp_path: Path) -> None:
    """Of the embedding: a feature for a token that is every third, one for nothing, one for half of all tokens."""
    words = shared("llama").original_model.model.embed_tokens.weight.detach()
    toward = words[5] / words[5].norm().square()  # 1 at token 5
    reach = words @ toward
    below = torch.tensor([0.999, 1e6, 0.0])
    one = Dictionary.from_tensors(
        0, "embedding", torch.stack((toward, toward, -toward)), None, words[:3], None, threshold=below
    )
    ids = torch.full((4, 12), int(reach.argmin()))
    ids[:, ::3] = 5
    found = quality(one, ids)
    torch.testing.assert_close(found.frequency, torch.tensor([3 / 11, 0, 8 / 11], dtype=torch.float64))
    assert (found.dead.value, found.dense.value) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    expected = torch.stack(((reach > 0.999).double().mean(), torch.zeros(()).double(), (reach < 0).double().mean()))
    torch.testing.assert_close(found.random_frequency, expected, rtol=0, atol=0.25)
    assert found.random_frequency[1] == 0
    assert found.fake.value == pytest.approx(float((found.random_frequency > 0.1).double().mean()))
    assert not torch.equal(quality(one, ids, seed=1).random_frequency, found.random_frequency)
    again = DictionaryQuality.load(found.save(tmp_path / "quality.json"))
    assert torch.equal(again.frequency, found.frequency)
    assert again.to_frame()["what"].tolist()[:2] == ["cross_entropy", "rise"]
    assert len(again.figure().data) == 2


def test_bad_input_is_refused() -> None:
    for change, message in (
        ({"dictionary": "sae"}, "dictionary is a str"),
        ({"dictionary": both_signs(model="gpt2-large"), "first": 7}, "rows of 8; with first=7"),
        ({"dictionary": both_signs(), "ids": IDS + VOCAB}, "tokens holds ids"),
        ({"dictionary": both_signs(), "threshold": 1.0}, "threshold=1.0 must be"),
    ):
        with pytest.raises(InputError, match=message):
            quality(**change)
