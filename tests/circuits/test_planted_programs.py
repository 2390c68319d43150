from __future__ import annotations

import pytest
import torch

from benchmarks.planted import boolean, induction
from benchmarks.planted.siit import Nodes, Recipe, measure, train
from benchmarks.planted.trained import PLANS
from circuits import planted
from circuits.planted.models import empty
from circuits.planted.programs import ONE, PROGRAMS

ANSWERS = {  # in plain Python, from a prompt's words
    "induction": lambda words: words[words.index(words[-1]) + 1],
    "boolean": lambda words: "true" if (words[1] == "1" and words[2] == "1") != (words[3] == "1") else "false",
    "greater": lambda words: "yes" if int(words[1]) > int(words[3]) else "no",
    "sum": lambda words: str(int(words[1]) + int(words[3]) + int(words[5])),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_answers_and_counterfactuals(name: str) -> None:
    program = PROGRAMS[name]
    clean, corrupted = program.pairs(200, torch.Generator().manual_seed(3))
    for prompts in (clean, corrupted):
        assert prompts.shape == (200, program.length)
        for prompt, answer in zip(prompts.tolist(), program.answer(prompts).tolist(), strict=True):
            assert program.words[answer] == ANSWERS[name]([program.words[i] for i in prompt])
    assert (program.answer(clean) != program.answer(corrupted)).all()


@pytest.mark.parametrize("name", PROGRAMS)
def test_tasks_follow_their_seed(name: str) -> None:
    program = PROGRAMS[name]
    assert program.task(8, 0).to_dict() == program.task(8, 0).to_dict()
    assert program.task(8, 0).to_dict() != program.task(8, 1).to_dict()


@pytest.mark.parametrize(("name", "maker"), [("induction", induction), ("boolean", boolean)])
def test_the_makers_make_what_is_shipped(name: str, maker) -> None:
    module, _ = maker.build()
    shipped = planted.load(name).model
    prompts = PROGRAMS[name].sample(16, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(module(prompts).logits, shipped(prompts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PLANS)
def test_causal_models_agree_with_the_program(name: str) -> None:
    plan, program = PLANS[name], PROGRAMS[name]
    base, other = (program.sample(100, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    none, every = ({node: torch.full((100,), on) for node in plan.nodes} for on in (False, True))
    assert plan.causal(base, other, none).equal(program.answer(base))
    assert plan.causal(base, other, every).equal(program.answer(other))  # the last variable is the answer


@pytest.mark.parametrize("name", PLANS)
def test_swapped_nodes_write_what_they_wrote_on_the_other_prompt(name: str) -> None:
    nodes = Nodes(empty(PLANS[name].config))
    program = PROGRAMS[name]
    base, other = (program.sample(6, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with torch.no_grad():
        clean, written = nodes.run(base)
        _, values = nodes.run(other)
        everything = torch.ones(6, len(nodes.names), dtype=torch.bool)
        same, again = nodes.run(base, everything, written)
        torch.testing.assert_close(same, clean)
        _, swapped = nodes.run(base, everything, values)
        assert all(a.equal(b) for a, b in zip(swapped, values, strict=True))
        # one head of the last layer alone, and of half of the prompts: all else as before
        one = torch.zeros_like(everything)
        one[:3, nodes.names.index(f"a{len(nodes.blocks) - 1}.h2")] = True
        _, partly = nodes.run(base, one, values)
    d_head = written[-2].shape[-1] // nodes.n_heads
    here = slice(2 * d_head, 3 * d_head)
    assert partly[-2][:3, :, here].equal(values[-2][:3, :, here])
    assert partly[-2][3:].equal(written[-2][3:])
    assert partly[-2][:, :, : 2 * d_head].equal(written[-2][:, :, : 2 * d_head])
    assert all(a.equal(b) for a, b in zip(partly[:-2], written[:-2], strict=True))
    assert len(again) == 2 * len(nodes.blocks)


def test_training_learns_in_a_few_steps() -> None:
    plan, program = PLANS["greater"], PROGRAMS["greater"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = empty(plan.config)
    before = measure(module, program, plan.causal, plan.nodes, n=256)
    train(module, program, plan.causal, plan.nodes, Recipe(steps=30, batch=32))
    after = measure(module, program, plan.causal, plan.nodes, n=256)
    assert before["accuracy"] < 0.2
    assert after["accuracy"] > 0.4  # it has learned at least which two tokens are answers


def test_booleans_are_bits() -> None:
    prompts = PROGRAMS["boolean"].sample(100, torch.Generator().manual_seed(0))
    assert set((prompts[:, 1:-1] == ONE).double().mean(0).gt(0.3).tolist()) == {True}
