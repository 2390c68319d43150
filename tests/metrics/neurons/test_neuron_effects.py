"""`metrics.neuron_effects`: scaled runs against hooks, planted neurons against random ones, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import NodeMask
from interp.errors import InputError
from interp.result import Result
from metrics import NeuronEffects, neuron_effects
from tests.planted_neurons import PLANTED, planted_model, planted_questions
from tests.tiny import LAYERS, MLP, behaving, shared, tiny_task


def mask_of(*places):
    mask = torch.zeros(LAYERS, MLP, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


PLANTED_MASK = mask_of(*PLANTED)


def effect(found, objective, factor, task="planted"):
    (one,) = (x for x in found.effects if (x.task, x.objective, x.factor) == (task, objective, factor))
    return one


def logit_differences(model, task, factors):
    """By hooks in front of the module's own output matrices."""
    module, found = model.original_model, []
    for one in task.examples:
        handles = [
            block.mlp.down_proj.register_forward_pre_hook(lambda _, given, w=weight: (given[0] * w,))
            for block, weight in zip(module.model.layers, factors, strict=True)
        ]
        try:
            logits = module(torch.tensor([one.clean])).logits[0, -1]
        finally:
            [handle.remove() for handle in handles]
        found.append(float(logits[one.correct[0]] - logits[one.incorrect[0]]))
    return np.array(found)


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_scaled_runs_are_those_of_the_module_with_hooks(factor):
    model, mask = shared("llama"), mask_of((0, 1), (1, 5), (2, 9))
    task = tiny_task(model, 4, ragged=True)
    found = neuron_effects(model, task, mask, (factor,), n_random=0, quiet=True)
    by_hand = logit_differences(model, task, torch.where(mask, factor, 1.0).double())
    clean = logit_differences(model, task, torch.ones(LAYERS, MLP, dtype=torch.float64))
    one = effect(found, "logit-difference", factor, task="tiny")
    assert one.scaled.value == pytest.approx(by_hand.mean(), abs=1e-10)
    assert one.clean.value == pytest.approx(clean.mean(), abs=1e-10)
    assert one.change.value == pytest.approx((by_hand - clean).mean(), abs=1e-10)
    assert effect(found, "accuracy", factor, task="tiny").scaled.value == (by_hand > 0).mean()
    assert one.random is None
    assert np.isnan(one.p)


def test_suppressing_planted_neurons_takes_all_and_random_ones_take_nothing():
    found = neuron_effects(planted_model(), planted_questions(seed=1), NodeMask(PLANTED_MASK, "neuron"), quiet=True)
    right, log = (effect(found, name, 0.0) for name in ("accuracy", "logit-difference"))
    assert right.clean.value == 1.0
    assert right.scaled.value == 0.0  # equal logits are no preference
    assert right.random.value == 0.0
    assert abs(log.scaled.value) < 1e-10
    assert abs(log.random.value) < 0.2 * abs(log.change.value)
    assert log.p < 0.001
    more = effect(found, "logit-difference", 2.0)
    assert more.change.low > 0.3 * more.clean.value
    assert found.n_neurons == len(PLANTED)


def test_a_factor_of_one_changes_nothing_and_other_tasks_are_measured_too():
    model = shared("llama", torch.float32)
    task, other = tiny_task(model, 4), behaving(model, 5)
    found = neuron_effects(model, task, mask_of((0, 0)), (1.0,), others=[other], n_random=2, quiet=True)
    assert [one.task for one in found.effects] == ["tiny", "tiny", "behaving", "behaving"]
    assert all(one.change.value == pytest.approx(0, abs=1e-6) for one in found.effects)
    again = neuron_effects(model, task, mask_of((0, 0)), (1.0,), others=[other], n_random=2, quiet=True, batch_size=1)
    assert np.allclose(found.to_frame()["scaled"], again.to_frame()["scaled"], atol=1e-5)


def test_a_result_is_kept_and_shown(tmp_path):
    model = shared("llama")
    found = neuron_effects(model, tiny_task(model, 4), mask_of((1, 1), (2, 3)), n_random=2, quiet=True, seed=3)
    again = Result.load(found.save(tmp_path / "effects.json"))
    assert isinstance(again, NeuronEffects)
    assert again.to_frame().equals(found.to_frame())
    assert found.to_frame().columns[:4].tolist() == ["task", "objective", "factor", "clean"]
    assert len(found.figure().data) == 2
    assert "2 neurons times 0 change logit-difference of tiny by" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("neurons", "factors", "sentence"),
    [
        (torch.zeros(LAYERS, MLP, dtype=torch.bool), (0.0,), "neurons is empty"),
        (torch.ones(2, MLP, dtype=torch.bool), (0.0,), "does not fit"),
        (torch.ones(2, LAYERS, MLP, dtype=torch.bool), (0.0,), "must be one circuit of level 'neuron'"),
        (NodeMask(torch.ones(LAYERS, 4, dtype=torch.bool), "head"), (0.0,), "must be one circuit of level 'neuron'"),
        ([(0, 1)], (0.0,), "level='neuron' goes with a bool tensor; got list"),
        (PLANTED_MASK, (), "factors is empty"),
        (PLANTED_MASK, (-1.0,), "factors[0]=-1.0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(neurons, factors, sentence):
    model = shared("llama")
    with pytest.raises(InputError) as caught:
        neuron_effects(model, tiny_task(model), neurons, factors, quiet=True)
    assert sentence in str(caught.value)
