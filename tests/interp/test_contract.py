"""The contraction: how rows and layers are cut into products changes nothing."""

from __future__ import annotations

import pytest
import torch

from attribution import attribute
from attribution.edges.gradient import EAP
from interp import ComputationalGraph
from interp.errors import InputError
from interp.kernels import contract
from tests.tiny import shared, tiny_task


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])  # grouped, fused, side by side
def test_groups_of_layers_and_chunks_of_rows_change_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared(architecture)
    task = tiny_task(model, ragged=True)

    def scores() -> list[torch.Tensor]:
        told = {"positions": "all", "quiet": True}
        # the second takes the sources of one place at a time
        return [
            attribute(model, task, "eap", **told).values,
            attribute(model, task, "eap-ig-activations", **told).values,
        ]

    whole = scores()
    for columns, n_bytes in ((1, 1), (26, 1 << 15), (1000, 1)):
        monkeypatch.setattr(contract, "_COLUMNS", columns)
        monkeypatch.setattr(contract, "CHUNK_BYTES", n_bytes)
        for found, expected in zip(scores(), whole, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("method", ["eap", "relp", "atp-star"])
def test_products_of_rounded_factors(method: str) -> None:
    model = shared("llama", torch.float32)
    task = tiny_task(model)
    exact = attribute(model, task, method, quiet=True)
    rounded = attribute(model, task, method, products="bfloat16", quiet=True)
    error = float((rounded.values - exact.values).abs().max() / exact.values.abs().max())
    assert 1e-6 < error < 2e-2  # bfloat16 has 8 bits
    assert rounded.values.dtype == torch.float32
    assert ("products" in exact.settings, rounded.settings["products"]) == (False, "bfloat16")


def test_sums_are_not_rounded() -> None:
    generator = torch.Generator().manual_seed(0)
    sources, targets = (torch.randn(n, 64, generator=generator) for n in (5, 3))
    found = contract._Into(sources, targets, "bfloat16").product(4, 3, slice(8, 64))
    by_hand = sources[:4, 8:].bfloat16().double() @ targets[:, 8:].bfloat16().double().T
    torch.testing.assert_close(found.double(), by_hand, rtol=1e-5, atol=1e-5)


def test_products_that_are_refused() -> None:
    model = shared("llama")
    task = tiny_task(model)
    with pytest.raises(InputError, match="products='float8'"):
        attribute(model, task, "eap", products="float8")
    with pytest.raises(InputError, match="leave it out with inside="):
        attribute(model, task, EAP(inside=ComputationalGraph.of(model).edge_mask, products="bfloat16"))
