"""Encoders that read their padding: each input is scored as if it came alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from attribution import tokens
from attribution.inputs.kinds import explained_of
from interp.errors import InputError
from metrics import saco
from metrics.explanation.baselines import Delete
from tests.oracle import error

ROWS = [[2, 9, 27, 14, 5, 44, 3], [2, 7, 3], [11, 4], [2, 12, 13, 40, 3]]
TARGETS = [0, 2, 1, 1]
_SIZES = {
    "vocab_size": 47, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 20, "pad_token_id": 1, "num_labels": 3,
}  # fmt: skip
_MORE = {
    "ConvBert": {"embedding_size": 16, "conv_kernel_size": 5},
    "Nystromformer": {},
    "FNet": {},
    "MobileBert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "Bert": {},
}
LEAKY = ("ConvBert", "Nystromformer", "FNet", "MobileBert")


@functools.cache
def made(name: str, **more: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(**_SIZES, **_MORE[name], **more)
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * (
            0.15 if name == "MobileBert" else 0.3
        )  # no norms
        parameter.data = noise + (parameter.ndim == 1 and key.endswith("weight"))
    return model.double().eval()


def alone(model: Any, row: list[int]) -> tuple[Tensor, Tensor]:
    """Logits and gradient times input of a row, by the model itself."""
    target = TARGETS[ROWS.index(row)]
    x = model.get_input_embeddings()(torch.tensor([row])).detach().requires_grad_()
    logit = model(inputs_embeds=x).logits[0, target]
    return logit.detach(), (x * torch.autograd.grad(logit, x)[0])[0].sum(-1).detach()


@pytest.mark.parametrize("name", LEAKY)
def test_padding_does_not_leak_into_scores(name: str) -> None:
    model = made(name)
    found = tokens(model, ROWS, TARGETS, "gradient-x-input", quiet=True)
    integrated = tokens(model, ROWS, TARGETS, "integrated-gradients", steps=3, quiet=True)
    for n, row in enumerate(ROWS):
        logit, values = alone(model, row)
        assert float(found.logits[n]) == pytest.approx(float(logit), rel=1e-9)
        assert error(found.values[n, : len(row)], values) < 1e-9
        one = tokens(model, [row], TARGETS[n], "integrated-gradients", steps=3, quiet=True)
        assert error(integrated.values[n, : len(row)], one.values[0]) < 1e-9


def test_attention_of_each_length_is_the_models_own() -> None:
    found = tokens(made("MobileBert"), ROWS, TARGETS, "attention-rollout", quiet=True)
    for n, row in enumerate(ROWS):
        one = tokens(made("MobileBert"), [row], TARGETS[n], "attention-rollout", quiet=True)
        assert error(found.values[n, : len(row)], one.values[0]) < 1e-9


def test_only_leaky_models_are_run_length_by_length() -> None:
    assert [name for name in _MORE if explained_of(made(name)).leaks] == list(LEAKY)


def test_a_classifier_that_cannot_be_run_is_refused_with_its_reason() -> None:
    with pytest.raises(InputError, match="NystromformerForSequenceClassification cannot be run on 7 tokens: shape"):
        tokens(made("Nystromformer", num_landmarks=4), ROWS, quiet=True)


@pytest.mark.parametrize("name", ["Bert", "ConvBert"])
def test_deleted_tokens_may_be_padding_only_where_the_model_ignores_it(name: str) -> None:
    model, ids = made(name), torch.tensor(ROWS[:1])

    def predict(ids: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=ids != 1).logits.softmax(-1)

    salience = torch.arange(7.0)[None]
    if name == "Bert":
        assert -1 <= saco(predict, ids, salience, 2, baseline=Delete(1), quiet=True).values[0] <= 1
        return
    with pytest.raises(InputError, match=r"baseline=Delete\(1\), but the model does not ignore that token"):
        saco(predict, ids, salience, 2, baseline=Delete(1), quiet=True)
