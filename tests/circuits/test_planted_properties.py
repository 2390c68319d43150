"""Programs that hypothesis draws, written into weights: the model computes them, and their circuit is found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attribution import attribute
from interp.graph import ComputationalGraph
from interp.models import load_model
from metrics import auroc, faithfulness, measure
from tests.gates import ASK, BOS, FALSE, GAP, TRUE, ZERO, Gate, Gates

# both arguments matter: all but the constants, and the four that are one of them or its opposite
TABLES = [
    table
    for table in itertools.product((False, True), repeat=4)
    if table[:2] != table[2:] and table[::2] != table[1::2]
]


@st.composite
def programs(draw: Any) -> Gates:
    """Of three or four bits and one to three gates."""
    bits, gates = draw(st.integers(3, 4)), list[Gate]()
    for known in range(bits, bits + draw(st.integers(1, 3))):
        reads = draw(st.lists(st.integers(0, known - 1), min_size=2, max_size=2, unique=True))
        gates.append(Gate((reads[0], reads[1]), draw(st.sampled_from(TABLES))))
    found = Gates(bits, tuple(gates))
    assume(len(found.answers) == 2)
    return found


@settings(max_examples=10)
@given(drawn=programs())
def test_the_model_computes_the_program_on_every_prompt(drawn: Gates) -> None:
    bits = torch.tensor(list(itertools.product((0, 1), repeat=drawn.bits))) + ZERO
    prompts = torch.nn.functional.pad(torch.nn.functional.pad(bits, (1, 0), value=BOS), (0, 1), value=ASK)
    with torch.no_grad():
        logits = drawn.build()(prompts).logits[:, -1]
    assert torch.equal(logits.argmax(1), drawn.program.answer(prompts))
    gaps = (logits[:, TRUE] - logits[:, FALSE]).abs()
    torch.testing.assert_close(gaps, torch.full_like(gaps, GAP), atol=0.05, rtol=0)


@settings(max_examples=8)
@given(drawn=programs(), seed=st.integers(0, 99))
def test_exact_patching_finds_the_program_and_its_circuit_does_it_alone(drawn: Gates, seed: int) -> None:
    model, task = load_model(drawn.build(), device="cpu"), drawn.program.task(32, seed)
    prompts, graph = task.prompts(model), ComputationalGraph.of(model)
    effects = drawn.effects(prompts.clean, prompts.corrupted)
    assume(min(effects.values()) > 0)  # an edge may do nothing alone where others make up for it
    expected = torch.zeros(graph.shape)
    for name, effect in effects.items():
        expected[graph.edge_index(name)] = effect
    mask = expected > 0
    scores = attribute(model, task, "exact", quiet=True)
    torch.testing.assert_close(scores.values, expected, atol=0.1, rtol=0)
    assert torch.equal(scores.mask(int(mask.sum())), mask)
    assert auroc(scores, mask) == 1.0
    masks = torch.stack((mask, graph.edge_mask & ~mask))
    alone, rest = faithfulness(measure(model, task, masks, quiet=True), resamples=20)
    assert alone.value == pytest.approx(1, abs=0.01)
    assert rest.value == pytest.approx(0, abs=0.01)
