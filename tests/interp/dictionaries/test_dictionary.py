"""A dictionary's arithmetic, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.dictionaries import Dictionary
from interp.errors import InputError
from tests.tiny import D_MODEL, LAYERS, tiny

FEATURES, WIDTH = 6, 4


def weights(n: int = FEATURES, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {"W_enc": draw(n, width), "b_enc": draw(n), "W_dec": draw(n, width), "b_dec": draw(width)}


def made(**changes: Any) -> Dictionary:
    return Dictionary.from_tensors(**{"layer": 0, "site": "transcoder", **weights(), **changes})


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(z: float, others: list[float], threshold: float | None, k: int | None) -> float:
    if k is not None and sum(other > z for other in others) >= k:
        return 0.0
    return z if z > max(threshold or 0.0, 0.0) else 0.0


@pytest.mark.parametrize("kind", [{}, {"threshold": 0.7}, {"threshold": torch.linspace(0, 1, FEATURES)}, {"k": 2}])
def test_encoding_and_decoding_are_the_sums_that_they_say(kind: dict[str, Any]) -> None:
    given, x = weights(), values(2, 3)
    d = made(**kind, subtracts_b_dec=True)
    f = d.encode(x)
    limits = torch.as_tensor(kind.get("threshold", 0.0)).expand(FEATURES)
    for row, got in zip(x.flatten(0, 1), f.flatten(0, 1), strict=True):
        z = [float(sum(given["W_enc"][p] * (row - given["b_dec"])) + given["b_enc"][p]) for p in range(FEATURES)]
        want = [by_hand(z[p], z, float(limits[p]), kind.get("k")) for p in range(FEATURES)]
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))
        back = sum(want[p] * given["W_dec"][p] for p in range(FEATURES)) + given["b_dec"]
        torch.testing.assert_close(d.decode(got), back)
    assert 0 < int((f > 0).sum()) < f.numel()


def test_a_skip_is_a_linear_path_of_what_is_read() -> None:
    skip, x = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64), values(3)
    plain, d = made(), made(W_skip=skip)
    want = plain.decode(plain.encode(x)) + torch.einsum("oi,ni->no", skip, x)
    torch.testing.assert_close(d.decode(d.encode(x), x), want)
    with pytest.raises(InputError, match=r"W_skip needs what was encoded, too: decode\(f, x\)"):
        d.decode(d.encode(x))


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_a_norm_of_each_x_is_undone_behind_the_decoder(kind: str) -> None:
    given, x = weights(), values(5) * 3 + 1
    d = made(site="mlp", normalization=kind, subtracts_b_dec=True)
    if kind == "layer_norm":
        mean, scale, back = x.mean(-1, True), x.std(-1, keepdim=True) + 1e-5, x.std(-1, keepdim=True)
    else:
        mean, scale = torch.zeros(()), x.norm(dim=-1, keepdim=True) / 2
        back = scale
    f = torch.relu((((x - mean) / scale) - given["b_dec"]) @ given["W_enc"].T + given["b_enc"])
    torch.testing.assert_close(d.encode(x), f)
    torch.testing.assert_close(d.decode(f, x), (f @ given["W_dec"] + given["b_dec"]) * back + mean)


@pytest.mark.parametrize("kind", [{}, {"threshold": 0.3}, {"k": 2}])
def test_gradients_pass_through_active_features_alone(kind: dict[str, Any]) -> None:
    d, x = made(**kind), values()
    jacobian = torch.autograd.functional.jacobian(d.encode, x)
    active = d.encode(x) > 0
    torch.testing.assert_close(jacobian, d.W_enc * active[:, None])


def test_a_dictionary_computes_in_the_precision_of_what_it_reads() -> None:
    d = made(**weights(dtype=torch.float32))
    assert d.encode(values()).dtype == torch.float64
    assert d.to(values()).W_enc.dtype == torch.float64
    from_numpy = made(W_enc=np.ones((FEATURES, WIDTH), dtype=np.float32), b_enc=None, b_dec=[0, 0, 0, 0])
    assert from_numpy.encode(torch.ones(WIDTH)).tolist() == [WIDTH] * FEATURES


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"site": "z"}, "site='z' is unknown"),
    ({"layer": -1}, "layer=-1 must be a whole number of at least 0"),
    ({"layer": 1, "site": "embedding"}, "give layer=0"),
    ({"W_enc": torch.ones(FEATURES)}, r"W_enc has shape \[6\]; it must be \[feature, d_model\]"),
    ({"W_enc": "weights.pt"}, "W_enc='weights.pt' must be a tensor"),
    ({"W_enc": torch.full((FEATURES, WIDTH), float("nan"))}, "W_enc holds 24 of 24 numbers that are NaN or infinite"),
    ({"b_dec": torch.tensor([0, 0, float("inf"), 0])}, "b_dec holds 1 of 4 numbers that are NaN or infinite"),
    ({"W_enc": torch.ones(2, 2).to_sparse()}, "W_enc must be a dense tensor"),
    ({"W_dec": torch.ones(WIDTH, FEATURES)}, "one of them is transposed"),
    ({"W_dec": torch.ones(FEATURES, 5)}, r"W_enc has shape \[6, 4\] and W_dec \[6, 5\]"),
    ({"b_enc": torch.ones(5)}, r"b_enc has shape \[5\]; it must be \[feature\], here \[6\]"),
    ({"W_skip": torch.ones(WIDTH, 3)}, r"W_skip has shape \[4, 3\]; it must be \[4, 4\]"),
    ({"W_skip": torch.ones(WIDTH, WIDTH), "site": "mlp"}, "W_skip is for transcoders"),
    ({"reads": "normalized", "site": "residual"}, "reads='normalized' is for transcoders"),
    ({"writes": "added", "site": "residual"}, "writes='added' is for MLPs and transcoders"),
    ({"threshold": -0.5}, "threshold holds negative numbers"),
    ({"threshold": 0.5, "k": 2}, "give one of the two"),
    ({"k": 7}, "k=7 must be a whole number from 1 to 6"),
    ({"normalization": "rms"}, "normalization='rms' is unknown"),
    ({"treshold": 0.5}, "did you mean 'threshold'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_no_dictionary_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**changes)


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"x must be a tensor of floats \[..., d_model=4\]; got \[2, 3\]"):
        made().encode(torch.ones(2, 3))
    with pytest.raises(InputError, match=r"f must be a tensor of floats \[..., feature=6\]; got list"):
        made().decode([1.0])


def test_a_dictionary_knows_the_models_that_it_does_not_belong_to() -> None:
    model = tiny("llama")
    fits = made(layer=LAYERS - 1, **weights(width=D_MODEL))
    anatomy = fits.check(model)
    assert fits.check(anatomy) is anatomy
    with pytest.raises(InputError, match=r"reads 4 numbers, and the residual stream of .* has 16"):
        made().check(model)
    with pytest.raises(InputError, match=r"is at layer 3; .* has layers 0 to 2"):
        made(layer=LAYERS, **weights(width=D_MODEL)).check(model)
    named = {name: made(model=name, **weights(width=D_MODEL)) for name in ("tiny-llama", "gpt2", "other/Tiny_Llama")}
    named["gpt2"].check(model)  # a module that was handed in has no name
    hub = replace(anatomy, name="owner/tiny-llama-it")
    with pytest.raises(InputError, match="was trained on 'gpt2', and the model is 'owner/tiny-llama-it'"):
        named["gpt2"].check(hub)
    for name in ("tiny-llama", "other/Tiny_Llama"):
        named[name].check(hub)


def test_its_line_says_what_and_where_it_is() -> None:
    assert repr(made(k=3, W_skip=torch.ones(4, 4))) == (
        "Dictionary(transcoder of layer 0, 6 features of 4, TopK(3), skip, normed -> mlp_out)"
    )
    assert repr(made(site="embedding", threshold=1)) == "Dictionary(embedding, 6 features of 4, JumpReLU)"
