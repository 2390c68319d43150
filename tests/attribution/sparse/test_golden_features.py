"""Sparse feature circuits' effects on a tiny GPT-NeoX, by the authors' own code (tests/golden/README.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import Dictionary, features
from interp import Task, load_model
from interp.objectives import Objective

SITES: dict[str, dict[str, Any]] = {
    "embed": {"layer": 0, "site": "embedding"},
    "attn_0": {"layer": 0, "site": "attention"},
    "mlp_0": {"layer": 0, "site": "mlp"},
    "resid_0": {"layer": 0, "site": "residual"},
    "attn_1": {"layer": 1, "site": "attention"},
    "mlp_1": {"layer": 1, "site": "mlp"},
    "resid_1": {"layer": 1, "site": "residual"},
}


def change(logits: Tensor, prompts: Any, clean: Tensor | None) -> Tensor:
    """What the clean answer has over the other's: less than their metric, which rises towards the patch."""
    rows = torch.arange(len(logits))
    return logits[rows, prompts.correct[:, 0]] - logits[rows, prompts.incorrect[:, 0]]


@pytest.fixture(scope="module")
def tiny_neox(golden) -> tuple[Any, Task, list[Dictionary], dict[str, Tensor]]:
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors, metadata = golden("sfc_tiny")
    config = AutoConfig.for_model("gpt_neox", **metadata["config"])
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    head = next(name for name in module.state_dict() if name in ("embed_out.weight", "lm_head.weight"))
    weights = {k[3:]: v for k, v in tensors.items() if k.startswith("hf.")}
    weights[head] = weights.pop("embed_out.weight")  # newer versions of transformers call the unembedding lm_head
    module.load_state_dict(weights)
    task = Task.from_tokens(
        "sfc", tensors["clean_tokens"], tensors["patch_tokens"], tensors["clean_answer_ids"],
        tensors["patch_answer_ids"], objective=Objective("difference", change),
    )  # fmt: skip
    found = [
        Dictionary.from_tensors(
            **place,
            W_enc=tensors[f"sae.{name}.encoder.weight"],
            b_enc=tensors[f"sae.{name}.encoder.bias"],
            W_dec=tensors[f"sae.{name}.decoder.weight"].T,
            b_dec=tensors[f"sae.{name}.bias"],
            subtracts_b_dec=True,
        )
        for name, place in SITES.items()
    ]
    return load_model(module), task, found, tensors


def compare(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("ablation", "name"), [("patch", "pair"), ("zero", "zero")])
def test_integrated_gradients_are_the_authors(tiny_neox: Any, ablation: str, name: str) -> None:
    model, task, dictionaries, tensors = tiny_neox
    found = features(model, task, dictionaries, ablation=ablation, quiet=True)
    for index, site in enumerate(SITES):
        compare(found.values[:, index], tensors[f"ig.{name}.{site}.effect_feature"])
        compare(found.errors[:, index], tensors[f"ig.{name}.{site}.effect_error"][..., 0])
    assert found.settings["steps"] == 10


@pytest.mark.parametrize(("ablation", "name"), [("patch", "pair"), ("zero", "zero")])
def test_the_gradient_at_the_clean_prompts_is_what_their_code_gave_as_it_was_shipped(
    tiny_neox: Any, ablation: str, name: str
) -> None:
    model, task, dictionaries, tensors = tiny_neox
    found = features(model, task, dictionaries, method="eap", ablation=ablation, quiet=True)
    for index, site in enumerate(SITES):
        compare(found.values[:, index], tensors[f"single_point.{name}.{site}.effect_feature"])
        compare(found.errors[:, index], tensors[f"single_point.{name}.{site}.effect_error"][..., 0])


def test_patched_features_and_errors_are_the_authors(tiny_neox: Any) -> None:
    model, task, dictionaries, tensors = tiny_neox
    length = task.prompts(model).clean.shape[1]
    only = [(d, t, p) for d in range(len(SITES)) for t in range(length) for p in range(-1, 40, 4)]
    found = features(model, task, dictionaries, method="exact", only=only, quiet=True).top(None)
    for index, site in enumerate(SITES):
        rows = found[found["dictionary"] == index]
        at = tuple(torch.tensor(rows[column].to_numpy()) for column in ("prompt", "position", "feature"))
        effects = tensors[f"exact.pair.{site}.effect_feature"][at[0], at[1], at[2].clamp(min=0)]
        errors = tensors[f"exact.pair.{site}.effect_error"][at[0], at[1], 0]
        want = torch.where(at[2] < 0, errors, effects).double()
        compare(torch.tensor(rows["score"].to_numpy()), want)
        assert (want != 0).sum() > 10
