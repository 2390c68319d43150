"""What surrounds a call changes nothing: training mode, inference mode, autocast, defaults of torch, other threads."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import attribution
import attribution.concepts
import circuits
import interp
import interp.concepts
import metrics
import metrics.concepts
from attribution import applied, attribute, component_scores, decompose, edge_pruning, relevance, tokens
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.models import load_model
from interp.running import evaluated
from interp.tasks.task import Task
from tests.tiny import tiny_module, tiny_task

ROWS = [[5, 6, 7, 8], [9, 10, 3]]


def of_tokens(method: str, **settings: Any) -> Callable[..., Tensor]:
    return lambda model, task: tokens(model, ROWS, 3, method, quiet=True, **settings).values


def of_edges(method: str, **settings: Any) -> Callable[..., Tensor]:
    return lambda model, task: attribute(model, task, method, quiet=True, **settings).values


def half(model: Any) -> Tensor:
    mask = interp.ComputationalGraph.of(model).edge_mask.clone()
    mask[::2] = False
    return mask


def ranked(model: Any) -> Tensor:
    mask = half(model)
    return (torch.arange(mask.numel(), device="cpu", dtype=torch.float32) % 97).view(mask.shape) * mask


def by_chance(curve: Any) -> Tensor:
    return torch.tensor([point.value for point in curve.random], device="cpu", dtype=torch.float64)


CALLS: dict[str, Callable[[Any, Task], Tensor]] = {
    "attnlrp": of_tokens("attnlrp"),
    "integrated gradients": of_tokens("integrated-gradients", steps=3),
    "occlusion": of_tokens("occlusion"),
    "attention rollout": of_tokens("attention-rollout"),
    "random": of_tokens("random"),
    "decompx": of_tokens("decompx"),
    "eap": of_edges("eap"),
    "clean-corrupted": of_edges("clean-corrupted"),
    "mask-ig": of_edges("mask-ig", steps=2),
    "gim": of_edges("gim"),
    "activation patching": of_edges("activation-patching"),
    "components": lambda model, task: component_scores(model, task, quiet=True).values["attn_out"],
    "relevance": lambda model, task: relevance(model, ROWS, 3, quiet=True).values["blocks.1.hook_out"],
    "decompose": lambda model, task: decompose(model, ROWS, 3, quiet=True).logits,
    "edge pruning": lambda model, task: (
        edge_pruning(model, task, 20, schedule=attribution.Schedule(steps=2), quiet=True).values
    ),
    "evaluate": lambda model, task: metrics.evaluate(model, task, half(model), quiet=True),
    "inside": lambda model, task: attribute(model, task, "mask-ig", inside=half(model), steps=2, quiet=True).values,
    "random circuits": lambda model, task: by_chance(
        metrics.faithfulness_curve(model, task, ranked(model), n_random=2, quiet=True)
    ),
    "check": lambda model, task: torch.tensor(task.check(model).clean, device="cpu"),
    "find": lambda model, task: circuits.find_circuit(model, task, edges=20, quiet=True).scores.values,
}
RUN_THE_MODULE = ("attention rollout", "relevance")  # itself, with its dropout; all others run its weights


def with_dropout(name: str = "llama") -> nn.Module:
    """Two layers: what surrounds a call is the same for every layer."""
    return tiny_module(name, torch.float32, attention_dropout=0.5, num_hidden_layers=2)


def fresh(name: str = "llama") -> Any:
    return load_model(with_dropout(name))


def made(model: Any, task: Task, calls: Iterable[str] = tuple(CALLS)) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that random weights do no task
        return {name: CALLS[name](model, task).detach().double().cpu().clone() for name in calls}


@pytest.fixture(scope="module")
def right() -> dict[str, Tensor]:
    model = fresh()
    return made(model, tiny_task(model, n=4))


def agree(found: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    for name, values in found.items():
        torch.testing.assert_close(values, right[name], rtol=1e-4, atol=1e-5, msg=f"{name}: {values} {right[name]}")


@contextlib.contextmanager
def wide_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AMBIENT: dict[str, Callable[[], Any]] = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "default dtype": wide_by_default,
}


@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_torch_is_told_around_a_call_changes_nothing(ambient: str, right: dict[str, Tensor]) -> None:
    model = fresh()
    task = tiny_task(model, n=4)
    with AMBIENT[ambient]():
        found = made(model, task)
    agree(found, right)


@pytest.mark.parametrize("ambient", ["inference mode", "no grad", "autocast", "default dtype"])
def test_a_model_and_a_task_made_there_are_as_good(ambient: str, right: dict[str, Tensor]) -> None:
    module = with_dropout()
    with AMBIENT[ambient]():
        model = load_model(module)
        task = tiny_task(model, n=4)
    agree(made(model, task), right)


def test_a_module_of_inference_tensors_is_copied_when_it_is_loaded(right: dict[str, Tensor]) -> None:
    with torch.inference_mode():
        module = with_dropout()
        tied = tiny_module("qwen2", torch.float32)
    model = load_model(module)
    agree(made(model, tiny_task(model, n=4)), right)
    model = load_model(tied)
    assert model.unembed.original_component.weight is model.embed.original_component.weight


def test_models_that_hold_inference_tensors_are_refused() -> None:
    model = fresh()
    with torch.inference_mode():
        twin = copy.deepcopy(model)
        classifier = BertForSequenceClassification(tiny_bert()).eval()
    for refused in (twin, classifier):
        with pytest.raises(InputError, match=r"made inside torch\.inference_mode"):
            tokens(refused, ROWS, 1, "integrated-gradients", quiet=True)
    assert load_model(twin) is twin
    tokens(twin, ROWS, 1, "integrated-gradients", quiet=True)


def test_a_cast_in_inference_mode_is_seen() -> None:
    model = fresh()
    anatomy_of(model)
    with torch.inference_mode():
        model.original_model.double().float()
    with pytest.raises(InputError, match=r"made inside torch\.inference_mode"):
        anatomy_of(model)
    tokens(load_model(model), ROWS, 1, "integrated-gradients", quiet=True)


def tiny_bert() -> BertConfig:
    return BertConfig(
        vocab_size=53, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3
    )


def test_a_default_device_does_not_break_loading() -> None:
    module = tiny_module("gpt2", torch.float32)  # fused weights are split into new modules
    with torch.device("meta"):
        model = load_model(module)
        anatomy_of(model)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}


@pytest.mark.parametrize("before", [True, False])
def test_training_mode_changes_nothing_and_stays(before: bool, right: dict[str, Tensor]) -> None:
    model = fresh()
    task = tiny_task(model, n=4)
    if not before:
        anatomy_of(model)
    model.train()
    model.blocks[1].eval()  # one part is in another mode
    modes = [part.training for part in model.modules()]
    agree(made(model, task), right)
    assert [part.training for part in model.modules()] == modes
    assert len(set(modes)) == 2


def test_dropout_would_show(right: dict[str, Tensor]) -> None:
    """The calls that run the module itself, with what keeps its dropout out taken away."""
    model = fresh()
    anatomy_of(model)
    task = tiny_task(model, n=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.running._set_mode", lambda part, training: None)
        model.train()
        found = made(model, task, RUN_THE_MODULE)
    for name in RUN_THE_MODULE:
        assert not torch.allclose(found[name], right[name], rtol=1e-2)


def test_modes_are_put_back_after_an_error_and_by_the_last_to_leave() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    net[1].eval()
    modes = [part.training for part in net.modules()]

    def fail() -> None:
        with evaluated(net):
            assert not any(part.training for part in net.modules())
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        fail()
    assert [part.training for part in net.modules()] == modes
    first, second = evaluated(net), evaluated(net[0])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not net[0].training
    assert net.training
    second.__exit__(None, None, None)
    assert [part.training for part in net.modules()] == modes


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_threads_may_share_a_model_from_its_first_use_on(name: str) -> None:
    quick = (*RUN_THE_MODULE, "eap", "attnlrp", "gim", "check")
    settled = load_model(tiny_module(name, torch.float32))
    task = tiny_task(settled, n=4)
    right = made(settled, task, quick)
    model = load_model(tiny_module(name, torch.float32)).train()
    together = threading.Barrier(4)

    def work(i: int) -> None:
        together.wait()
        for k in range(len(quick)):
            call = quick[(2 * i + k) % len(quick)]
            agree({call: CALLS[call](model, task).detach().double()}, right)

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
            warnings.simplefilter("ignore", UserWarning)
            for done in [pool.submit(work, i) for i in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(often)
    assert all(part.training for part in model.modules())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_another_thread_does_not_run_into_the_rules_of_this_one() -> None:
    model = fresh("mixtral")  # its experts are run by the module that the rules' hooks are on
    task = tiny_task(model, n=4)
    right = made(model, task, ["eap"])
    ids = torch.tensor([ROWS[0]])
    with torch.no_grad():
        plain = model(ids)
    with ThreadPoolExecutor(1) as pool:
        with applied(model, "gim"):
            there = pool.submit(made, model, task, ["eap"])
            here = model(ids)
        agree(there.result(), right)
    torch.testing.assert_close(here.detach(), plain, rtol=1e-4, atol=1e-5)


# explain or train modules of the user's own, look up a model's parts or tokens, or stand around a user's own runs
NO_DOORS = {"Setting.of", "randomisation", "erasure_curve", "masked_finetune", "rescorer", "applied", "rule_set",
            "masked_heads", "needle_prompts"}  # fmt: skip


def test_every_public_function_that_runs_a_model_is_a_door() -> None:
    seen = set()
    for package in (attribution, attribution.concepts, circuits, interp, interp.concepts, metrics, metrics.concepts):
        for name in package.__all__:
            public = getattr(package, name)
            for key, function in {name: public, **(vars(public) if inspect.isclass(public) else {})}.items():
                function = getattr(function, "__func__", function)
                if not inspect.isfunction(function) or key.startswith("_") or {key, f"{name}.{key}"} & NO_DOORS:
                    continue
                if "model" in inspect.signature(function).parameters or key in ("measure_all", "scores"):
                    seen.add(key)
                    assert getattr(function, "is_door", False), f"{package.__name__}.{name}: {key}"
    assert {"attribute", "tokens", "find_circuit", "evaluate", "check", "of", "measure_all", "scores"} <= seen
