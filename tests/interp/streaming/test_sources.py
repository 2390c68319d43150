"""Where streamed weights may lie: in a GGUF file, in several files, with one matrix for both embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import attribute
from interp import load_model
from interp.inspection import anatomy_of
from tests.interp.test_gguf_cache import write_gguf
from tests.tiny import tiny_module, tiny_task


def same_scores(source: Path) -> None:
    """The loaded and the streamed model of a source give the same scores."""
    loaded, streamed = (load_model(source, dtype="float64", weights=how) for how in ("loaded", "streamed"))
    assert [anatomy_of(one).streams for one in (loaded, streamed)] == [False, True]
    task = tiny_task(loaded, n=2)
    expected, found = (attribute(one, task, "eap", quiet=True).values for one in (loaded, streamed))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf", tiny_module("llama", torch.float32))
    same_scores(tmp_path / "tiny.gguf")


def test_several_files_and_tied_embeddings(tmp_path: Path) -> None:
    module: Any = tiny_module("qwen2", torch.float32)
    module.save_pretrained(tmp_path, max_shard_size="10KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    assert "lm_head.weight" not in index
    same_scores(tmp_path)
