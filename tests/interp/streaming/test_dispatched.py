"""Models that accelerate has spread over memory and disk give what the plain ones give."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

import metrics
from attribution import attribute
from interp import load_model
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.streaming.modules import stream_of
from tests.tiny import shared, tiny_module, tiny_task

CPU = torch.device("cpu")


def in_memory(module: Any, folder: Path) -> Any:
    return accelerate.cpu_offload(module, CPU)


def on_disk(module: Any, folder: Path) -> Any:
    return accelerate.disk_offload(module, str(folder), CPU)


def spread(module: Any, folder: Path) -> Any:
    """Some layers in memory, the rest on disk, as `device_map=` does it."""
    layers = "transformer.h" if hasattr(module, "transformer") else "model.layers"
    first = {name: "cpu" for name, part in module.named_modules() if name.startswith(layers) and name.count(".") == 2}
    rest = [name.rpartition(".")[0] for name, _ in module.named_parameters() if not name.startswith(layers)]
    places = {**dict.fromkeys(rest, "cpu"), **first, list(first)[-1]: "disk", list(first)[1]: "disk"}
    if module.config.tie_word_embeddings or hasattr(module, "transformer"):
        places["lm_head"] = "cpu"
    return accelerate.dispatch_model(module, places, main_device="cpu", offload_dir=str(folder))


ROUNDED = 1e-5  # where transformers casts to float32, which the plain tiny models do not


def same(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


PLACED = [("llama", in_memory), ("llama", on_disk), ("gpt2", on_disk), ("gpt2", spread), ("qwen2", spread)]


@pytest.mark.parametrize(("name", "place"), PLACED)  # plain, fused projections, tied embeddings
def test_scores_are_those_of_the_plain_model(name: str, place: Any, tmp_path: Path) -> None:
    plain = shared(name)
    module = place(tiny_module(name), tmp_path / "away")
    model = load_model(module)
    assert anatomy_of(model).streams
    task = tiny_task(plain, n=2)
    expected = attribute(plain, task, "eap", quiet=True)
    same(attribute(model, task, "eap", checkpointed=True, quiet=True).values, expected.values)
    clean = task.prompts(plain).clean
    same(model(clean), plain(clean), ROUNDED)


def test_a_mixture_of_experts_and_a_circuit(tmp_path: Path) -> None:
    plain, model = shared("mixtral"), load_model(on_disk(tiny_module("mixtral"), tmp_path / "away"))
    task = tiny_task(plain, n=2)
    mask = attribute(plain, task, "eap", quiet=True).mask(20)
    same(metrics.evaluate(model, task, mask), metrics.evaluate(plain, task, mask), ROUNDED)


def test_nothing_is_brought_back_at_once(tmp_path: Path) -> None:
    model = load_model(on_disk(tiny_module("llama"), tmp_path / "away"))
    large = [one for one in model.original_model.parameters() if one.ndim > 1]
    assert large
    assert all(one.is_meta for one in large)
    assert stream_of(model).n_bytes == 0  # no file of ours


def test_refusals(tmp_path: Path) -> None:
    for told in ({"device": "cpu"}, {"dtype": "float32"}):
        with pytest.raises(InputError, match=r"spread over devices.* by accelerate, and .* would move it"):
            load_model(in_memory(tiny_module("llama"), tmp_path), **told)
    model = load_model(on_disk(tiny_module("llama"), tmp_path / "away"))
    shutil.rmtree(tmp_path / "away")
    with pytest.raises(InputError, match="that accelerate has put aside cannot be read any more"):
        attribute(model, tiny_task(shared("llama"), n=2), "eap", quiet=True)
    lost = in_memory(tiny_module("llama"), tmp_path)
    hook = lost.model.layers[1].mlp.down_proj._hf_hook
    hook.offload = False
    with pytest.raises(InputError, match=r"no values at 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        load_model(copy.copy(lost))
