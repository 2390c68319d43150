"""The anatomy is that of the model it is asked about, as it is now."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metrics
from attribution import tokens
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.answers import answer_logits
from interp.models import load_model
from interp.tasks.prompts import Prompts
from tests.tiny import ARCHITECTURES, VOCAB, tiny_module

TOKENS = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))


def used(name: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    """A model that the library has read before."""
    model = load_model(tiny_module(name, dtype))
    anatomy_of(model)
    return model


def error(model: Any) -> float:
    """Relative error of the anatomy's logits against the model's own run."""
    with torch.no_grad():
        own = model(TOKENS.to(model.cfg.device))[:, -1].double().cpu()
    given = TOKENS.tolist()
    read = answer_logits(model, Prompts.from_lists(given, given, [[0]] * 2, [[]] * 2, paired=False)).double()
    return float((read - own).norm() / own.norm())


def noisy(module: nn.Module) -> nn.Module:
    """A copy with other weights."""
    changed = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return changed


@pytest.mark.filterwarnings("ignore:TransformerBridgeConfig is already bound")  # a shallow copy shares it
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy])
def test_a_copy_is_read_for_itself(name: str, how: Callable[[Any], Any]) -> None:
    model = used(name)
    twin = how(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.2)
    assert error(twin) < 1e-5
    assert error(model) < 1e-5


def test_what_is_remembered_does_not_keep_a_model_alive() -> None:
    model = used()
    twin = copy.deepcopy(model)
    anatomy_of(twin)
    seen = weakref.ref(model), weakref.ref(twin)
    del model, twin
    gc.collect()
    assert [one() for one in seen] == [None, None]


def test_randomisation_is_the_same_for_a_model_that_was_used_before() -> None:
    def explain(model: Any, inputs: Any, target: Any) -> Tensor:
        return tokens(model, inputs, 3, "gradient-x-input", quiet=True).values

    def report(model: Any) -> Any:
        found = metrics.randomisation(
            model, TOKENS, explain, target=3, mode="independent", layers=["embed", "unembed"], draws=1, quiet=True
        )
        return found.to_frame()["spearman"].to_numpy(float)

    fresh = load_model(tiny_module("llama", torch.float32))
    np.testing.assert_allclose(report(used()), report(fresh), atol=1e-6)
    assert report(fresh).max() < 0.9  # an embedding that is drawn anew and not read would give 1


class LoRA(nn.Linear):
    """A low-rank update by hand, which is zero at first."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.a = nn.Parameter(torch.ones(2, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.a.T @ self.b.T


@pytest.mark.parametrize("write", [lambda b: b.data.fill_(0.5), lambda b: b.detach().add_(0.5)])
def test_weights_that_are_not_read_are_watched(write: Callable[[Tensor], Any]) -> None:
    model = load_model(tiny_module("llama", torch.float32))
    projection = model.blocks[1].attn.q
    projection._modules["_original_component"] = lora = LoRA(projection.original_component)
    assert error(model) < 1e-5
    write(lora.b)
    with pytest.raises(InputError, match="is not understood"):
        anatomy_of(model)


def _cast(model: Any) -> None:
    model.original_model.double()


def _head(model: Any) -> None:
    model.unembed._modules["_original_component"] = nn.Linear(16, VOCAB, bias=False)


def _epsilon(model: Any) -> None:
    model.ln_final.original_component.variance_epsilon = 1.0


def _scale(model: Any) -> None:
    model.blocks[0].attn.original_component.scaling = 1.7


def _embedding(model: Any) -> None:
    model.original_model.get_input_embeddings().weight = nn.Parameter(torch.randn(VOCAB, 16))


def _fold(model: Any) -> None:
    model.enable_compatibility_mode()


@pytest.mark.parametrize("change", [_cast, _head, _epsilon, _scale, _embedding, _fold])
def test_a_changed_model_is_read_again(change: Callable[[Any], None]) -> None:
    model = used()
    change(model)
    assert error(model) < 1e-5


def _other_mlp(model: Any) -> None:
    layer = model.original_model.model.layers[0]
    layer.mlp = noisy(layer.mlp)


def _other_head(model: Any) -> None:
    model.original_model.lm_head = nn.Linear(16, VOCAB, bias=False)


def _other_activation(model: Any) -> None:
    model.blocks[0].mlp.original_component.act_fn = nn.ReLU()


def _fewer_layers(model: Any) -> None:
    model.original_model.model.layers = model.original_model.model.layers[:2]


def _hooked(model: Any) -> None:
    model.blocks[0].mlp.original_component.register_forward_hook(lambda module, args, output: 2 * output)


def _hooked_point(model: Any) -> None:
    model.blocks[0].hook_out.register_forward_hook(lambda module, args, output: 2 * output)


@pytest.mark.parametrize("change", [_other_mlp, _other_head, _other_activation, _fewer_layers, _hooked, _hooked_point])
def test_what_no_longer_computes_what_was_read_is_refused(change: Callable[[Any], None]) -> None:
    """These change what the transformers module runs and not what the bridge calls its parts."""
    model = used()
    change(model)
    for _ in range(2):  # a refusal is not remembered as a success
        with pytest.raises(InputError, match=r"is not understood.*replace them before"):
            anatomy_of(model)


def test_an_unchanged_model_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = used()
    monkeypatch.setattr("interp.inspection.check_anatomy", lambda *given: pytest.fail("checked again"))
    with torch.no_grad():
        for parameter in model.parameters():  # read live
            parameter.mul_(1.1)
    model.train()
    assert error(model.eval()) < 1e-5
