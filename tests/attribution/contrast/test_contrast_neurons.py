"""`attribution.contrast_neurons`: against slow oracles, on planted neurons, interrupted, and with bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

import attribution
from attribution import EAP, MaskIG, NeuronContrast, contrast_neurons
from attribution.contrast import explain
from attribution.contrast.moments import Moments, benjamini_hochberg
from attribution.units.nodes import scores_of_nodes
from attribution.units.weights import full_circuit, node_scores_by_prompt
from interp import Setting, Task
from interp.errors import InputError
from interp.result import Result
from tests.planted_neurons import PLANTED, planted_model, planted_questions
from tests.tiny import LAYERS, MLP, shared, tiny_task

STEPS = 5
EACH = MaskIG(steps=2)


def prompts_of(task):
    return [(one.clean, one.correct, one.incorrect) for one in task.examples]


def probability(module, prompt, answers):
    """Of any of the answers, each token after the other."""
    total = 0.0
    for answer in answers:
        tokens = answer if isinstance(answer, tuple) else (answer,)
        logits = module(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        total = total + sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(tokens)).exp()
    return total


def differences_by_hand(model, task):
    """D [n, layer, d_mlp]: weights in front of the output matrices of the module itself, at midpoints."""
    module, found = model.original_model, []
    for prompt, correct, incorrect in prompts_of(task):
        total = torch.zeros(LAYERS, MLP, dtype=torch.float64)
        for step in range(STEPS):
            weights = torch.full((LAYERS, MLP), (step + 0.5) / STEPS, dtype=torch.float64, requires_grad=True)
            handles = [
                block.mlp.down_proj.register_forward_pre_hook(lambda _, given, w=weight: (given[0] * w,))
                for block, weight in zip(module.model.layers, weights, strict=True)
            ]
            try:
                value = probability(module, prompt, correct) - probability(module, prompt, incorrect)
                total += torch.autograd.grad(value, weights)[0] / STEPS
            finally:
                [handle.remove() for handle in handles]
        found.append(total)
    return torch.stack(found)


def bh_by_hand(p_values):
    """The smallest false discovery rate at which each is rejected, by the definition."""
    flat = sorted(p_values)
    m = len(flat)
    return [min(min(flat[k] * m / (k + 1) for k in range(m) if flat[k] >= p), 1.0) for p in p_values]


# ---- against oracles


def test_differences_and_tests_are_those_of_a_slow_oracle():
    model = shared("llama")
    task = tiny_task(model, 3, ragged=True)
    found = contrast_neurons(model, task, steps=STEPS, quiet=True)
    by_hand = differences_by_hand(model, task)
    assert torch.allclose(found.values, by_hand.mean(0), atol=1e-13, rtol=1e-9)
    test = ttest_1samp(by_hand.numpy(), 0.0)
    assert np.allclose(found.statistic, test.statistic, rtol=1e-8)
    assert np.allclose(found.p, test.pvalue, rtol=1e-8)
    assert np.allclose(found.q.flatten(), bh_by_hand(test.pvalue.flatten().tolist()), rtol=1e-8)
    assert found.n_questions == 3
    assert found.settings["quadrature"] == "midpoint"


def test_answers_of_several_tokens_are_read_one_token_after_the_other():
    model = shared("llama")
    task = Task.from_tokens(
        "two tokens", [[4, 5, 6], [9, 7, 8]], [[4, 5, 7], [9, 7, 9]], [[[8, 9]], [[3]]], [[[9]], [[4, 4, 4], [11]]]
    )
    found = contrast_neurons(model, task, steps=STEPS, quiet=True)
    assert torch.allclose(found.values, differences_by_hand(model, task).mean(0), atol=1e-13, rtol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gptj"])
def test_of_each_prompt_scores_add_up_and_their_mean_is_that_of_the_nodes_weights(name):
    model = shared(name)
    setting = Setting(model, tiny_task(model, 3, ragged=True), ablation="zero", objective="probability-difference")
    method = MaskIG(steps=16)
    found = by_prompt(setting, method)
    nodes = scores_of_nodes(setting, method, "neuron").values
    assert torch.allclose(found.mean(0), nodes, atol=1e-14, rtol=1e-10)
    empty = setting.nodes("neuron").empty()
    measured = setting.measure([_mask(empty)])
    assert torch.allclose(found.sum((1, 2)), measured.clean - measured.empty, atol=1e-4)


def by_prompt(setting, method, level="neuron"):
    return node_scores_by_prompt(setting, full_circuit(setting, level), method.points)


@pytest.mark.parametrize("level", ["head", "node"])
def test_prompts_have_weights_of_their_own_at_every_level_and_for_every_answer(level):
    model = shared("gemma2")
    task = Task.from_tokens(
        "two", [[4, 5, 6], [9, 7, 8]], [[4, 5, 7], [9, 7, 9]], [[[8, 9], [3]], [[3]]], [[[9]], [[4]]]
    )
    setting = Setting(model, task, ablation="patch", objective="probability-difference")
    found, alone = (
        by_prompt(setting, EACH, level),
        [scores_of_nodes(setting.select([i]), EACH, level).values for i in range(2)],
    )
    assert found.abs().max() > 1e-6
    assert torch.allclose(found, torch.stack(alone), atol=1e-14, rtol=1e-10)


def _mask(tensor):
    from interp.node_mask import NodeMask

    return NodeMask(tensor, "neuron")


def test_other_methods_give_the_scores_that_they_give_elsewhere():
    model = shared("llama")
    task = tiny_task(model, 5)
    setting = Setting(model, task, ablation="zero", objective="probability-difference")
    found = contrast_neurons(model, task, "eap", quiet=True)
    assert torch.allclose(found.values, scores_of_nodes(setting, EAP(), "neuron").values, atol=1e-14)
    own = contrast_neurons(model, task, "eap-ig-activations", credit="own", steps=3, quiet=True)
    assert own.settings["steps"] == 3
    assert not torch.allclose(own.values, found.values, atol=1e-6)


def test_running_sums_are_those_of_all_values_at_once():
    values = torch.randn(50, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    values[:, 0, 0], values[:, 1, 1] = 0.0, 0.1
    moments = Moments.of_none(3, 4, draws=2)
    signs = torch.ones(2, 50)
    signs[1, ::3] = -1
    for part, some in zip(values.split([7, 20, 1, 22]), signs.split([7, 20, 1, 22], 1), strict=True):
        moments = moments.with_more(part.float() if len(part) == 1 else part, some)
    values[27] = values[27].float()
    assert torch.allclose(moments.mean, values.mean(0), rtol=1e-12)
    assert torch.allclose(moments.variance, values.var(0), rtol=1e-10, atol=1e-12)
    plain, turned = moments.draws()
    assert torch.allclose(plain.mean, moments.mean)
    by_hand = signs[1].double()[:, None] * values[:, 2]
    assert torch.allclose(turned.mean[2], by_hand.mean(0), atol=1e-12)
    assert np.allclose(turned.t_test()[0][2], ttest_1samp(by_hand.numpy(), 0.0).statistic, rtol=1e-8)
    statistic, p_values = moments.t_test()
    assert (float(statistic[0, 0]), float(p_values[0, 0])) == (0.0, 1.0)  # a neuron that never does anything
    expected = ttest_1samp(values[:, 2].numpy(), 0.0)
    assert np.allclose(statistic[2], expected.statistic, rtol=1e-10)
    assert np.allclose(p_values[2], expected.pvalue, rtol=1e-6)


def test_groups_are_one_observation_each():
    model = shared("llama")
    task, groups = tiny_task(model, 6, ragged=True), [4, 1, 4, 1, 9, 9]
    found = contrast_neurons(model, task, steps=2, groups=groups, quiet=True)
    setting = Setting(model, task, ablation="zero", objective="probability-difference")
    each = by_prompt(setting, MaskIG(steps=2, quadrature="midpoint"))
    by_group = torch.stack([each[[1, 3]].mean(0), each[[0, 2]].mean(0), each[[4, 5]].mean(0)])
    assert (found.n_questions, found.n_groups) == (6, 3)
    assert torch.allclose(found.values, by_group.mean(0), atol=1e-14)
    assert np.allclose(found.statistic, ttest_1samp(by_group.numpy(), 0.0).statistic, rtol=1e-8)


def test_correction_counts_the_neurons_that_exist():
    p_values = torch.tensor([[0.01, 0.04, 1.0], [0.03, 0.5, 0.002]], dtype=torch.float64)
    exist = torch.tensor([[True, True, False], [True, True, True]])
    found = benjamini_hochberg(p_values, exist)
    assert found[exist].tolist() == pytest.approx(bh_by_hand(p_values[exist].tolist()))
    assert float(found[0, 2]) == 1.0


# ---- planted neurons


def planted_mask():
    mask = torch.zeros(LAYERS, MLP, dtype=torch.bool)
    for place in PLANTED:
        mask[place] = True
    return mask


def test_planted_neurons_are_found():
    found = contrast_neurons(planted_model(), planted_questions(), quiet=True)
    assert found.settings["steps"] == 20
    assert roc_auc_score(planted_mask().flatten(), found.values.abs().flatten()) == 1.0
    assert bool((found.values[planted_mask()] > 0).all())
    assert len(found.by_chance) == 20
    assert np.mean(found.by_chance) < len(PLANTED)
    assert bool(found.survivors("correct").mask[planted_mask()].all())
    assert found.by_layer()["correct"].sum() == found.survivors("correct").n_nodes
    strongest = found.to_frame().sort_values("difference", ascending=False).head(len(PLANTED))
    assert set(zip(strongest["layer"], strongest["neuron"], strict=True)) == set(PLANTED)


def test_answers_the_other_way_round_turn_the_sign():
    task = planted_questions()
    turned = Task.from_pairs(
        "turned", [(one.clean, one.corrupted, list(one.incorrect), list(one.correct)) for one in task.examples]
    )
    found, other = (contrast_neurons(planted_model(), one, steps=3, quiet=True) for one in (task, turned))
    assert torch.allclose(found.values, -other.values, atol=1e-15)
    assert torch.allclose(found.p, other.p)


# ---- interrupted, kept, shown


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model = shared("llama")
    task, path = tiny_task(model, 7), tmp_path / "contrast.safetensors"
    monkeypatch.setattr(explain, "_TOGETHER", 2)
    whole = contrast_neurons(model, task, steps=2, quiet=True)
    seen, scored = [], explain._by_question

    def interrupted(setting, how):
        seen.append(len(setting))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return scored(setting, how)

    monkeypatch.setattr(explain, "_by_question", interrupted)
    with pytest.raises(KeyboardInterrupt):
        contrast_neurons(model, task, steps=2, resume=path, quiet=True)
    again = contrast_neurons(model, task, steps=2, resume=path, quiet=True)
    assert seen == [2, 2, 2, 2, 1]
    assert torch.equal(again.values, whole.values)
    assert torch.equal(again.q, whole.q)
    with pytest.raises(InputError, match="belongs to another run"):
        contrast_neurons(model, task, steps=3, resume=path, quiet=True)


def test_batches_change_nothing():
    model = shared("llama")
    task = tiny_task(model, 5, ragged=True)
    one, other = (contrast_neurons(model, task, steps=2, batch_size=size, quiet=True) for size in (1, 4))
    assert torch.allclose(one.values, other.values, atol=1e-14)
    assert torch.allclose(one.statistic, other.statistic, rtol=1e-8)


def test_a_result_is_kept_and_shown(tmp_path):
    found = contrast_neurons(planted_model(), planted_questions(8), steps=2, quiet=True, alpha=0.1)
    again = Result.load(found.save(tmp_path / "contrast.json"))
    assert isinstance(again, NeuronContrast)
    assert torch.equal(again.q, found.q)
    assert repr(again) == repr(found)
    assert found.to_frame().columns.tolist() == ["layer", "neuron", "difference", "t", "p", "q"]
    assert len(found.to_frame()) == LAYERS * MLP
    assert found.top(3).equals(found.to_frame().head(3))
    assert found.figure().layout.xaxis.title.text == "layer"
    assert "<table" in found._repr_html_()
    assert found.strongest(5).n_nodes == 5
    speaks = found.strongest(5, "incorrect").mask
    assert bool((found.values[speaks] < 0).all())


# ---- what cannot be


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"method": "exact"}, "patches neurons one at a time"),
        ({"method": "acdc"}, "has no meaning for neurons"),
        ({"method": "no-such"}, "method='no-such' is unknown"),
        ({"method": "eap-ig"}, "ablation"),
        ({"steps": 0}, "steps=0"),
        ({"objective": "accuracy"}, "accuracy"),
        ({"groups": [0, 1]}, "groups has the shape [2]; it needs one entry for each of the 3 questions"),
        ({"groups": [0, 0, 0]}, "has 1 groups; a test of their mean needs at least two"),
        ({"draws": -1}, "draws=-1"),
        ({"ablation": "mean"}, "keyword of contrast_neurons='ablation' is unknown"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(given, sentence):
    model = shared("llama")
    with pytest.raises(InputError) as caught:
        contrast_neurons(model, tiny_task(model), quiet=True, **given)
    assert sentence in str(caught.value)


def test_what_is_no_contrast_is_refused():
    model = shared("llama")
    bare = Task.from_tokens("bare", [[4, 5], [6, 7]], [[4, 6], [6, 8]], [[8], [9]], objective="log-probability")
    with pytest.raises(InputError, match="question 0 has no incorrect answer"):
        contrast_neurons(model, bare, quiet=True)
    with pytest.raises(InputError, match="needs at least two"):
        contrast_neurons(model, tiny_task(model, 1), quiet=True)
    with pytest.raises(InputError, match="mixture of experts"):
        contrast_neurons(shared("mixtral"), tiny_task(shared("mixtral")), quiet=True)
    found = contrast_neurons(model, tiny_task(model), steps=1, quiet=True)
    with pytest.raises(InputError, match="toward='false' is unknown"):
        found.survivors("false")
    with pytest.raises(InputError, match="n=100 neurons are asked for"):
        found.strongest(100)
    assert attribution.contrast_neurons is contrast_neurons
