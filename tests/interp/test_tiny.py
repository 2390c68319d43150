from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny import ARCHITECTURES, VARIANTS, stay_in_float64, tiny, tiny_module, tiny_task

TOKENS = torch.tensor([[0, 7, 20, 33, 8, 52, 3, 11, 40], [0, 9, 9, 2, 51, 30, 6, 5, 4]])


def logits_of(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module(TOKENS).logits


@pytest.mark.parametrize("name", [*ARCHITECTURES, *VARIANTS])
def test_bridge_gives_the_logits_of_the_untouched_module(name: str) -> None:
    reference = tiny_module(name)
    if name == "mixtral":
        reference.set_experts_implementation("eager")  # the default knows no float64
    stay_in_float64(reference)
    got = tiny(name)(TOKENS)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, logits_of(reference), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *VARIANTS])
def test_every_weight_of_a_tiny_model_matters(name: str) -> None:
    module = tiny_module(name)
    if name == "mixtral":
        module.set_experts_implementation("eager")
    module(TOKENS).logits.square().sum().backward()
    attention_biases = ("k_proj.bias", "q_proj.bias")  # a bias on keys shifts all scores alike
    for key, parameter in module.named_parameters():
        if not key.endswith(attention_biases):
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 1e-6, key


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_windows_of_tiny_models_are_shorter_than_prompts(name: str) -> None:
    wide = tiny(name, sliding_window=len(TOKENS[0]))
    assert (tiny(name)(TOKENS) - wide(TOKENS)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_seed_decides_the_weights_and_the_global_generator_is_left_alone(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = tiny(name), tiny(name), tiny(name, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(TOKENS), again(TOKENS))
    assert not torch.allclose(first(TOKENS), other(TOKENS))


@pytest.mark.parametrize("ragged", [False, True])
def test_tiny_tasks(ragged: bool) -> None:
    model = tiny("gpt2")
    clean, corrupted, lengths = (
        getattr(tiny_task(model, n=4, ragged=ragged).prompts(model), name) for name in ("clean", "corrupted", "lengths")
    )
    assert lengths.tolist() == ([7, 6, 5, 7] if ragged else [7] * 4)
    differ = clean != corrupted
    assert differ[:, [1, 2, 4]].all()
    assert not differ[:, [0, 3, 5, 6]].any()
    assert not torch.equal(clean, tiny_task(model, n=4, ragged=ragged, seed=1).prompts(model).clean)
