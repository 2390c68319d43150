"""Experts as nodes: against modules whose experts write nothing, sums over neurons, and experts that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from attribution import experts
from attribution.engines import chosen_method
from attribution.units.scoring import mean_neuron_scores
from circuits import find_circuit
from interp import InputError, NodeMask, Run, Setting, load_model
from tests.experts import CONTEXT, EXPERT, EXPERTS, MEMORY, moe_module, planted_module, planted_task
from tests.tiny import shared, stay_in_float64, tiny_module, tiny_task

QUIET = {"quiet": True}
N_EXPERTS = 3  # of the tiny Mixtral


def known(token: int) -> Any:
    truth = torch.zeros(2, EXPERTS, dtype=torch.bool)
    truth[1, EXPERT[token]] = True
    return truth


@pytest.fixture(scope="module")
def planted() -> Any:
    return load_model(planted_module())


def test_an_expert_that_is_ablated_to_zero_is_one_that_writes_nothing() -> None:
    """Against the plain module with slices of its output matrices at zero; later routers choose anew."""
    model, mask = shared("mixtral"), torch.rand(3, N_EXPERTS, generator=torch.Generator().manual_seed(0)) < 0.5
    task, module = tiny_task(model), tiny_module("mixtral")
    module.set_experts_implementation("eager")  # type: ignore[operator]
    stay_in_float64(module)
    for layer, expert in (~mask).nonzero().tolist():
        module.model.layers[layer].mlp.experts.down_proj.data[expert] = 0  # type: ignore[index, union-attr]
    prompts = task.prompts(model)
    with torch.no_grad():
        last = module(prompts.clean).logits[:, -1]
    wanted = last.gather(1, prompts.correct) - last.gather(1, prompts.incorrect)
    found = metrics.evaluate(model, task, NodeMask(mask, "expert"), ablation="zero", **QUIET)
    torch.testing.assert_close(found.double(), wanted[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_a_circuit_of_experts_is_one_of_their_neurons(ablation: str) -> None:
    model, mask = shared("mixtral"), torch.rand(3, N_EXPERTS, generator=torch.Generator().manual_seed(1)) < 0.5
    task = tiny_task(model)
    width = model.original_model.config.intermediate_size
    neurons = NodeMask(mask.repeat_interleave(width, 1), "neuron")
    ours, theirs = (
        metrics.evaluate(model, task, one, ablation=ablation, **QUIET) for one in (NodeMask(mask, "expert"), neurons)
    )
    torch.testing.assert_close(ours, theirs)
    whole = metrics.evaluate(model, task, NodeMask(torch.ones_like(mask), "expert"), ablation=ablation, **QUIET)
    assert not torch.allclose(whole, ours, atol=1e-3)


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_an_experts_score_is_that_of_all_its_neurons(method: str) -> None:
    model = shared("mixtral")
    task = tiny_task(model)
    found = experts(model, task, method, **QUIET)
    of_neurons = mean_neuron_scores(Setting(model, task, run=Run(quiet=True)), chosen_method(method))  # type: ignore[arg-type]
    torch.testing.assert_close(found.values, of_neurons.unflatten(1, (N_EXPERTS, -1)).sum(-1))
    assert found.to_frame().columns.tolist() == ["node", "layer", "expert", "score"]
    assert found.to_frame()["node"][0].startswith("m")


def test_exact_scores_are_what_is_lost_without_one_expert() -> None:
    model = shared("mixtral")
    task = tiny_task(model, n=2)
    found = experts(model, task, "exact", ablation="zero", **QUIET)
    full = torch.ones(3, N_EXPERTS, dtype=torch.bool)
    without = full.clone()
    without[1, 2] = False
    clean, less = (
        metrics.evaluate(model, task, NodeMask(mask, "expert"), ablation="zero", **QUIET) for mask in (full, without)
    )
    assert float(found.values[1, 2]) == pytest.approx(float((clean - less).mean()), abs=1e-6)


@pytest.mark.parametrize("token", [CONTEXT, MEMORY])
def test_the_planted_expert_is_found(planted: Any, token: int) -> None:
    task = planted_task(planted, token)
    for method in ("eap", "exact"):
        scores = experts(planted, task, method, **QUIET)
        assert metrics.auroc(scores, known(token), level="expert") == 1
    circuit = find_circuit(planted, task, level="expert", nodes=1, method="eap", n_random=2, **QUIET)
    assert list(circuit.nodes) == [f"m1.e{EXPERT[token]}"]
    assert torch.equal(circuit.node_mask, known(token))
    assert circuit.report.faithfulness == pytest.approx(1)


def test_a_model_without_experts_is_refused() -> None:
    model = shared("llama")
    for act in (
        lambda: experts(model, tiny_task(model), "eap", **QUIET),
        lambda: find_circuit(model, tiny_task(model, n=8), level="expert", **QUIET),
    ):
        with pytest.raises(InputError, match="has no mixture of experts"):
            act()


def test_qwen3_moe_from_a_folder(tmp_path: Path) -> None:
    settings = {"moe_intermediate_size": 8, "decoder_sparse_step": 1, "head_dim": 4}
    moe_module("qwen3_moe", **settings).save_pretrained(tmp_path)  # type: ignore[operator]
    model = load_model(tmp_path)
    scores = experts(model, tiny_task(model), "eap", **QUIET)
    assert scores.values.shape == (2, 4)
    assert (scores.values != 0).any(1).all()
