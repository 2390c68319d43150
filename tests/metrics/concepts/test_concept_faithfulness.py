"""Faithfulness of explanations by concepts: where the truth is known, by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attribution.concepts import explain, explain_all, tcav, train_heads
from interp import InputError, Result
from interp.concepts import ConceptImages, read_concepts
from metrics.concepts import ConceptFaithfulness, concept_effects, concept_faithfulness
from metrics.explanation.saco import salience_coefficient
from tests.planted_concepts import NAMES, draw, images, network, planted_weights, true_heads

QUIET: dict[str, Any] = {"quiet": True}
HELD_OUT = images(60, 40)


def test_removing_a_concept_moves_its_logit_to_the_mean_and_the_network_runs_on() -> None:
    heads, model = true_heads(), network()
    found = concept_effects(model, heads, HELD_OUT, batch_size=13, **QUIET)
    reading = read_concepts(model, heads, HELD_OUT, **QUIET)
    channels = HELD_OUT.images.mean((2, 3))
    for concept in (1, 3):
        moved = channels.clone()
        moved[:, concept] = (heads.means[concept] + 2) / 4  # of the head's logit, 4 x - 2
        logits = model[3].bias + moved @ planted_weights().T  # type: ignore[operator]
        after = logits.log_softmax(1).gather(1, reading.decisions[:, None])[:, 0]
        before = reading.logits.log_softmax(1).gather(1, reading.decisions[:, None])[:, 0]
        np.testing.assert_allclose(found[:, concept], (before - after).numpy(), atol=1e-9)
    assert np.abs(found[:, 3]).max() < 1e-9  # which the network does not use


def test_figures_by_hand() -> None:
    one = explain(network(), true_heads(), images(), 2, inputs="labels", **QUIET)
    found = concept_faithfulness(network(), true_heads(), HELD_OUT, [one], n_random=0, **QUIET)
    (row,) = found.to_frame().to_dict("records")
    reading = read_concepts(network(), true_heads(), HELD_OUT, **QUIET)
    predicted, logits = one.predict(reading), reading.logits
    assert row["agreement"] == pytest.approx(float((predicted.argmax(1) == logits.argmax(1)).double().mean()))
    error, spread = ((logits - other).pow(2).sum() for other in (predicted, logits.mean(0)))
    assert row["explained"] == pytest.approx(1 - float(error / spread))
    effects, salience = concept_effects(network(), true_heads(), HELD_OUT, **QUIET), one.salience(reading).numpy()
    by_hand = [salience_coefficient(s, d, tolerance=1e-9)[0] for s, d in zip(salience, effects, strict=True)]
    assert row["saco"] == pytest.approx(np.nanmean(by_hand))
    for name in ("agreement", "explained", "saco"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert np.isnan(row["random_saco"])


def test_the_true_explanation_is_faithful_and_beats_fewer_concepts_and_random_ones() -> None:
    every = explain_all(
        network(), true_heads(), images(), [1, 3], inputs=["logits"], targets=["logits"], n_random=3, **QUIET
    )
    every.append(tcav(network(), "0", images(), epochs=5, **QUIET))
    found = concept_faithfulness(network(), true_heads(), HELD_OUT, every, **QUIET)
    frame = found.to_frame()
    own, random = frame[~frame["control"]], frame[frame["control"]]
    few, true, other = own.to_dict("records")
    assert true["agreement"] == 1
    assert true["explained"] == pytest.approx(1)
    assert true["saco"] == pytest.approx(1)
    assert true["random_saco_high"] < 0.5
    assert true["saco_gain_low"] > 0
    assert few["explained"] < 0.9
    assert few["agreement"] < 1
    assert (random["explained"] <= own["explained"].iloc[:2].max()).all()
    assert random["saco"].max() < true["saco"]
    assert np.isnan(other["agreement"])
    pairs = found.disagreement()
    assert pairs["size"].tolist() == [1, 3]  # with TCAV, which has all concepts
    assert pairs["correlation"].between(-1, 1).all()
    assert {trace.name for trace in found.figure().data} >= {"logits from logits", "TCAV"}
    assert "agreement 1.000" in found.headline()


def test_a_result_is_read_as_it_was_written(tmp_path: Any) -> None:
    one = explain(network(), true_heads(), images(), 2, **QUIET)
    found = concept_faithfulness(network(), true_heads(), HELD_OUT, one, n_random=1, resamples=50, **QUIET)
    read = Result.load(found.save(tmp_path / "found.json"))
    assert isinstance(read, ConceptFaithfulness)
    assert read == found
    again = concept_faithfulness(network(), true_heads(), HELD_OUT, [one], n_random=1, resamples=50, **QUIET)
    assert again == found


def dependent() -> Any:
    """Nine heads of eight features."""
    data = ConceptImages(images().images, torch.cat((images().concepts, draw(120, 1, seed=9) > 0), 1), (*NAMES, "more"))
    return train_heads(network(), "0", data, epochs=2, **QUIET), data


def test_what_cannot_be_is_refused() -> None:
    heads, data = dependent()
    with pytest.raises(InputError, match="heads of 9 concepts over 8 features depend on each other"):
        concept_effects(network(), heads, data, **QUIET)
    one = explain(network(), true_heads(), images(), 2, **QUIET)
    for given, words in (
        ([], "explanations is empty"),
        ([len], "explanations holds a builtin_function_or_method"),
    ):
        with pytest.raises(InputError, match=words):
            concept_faithfulness(network(), true_heads(), HELD_OUT, given, **QUIET)
    with pytest.raises(InputError, match=r"explanations has the concepts c0, .*, the heads"):
        concept_faithfulness(network(), heads, data, [one], **QUIET)
    with pytest.raises(InputError, match="keyword of concept_effects='seed' is unknown"):
        concept_effects(network(), true_heads(), HELD_OUT, seed=1)
