"""Masked heads against transformers modules whose weights were edited: no code is shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import masked_heads
from attribution.heads.masking import head_means
from interp.errors import InputError
from tests.tiny import HEADS, VOCAB, shared, tiny_module

HEADS_OUT = ["a0.h1", "a2.h0", "a2.h3"]
PLACES = ((0, [1]), (2, [0, 3]))
IDS = torch.randint(2, VOCAB, (2, 8), generator=torch.Generator().manual_seed(1))
CLOSE = {"rtol": 0, "atol": 1e-5}  # of logits of size 3, made in float64 but for softmaxes and norms


def logits(module: Any, **given: Any) -> Tensor:
    with torch.no_grad():
        return module(IDS, **given).logits


def silenced(name: str) -> nn.Module:
    """The plain module, with output matrices that do not read the heads."""
    module: Any = tiny_module(name)
    if name == "mixtral":
        module.set_experts_implementation("eager")  # the default has no float64
    for layer, heads in PLACES:
        if name == "gpt2":
            module.transformer.h[layer].attn.c_proj.weight.data.unflatten(0, (HEADS, -1))[heads] = 0
        else:
            attention = module.model.decoder.layers[layer] if name == "opt" else module.model.layers[layer]
            out = attention.self_attn.out_proj if name == "opt" else attention.self_attn.o_proj
            out.weight.data.unflatten(1, (HEADS, -1))[:, heads] = 0
    return module


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2", "mixtral"])
def test_zero_is_an_output_matrix_that_does_not_read_the_heads(name: str) -> None:
    model, brute = shared(name), silenced(name)
    before = logits(model.original_model)
    with masked_heads(model, HEADS_OUT):
        torch.testing.assert_close(logits(model.original_model), logits(brute), **CLOSE)
        torch.testing.assert_close(model(IDS), logits(brute), **CLOSE)
        made = model.original_model.generate(IDS, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=1)
    assert torch.equal(logits(model.original_model), before)
    wanted = brute.generate(IDS, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=1)  # type: ignore[operator]
    assert torch.equal(made, wanted)
    assert not torch.allclose(before, logits(brute), atol=0.1)


def test_mean_adds_what_the_heads_write_on_average() -> None:
    model, brute = shared("gpt2"), silenced("gpt2")
    seen: dict[int, Tensor] = {}
    plain: Any = tiny_module("gpt2")
    for layer, _ in PLACES:
        attention = plain.transformer.h[layer].attn.c_proj
        attention.register_forward_pre_hook(lambda part, given, layer=layer: seen.update({layer: given[0]}))
    with torch.no_grad():
        plain(IDS)
    for layer, heads in PLACES:
        mean = seen[layer].mean((0, 1)).unflatten(0, (HEADS, -1))
        out, own = (module.transformer.h[layer].attn.c_proj for module in (brute, plain))  # type: ignore[union-attr]
        rows = own.weight.data.unflatten(0, (HEADS, -1))
        out.bias.data += torch.einsum("hd,hdm->m", mean[heads], rows[heads])
    with masked_heads(model, HEADS_OUT, "mean", IDS):
        torch.testing.assert_close(logits(model.original_model), logits(brute), **CLOSE)
    assert head_means(model, IDS).shape == (3, 16)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_uniform_heads_look_at_all_that_they_see_alike(name: str, padded: bool) -> None:
    """As heads do whose queries are zero, behind the causal mask, the window and the padding."""
    # in float32: padding that float64 masks is beyond what transformers' softmax, in float32, holds
    model, brute = shared(name, torch.float32), tiny_module(name, torch.float32)
    for layer, heads in PLACES:
        brute.model.layers[layer].self_attn.q_proj.weight.data.unflatten(0, (HEADS, -1))[heads] = 0  # type: ignore[index, union-attr]
    mask = torch.ones_like(IDS)
    mask[1, :3] = 0
    given = {"attention_mask": mask} if padded else {}
    with masked_heads(model, HEADS_OUT, "uniform"):
        ours = logits(model.original_model, **given)
    torch.testing.assert_close(ours[mask.bool()], logits(brute, **given)[mask.bool()], rtol=0, atol=1e-4)


def test_blocks_are_nested_and_undone_when_what_is_inside_fails() -> None:
    model = shared("llama")
    before = logits(model.original_model)
    with masked_heads(model, HEADS_OUT):
        both = logits(model.original_model)
    with masked_heads(model, HEADS_OUT[:1]), masked_heads(model, HEADS_OUT[1:]):
        assert torch.equal(logits(model.original_model), both)
    with pytest.raises(KeyError), masked_heads(model, HEADS_OUT):
        raise KeyError
    assert torch.equal(logits(model.original_model), before)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("llama", (["a9.h0"],), "is no head of model"),
        ("llama", ([],), "must be names of heads"),
        ("llama", ("a0.h0",), "must be names of heads"),
        ("llama", (["a0.h0"], "none"), "how='none' is unknown"),
        ("llama", (["a0.h0"], "mean"), "reference is the prompts"),
        ("llama", (["a0.h0"], "zero", IDS), "reference is the prompts"),
        ("opt", (["a0.h0"], "uniform"), "gives no access to them"),
    ],
)
def test_what_cannot_be_masked_is_refused(name: str, given: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence), masked_heads(shared(name), *given):
        pass
