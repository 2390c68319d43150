"""What a plan says from a configuration alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from circuits import plan
from circuits.cli import app
from interp import ComputationalGraph, load_model
from interp.errors import InputError
from tests.tiny import tiny_module


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / request.param
    tiny_module(request.param, torch.float32).save_pretrained(path)  # type: ignore[operator]
    return path


def test_edges_passes_and_what_is_held(folder: Path) -> None:
    whole = load_model(folder)
    n_edges = ComputationalGraph.of(whole).n_edges
    held = sum({id(p): p.nbytes for p in whole.original_model.parameters()}.values())
    (folder / "model.safetensors").unlink()  # the configuration is enough
    loaded, streamed = (plan(str(folder), n=4, tokens=8, method="eap", weights=w) for w in ("loaded", "streamed"))
    assert loaded.edges == streamed.edges == n_edges
    assert (loaded.forward, loaded.backward) == (2, 1)
    assert loaded.read == 0
    assert streamed.read > 0
    assert streamed.weights < loaded.weights
    if "llama" in folder.name:  # GPT-2's fused projections are held twice once they are split
        assert loaded.weights == held
    assert plan(str(folder), n=4, tokens=8, steps=3).backward == 3
    shown = CliRunner().invoke(app, ["plan", "--model", str(folder), "--tokens", "8", "-n", "4"])
    assert shown.exit_code == 0
    assert f"edges         {n_edges:,}" in shown.stdout


def test_what_cannot_be_planned(tmp_path: Path) -> None:
    tiny_module("llama", torch.float32).config.save_pretrained(tmp_path)  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match="nothing says how long prompts are; give tokens="):
        plan(str(tmp_path), "ioi")
    with pytest.raises(InputError, match="takes no gradients along a path"):
        plan(str(tmp_path), method="exact", tokens=8)


@pytest.mark.real
def test_what_all_prompts_share_with_their_corrupted_versions_is_not_counted() -> None:
    shared = plan("smollm2-135m", "ioi", n=4)
    whole = plan("smollm2-135m", n=4, tokens=shared.tokens)
    assert shared.captures < 0.8 * whole.captures
    assert shared.batch < 0.8 * whole.batch
