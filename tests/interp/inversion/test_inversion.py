"""Prompts from hidden states: beside brute force on the transformers module, where it stops, and what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from interp import InputError, Result
from interp.inversion import GradientOrder, Inversion, RandomOrder, hidden_states, invert
from tests.tiny import ARCHITECTURES, D_MODEL, LAYERS, VOCAB, shared, tiny

IDS = torch.tensor([[5, 9, 2, 30, 7], [8, 8, 8, 3, 21]])
QUIET: dict[str, Any] = {"quiet": True}


def of_module(model: Any, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """What transformers calls hidden states, the last behind the final norm. OPT behind a bridge doubles some."""
    with torch.no_grad():
        every = model.original_model(ids, output_hidden_states=True, use_cache=False).hidden_states
    distinct = [every[0], *(after for before, after in itertools.pairwise(every) if not torch.equal(before, after))]
    return distinct[layer] if layer < LAYERS else distinct[-1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prompts_come_back_from_every_layer_of_the_module(name: str):
    model = shared(name)
    for layer in range(LAYERS + 1):
        states, normed = list(of_module(model, IDS, layer)), layer == LAYERS
        found = invert(model, states, layer, normed=normed, order=RandomOrder(batch=VOCAB), **QUIET)
        assert found.ids == IDS.tolist()
        assert found.complete == [True, True]
        assert found.found["distance"].max() < 1e-10 < 1e-4 < found.found["runner_up"].min()
        ours = hidden_states(model, IDS, layer, normed=normed)
        torch.testing.assert_close(torch.stack(ours), torch.stack(states), atol=1e-10, rtol=1e-10)


def test_distances_are_those_of_the_module_run_on_every_token():
    model, layer = shared("llama"), 2
    prefix, target = IDS[0, :3], of_module(model, IDS[:1], layer)[0]
    rows = torch.cat((prefix.repeat(VOCAB, 1), torch.arange(VOCAB)[:, None]), 1)
    distances = (of_module(model, rows, layer)[:, -1] - target[3]).norm(dim=1) / target[3].norm()
    found = invert(model, target[:4], layer, order=RandomOrder(batch=VOCAB), known=prefix, **QUIET)
    (row,) = found.found.to_dict("records")
    two = distances.sort().values[:2]
    assert (row["token"], row["position"], row["tried"]) == (IDS[0, 3], 3, VOCAB)
    assert row["runner_up"] == pytest.approx(float(two[1]), rel=1e-9)
    assert found.ids == [IDS[0, :4].tolist()]


@pytest.mark.parametrize("order", ["gradient", "random", GradientOrder(rounds=0), GradientOrder(steps=1, batch=3)])
def test_the_order_decides_how_many_are_tried_and_not_what_is_found(order: Any):
    model = shared("gpt2")
    found = invert(model, hidden_states(model, IDS, 1), 1, order=order, **QUIET)
    assert found.ids == IDS.tolist()
    assert found.to_frame()["tried"].between(1, VOCAB).all()


def test_the_gradient_tries_fewer_than_chance():
    model = shared("llama")
    states = hidden_states(model, IDS, 0)
    few, chance = (
        invert(model, states, 0, order=one, **QUIET) for one in (GradientOrder(batch=4), RandomOrder(batch=4))
    )
    assert few.found["tried"].mean() < chance.found["tried"].mean() / 2


def test_the_seed_decides_the_random_order():
    model = shared("llama")
    states = hidden_states(model, IDS, 1)
    tried = [
        invert(model, states, 1, order=RandomOrder(seed, batch=1), **QUIET).found["tried"].tolist()
        for seed in (1, 1, 2)
    ]
    assert tried[0] == tried[1] != tried[2]
    named = invert(model, states, 1, order="random", seed=1, **QUIET)
    assert named.ids == IDS.tolist()


def test_a_miss_ends_a_prompt_and_says_how_near_it_came():
    model = shared("llama")
    states = hidden_states(model, IDS, 2)
    states[0][4] += 1
    found = invert(model, states, 2, **QUIET)
    assert found.ids == [IDS[0, :4].tolist(), IDS[1].tolist()]
    assert found.complete == [False, True]
    (miss,) = found.misses.to_dict("records")
    assert (miss["prompt"], miss["position"], miss["tried"]) == (0, 4, VOCAB)
    assert miss["distance"] > found.tolerance
    assert "prompt 0 misses at position 4" in found.headline()
    wide = invert(model, states, 2, tolerance=2 * miss["distance"], **QUIET)
    assert len(wide.ids[0]) > 4


def test_of_many_prompts_the_first_tokens_are_tried_together_with_the_same_result():
    model = shared("llama")
    states = hidden_states(model, IDS, 2)
    states[0][0] += 1  # tries all tokens
    together = invert(model, states, 2, order=GradientOrder(rounds=0), **QUIET)
    alone = [invert(model, one, 2, order=GradientOrder(rounds=0), **QUIET) for one in states]
    assert together.ids == [alone[0].ids[0], alone[1].ids[0]] == [[], IDS[1].tolist()]
    assert together.misses["distance"].item() == pytest.approx(alone[0].misses["distance"].item(), rel=1e-9)


def test_states_that_were_rounded_are_a_miss_and_found_with_a_tolerance_for_it():
    model = shared("llama")
    rounded = [one.bfloat16() for one in hidden_states(model, IDS, LAYERS)]
    with pytest.raises(InputError, match="dtype"):
        invert(model, [one.long() for one in rounded], LAYERS, **QUIET)
    found = invert(model, rounded, LAYERS, **QUIET)
    assert found.complete == [False, False]
    assert found.misses["position"].tolist() == [0, 0]
    assert found.misses["distance"].between(1e-5, torch.finfo(torch.bfloat16).eps).all()
    assert invert(model, rounded, LAYERS, tolerance=0.01, **QUIET).ids == IDS.tolist()


def test_a_model_in_half_precision_has_a_tolerance_of_its_own():
    model = tiny("llama", dtype=torch.bfloat16)
    states = hidden_states(model, IDS[:1], 1)
    found = invert(model, states, 1, **QUIET)
    assert states[0].dtype == torch.bfloat16
    assert found.tolerance == pytest.approx(torch.finfo(torch.bfloat16).eps ** 0.5)
    assert found.ids == IDS[:1].tolist()


def test_a_result_is_read_as_it_was_written(tmp_path: Any):
    model = shared("gpt2")
    found = invert(model, hidden_states(model, IDS, 1), 1, **QUIET)
    read = Result.load(found.save(tmp_path / "found.json"))
    assert isinstance(read, Inversion)
    assert read.ids == found.ids
    assert "2 of 2 prompts recovered from layer 1" in read.headline()
    assert {trace.name for trace in found.figure().data} == {"accepted", "runner-up"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": LAYERS + 1}, "layer"),
        ({"layer": 1, "normed": True}, "normed=True goes with the stream behind the last block"),
        ({"layer": 1, "order": "best"}, "order"),
        ({"layer": 1, "order": 3}, "order must be one of gradient, random"),
        ({"layer": 1, "tolerance": 0}, "tolerance"),
        ({"layer": 1, "known": [VOCAB]}, "known must be token ids from 0"),
        ({"layer": 1, "known": "text"}, "known='text' must be a sequence of numbers"),
        ({"layer": 1, "known": [1] * 7}, "known holds 7 tokens"),
        ({"layer": 1, "states": torch.zeros(3, D_MODEL + 1)}, "states of prompt 0 must be"),
        ({"layer": 1, "states": torch.zeros(0, D_MODEL)}, "states of prompt 0 must be"),
        ({"layer": 1, "states": torch.full((3, D_MODEL), float("nan"))}, "finite floats"),
        ({"layer": 1, "states": []}, "states must be a tensor"),
        ({"layer": 1, "states": "text"}, "states must be a tensor"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], words: str):
    given = {"states": torch.zeros(7, D_MODEL), **settings}
    with pytest.raises(InputError, match=words):
        invert(shared("gpt2"), **given, **QUIET)
