"""DecompX on the real MiniLM against the method authors' own code (tests/golden/README.md), and on the real SmolLM2."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attribution import decompose, tokens
from interp.encoders import load_encoder

pytestmark = pytest.mark.real

# key in the file: the options that it was made with
OPTIONS: dict[str, Any] = {
    "full": {"first_value_bias": "kept"},
    "full_GeLU_LA_tanhLA": {"first_value_bias": "kept", "activation": "tangent"},
    "full_norm": {"first_value_bias": "kept", "bias": "norm"},
    "full_layer0_consistent": {},
}


@pytest.fixture(scope="module")
def classifier(golden: Any) -> Any:
    """MiniLM with the classification head of the file, and its tokenizer."""
    model, tokenizer = load_encoder("minilm-l6", labels=2)
    head = {key.removeprefix("head."): value for key, value in golden("decompx_minilm")[0].items() if "head." in key}
    assert len(head) == 4
    unknown = model.load_state_dict(head, strict=False).unexpected_keys
    assert not unknown
    return model, tokenizer


@pytest.mark.parametrize("key", OPTIONS)
def test_contributions_to_the_classes_are_the_references(classifier: Any, golden: Any, key: str) -> None:
    model, tokenizer = classifier
    tensors, metadata = golden("decompx_minilm")
    found = decompose(model, metadata["sentences"], tokenizer=tokenizer, quiet=True, **OPTIONS[key])
    assert found.error < 1e-5
    for i, row in enumerate(found.tokens):
        expected = tensors[f"{key}.{i}.classifier"]
        assert expected.shape == (len(row), 2)
        assert (found.logits[i, : len(row)] - expected).abs().max() < 1e-4 * expected.abs().max()
        assert not found.logits[i, len(row) :].any()
        for other in set(OPTIONS) - {key}:  # the options are told apart
            theirs = tensors[f"{other}.{i}.classifier"]
            assert (expected - theirs).abs().max() > 1e-3 * expected.abs().max()


def test_lengths_in_every_layer_are_the_references(classifier: Any, golden: Any) -> None:
    model, tokenizer = classifier
    tensors, metadata = golden("decompx_minilm")
    found = decompose(model, metadata["sentences"], tokenizer=tokenizer, quiet=True, **OPTIONS["full"])
    assert found.norms is not None
    for i, row in enumerate(found.tokens):
        expected = tensors[f"full.{i}.agg_norm_layers"]
        assert expected.shape == (6, len(row), len(row))
        assert (found.norms[:, i, : len(row), : len(row)] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_contributions_sum_to_what_the_classifier_says(classifier: Any, golden: Any) -> None:
    model, tokenizer = classifier
    sentences = golden("decompx_minilm")[1]["sentences"]
    with torch.no_grad():
        logits = model(**tokenizer(sentences, padding=True, return_tensors="pt")).logits
    for bias in ("absdot", "cosine", "norm", "equal", "first", "separate"):
        found = decompose(model, sentences, tokenizer=tokenizer, bias=bias, quiet=True)
        assert (found.logits.sum(1) + found.bias - logits).abs().max() < 1e-4, bias
    scores = tokens(model, sentences, 1, "decompx", tokenizer=tokenizer, quiet=True).values
    assert torch.allclose(scores, decompose(model, sentences, tokenizer=tokenizer, quiet=True).logits[..., 1])


@pytest.mark.parametrize("gate", ["held", "halves"])
@pytest.mark.parametrize("bias", ["absdot", "separate"])
def test_contributions_sum_to_the_logits_of_a_real_language_model(smollm2: Any, bias: str, gate: str) -> None:
    prompts = ["When Mary and John went to the store, John gave a drink to", "The capital of France is"]
    found = decompose(smollm2, prompts, [(" Mary", " John"), " Paris"], bias=bias, gate=gate, quiet=True)
    for i, names in enumerate(((" Mary", " John"), (" Paris",))):
        ids = [smollm2.tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
        assert all(len(one) == 1 for one in ids)
        with torch.no_grad():
            last = smollm2(smollm2.to_tokens(prompts[i]))[0, -1]
        logit = float(last[ids[0][0]] - (last[ids[1][0]] if len(ids) == 2 else 0))
        assert float(found.logits[i].sum() + found.bias[i]) == pytest.approx(logit, abs=1e-4 * float(last.abs().max()))
    assert found.classes == [[" Mary -  John"], [" Paris"]]
