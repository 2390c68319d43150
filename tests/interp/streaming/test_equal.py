"""Models that stream their weights give what the same models give when they are loaded."""

from __future__ import annotations

import copy
import functools
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

import attribution
import metrics
from attribution import attribute
from circuits import find_circuit
from interp import load_model
from interp.streaming import saved
from interp.streaming.modules import stream_of
from tests.tiny import ARCHITECTURES, mostly_slow, tiny_module, tiny_task

SHARD = "10KB"  # several files


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def saved_as(name: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoints") / name
        module: Any = tiny_module(name, torch.float32)
        module.save_pretrained(folder, max_shard_size=SHARD)
        assert len(list(folder.glob("*.safetensors"))) > 1
        return folder

    return saved_as


@pytest.fixture(scope="session")
def both(folder_of: Any) -> Any:
    @functools.cache
    def loaded_and_streamed(name: str) -> tuple[Any, Any]:
        folder = folder_of(name)
        return load_model(folder, dtype="float64"), load_model(folder, dtype="float64", weights="streamed")

    return loaded_and_streamed


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "phi3"])
def test_scores_of_every_architecture(both: Any, name: str) -> None:
    loaded, streamed = both(name)
    task = tiny_task(loaded, n=2)
    expected = attribute(loaded, task, "eap", quiet=True).values
    close(attribute(streamed, task, "eap", quiet=True).values, expected)
    # activations kept, or computed again from the last block to the first
    close(attribute(streamed, task, "eap", checkpointed=True, quiet=True).values, expected)


@pytest.mark.parametrize("name", mostly_slow(ARCHITECTURES, lambda name: name in ("llama", "gpt2", "gemma2")))
def test_the_model_itself_circuits_patching_tokens_and_decompositions(both: Any, name: str) -> None:
    loaded, streamed = both(name)
    task = tiny_task(loaded, n=2)
    close(streamed(task.prompts(loaded).clean), loaded(task.prompts(loaded).clean))
    scores = attribute(loaded, task, "eap-ig", steps=2, quiet=True)
    close(attribute(streamed, task, "eap-ig", steps=2, quiet=True).values, scores.values)
    mask = scores.mask(20)
    close(metrics.evaluate(streamed, task, mask), metrics.evaluate(loaded, task, mask))
    close(
        attribute(streamed, task, "activation-patching", quiet=True).values,
        attribute(loaded, task, "activation-patching", quiet=True).values,
    )
    tokens = task.prompts(loaded).clean
    for method in ("attnlrp", "integrated-gradients"):
        close(
            attribution.tokens(streamed, tokens, method=method).values,
            attribution.tokens(loaded, tokens, method=method).values,
        )


def test_a_decomposition(both: Any) -> None:
    loaded, streamed = both("llama")
    tokens = tiny_task(loaded, n=2).prompts(loaded).clean
    close(attribution.decompose(streamed, tokens).logits, attribution.decompose(loaded, tokens).logits)


def test_a_circuit_is_found(both: Any) -> None:
    loaded, streamed = both("qwen2")  # whose embeddings are tied
    task = tiny_task(loaded, n=8)
    found, expected = (find_circuit(model, task, edges=20, quiet=True) for model in (streamed, loaded))
    assert torch.equal(found.mask, expected.mask)


def test_batches_and_copies_change_nothing(both: Any) -> None:
    loaded, streamed = both("llama")
    task = tiny_task(loaded, n=3)
    expected = attribute(loaded, task, "eap-ig", steps=2, quiet=True).values
    close(attribute(streamed, task, "eap-ig", steps=2, batch_size=1, quiet=True).values, expected)
    twin = copy.deepcopy(streamed)
    close(attribute(twin, task, "eap-ig", steps=2, quiet=True).values, expected)


def test_what_the_check_read_is_given_back(folder_of: Any) -> None:
    """The check's modules lie in circles: without a collection their buffers would stay beside the model's own."""
    folder = folder_of("llama")
    only = [tracemalloc.Filter(True, "*/interp/streaming/memory.py")]

    def buffers() -> int:
        traces = tracemalloc.take_snapshot().filter_traces(only).traces
        return sum(one.size > 1024 for one in traces)

    gc.disable()
    tracemalloc.start()
    try:
        model = load_model(folder, dtype="float64", weights="streamed")
        assert not buffers()
        weight = model.blocks[0].mlp.out.original_component.weight
        assert weight.isfinite().all()
        assert buffers()
    finally:
        tracemalloc.stop()
        gc.enable()


def test_no_weight_is_saved_for_the_backward_pass(both: Any) -> None:
    _, streamed = both("llama")
    layer = streamed.blocks[0].mlp.out.original_component
    x = torch.ones(1, layer.in_features, dtype=torch.float64, requires_grad=True)
    with saved.by_origin():
        y = layer(x)
    before = stream_of(streamed).n_bytes
    streamed.blocks[2].mlp.out.original_component.weight.sum()  # something else is in use meanwhile
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert stream_of(streamed).n_bytes > before
    close(gradient[0], layer.weight.sum(0))
