"""Checkpoints that are cut short, lack something or change while they are read: one sentence each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution import attribute
from interp import load_model
from interp.errors import InputError
from interp.streaming.order import Order
from tests.tiny import tiny, tiny_module, tiny_task


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "llama"
    module: Any = tiny_module("llama", torch.float32)
    module.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "llama"))


def streamed(folder: Path) -> Any:
    return load_model(folder, weights="streamed")


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 8)


def edit(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_file_cut_short(folder: Path) -> None:
    cut(folder)
    with pytest.raises(InputError, match=r"are cut short: [\d,]+ bytes of [\d,]+"):
        streamed(folder)


def test_a_header_that_is_none(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="are damaged"):
        streamed(folder)


def test_a_block_is_missing(folder: Path) -> None:
    edit(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.2." in name])
    with pytest.raises(
        InputError, match=r"does not hold all the weights .* model\.layers\.2\..* is missing, and 8 more"
    ):
        streamed(folder)


def test_another_shape(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(5, 16)}))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has the shape \(5, 16\)"):
        streamed(folder)


def test_a_shard_is_missing(tmp_path: Path) -> None:
    module: Any = tiny_module("llama", torch.float32)
    module.save_pretrained(tmp_path, max_shard_size="10KB")
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(InputError, match="are not complete: model-00002"):
        streamed(tmp_path)


@pytest.mark.parametrize("how", [cut, lambda folder: (folder / "model.safetensors").unlink()], ids=["cut", "removed"])
def test_a_file_that_changes_while_its_model_is_in_use(folder: Path, how: Any) -> None:
    model = streamed(folder)
    task = tiny_task(model, n=2)
    expected = attribute(model, task, "eap", quiet=True).values
    kept = (folder / "model.safetensors").read_bytes()
    how(folder)
    with pytest.raises(InputError, match="was changed or removed on disk while its model was in use; load the model"):
        attribute(model, task, "eap", quiet=True)
    (folder / "model.safetensors").write_bytes(kept)
    torch.testing.assert_close(attribute(streamed(folder), task, "eap", quiet=True).values, expected)


def test_what_cannot_be_streamed(folder: Path) -> None:
    with pytest.raises(InputError, match="weights are in memory already"):
        load_model(tiny_module("llama"), weights="streamed")
    with pytest.raises(InputError, match="did you mean 'streamed'"):
        load_model(folder, weights="stream")  # type: ignore[arg-type]
    config = folder / "config.json"
    config.write_text(config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))
    with pytest.raises(InputError, match="holds quantised weights, which cannot be streamed"):
        streamed(folder)


def test_auto_streams_what_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.inspection import anatomy_of
    from interp.streaming import folders

    assert not anatomy_of(load_model(folder, weights="auto")).streams
    monkeypatch.setattr(folders, "memory_available", lambda device: 1000.0)
    assert anatomy_of(load_model(folder, weights="auto")).streams


def test_token_ids_beyond_the_vocabulary(folder: Path) -> None:
    model, loaded = streamed(folder), tiny("llama")
    for one in (model, loaded):
        with pytest.raises(IndexError):
            one(torch.tensor([[53]]))


@pytest.mark.parametrize(
    ("visits", "following"),
    [
        ([], None),
        ([0, 1, 2], 3),
        ([0, 2, 4], 6),  # attention alone
        ([9, 8, 7], 6),
        ([0, 1, 2, 3, 4, 5, 4, 5, 2, 3], 0),  # back to front, each layer forward again
        ([3, 4, 3, 4], 3),
    ],
)
def test_the_order_of_parts_is_learned(visits: list[int], following: int | None) -> None:
    order = Order()
    for part in visits:
        order.visit(part)
    assert order.next() == following
