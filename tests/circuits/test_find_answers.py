"""Circuits for answers of several tokens and for unequal lengths, from the search to the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attribution import component_scores, neurons
from circuits import find_circuit
from circuits.viewer.linked import linked_views
from interp import Task
from interp.errors import InputError
from tests.tiny import VOCAB, shared

LENGTHS = ((6, 6), (5, 4), (6, 6), (4, 5), (5, 5), (6, 6), (4, 4), (5, 5))


@pytest.fixture(scope="module")
def task() -> Task:
    draw = torch.Generator().manual_seed(7)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, VOCAB, (count,), generator=draw).tolist()

    pairs = [(tokens(clean), tokens(corrupted), [tokens(2)], [tokens(3)]) for clean, corrupted in LENGTHS]
    return Task.from_pairs("several", pairs)


@pytest.mark.parametrize(("level", "size"), [("edge", {"edges": 60}), ("node", {"nodes": 6})])
def test_a_circuit_is_found_and_its_report_says_what_was_made_of_the_prompts(
    task: Task, level: Any, size: dict[str, int]
) -> None:
    circuit = find_circuit(shared("llama"), task, level=level, method="eap", quiet=True, **size)
    told = [note.partition(":")[0] for note in circuit.report.notes]
    assert "2 to 3 tokens are scored in each row (teacher-forced)" in told
    assert any("are of another length than the clean one" in note for note in told)
    assert circuit.report.n_held_out == 4


def test_the_picture_shows_the_prompt_up_to_its_answer(task: Task) -> None:
    views = linked_views(shared("llama"), task, ["a1.h0", "m2"], example=1)
    assert (len(views.clean), len(views.corrupted)) == (5, 4)
    assert views.patterns.shape == (1, 5, 5)
    assert (len(views.correct), len(views.incorrect)) == (1, 1)


def test_what_is_told_by_prompt_and_position_wants_the_same_positions_and_one_row_a_prompt(task: Task) -> None:
    model = shared("llama")
    with pytest.raises(InputError, match="16 for 8 prompts, and scores of components are told by prompt"):
        component_scores(model, task)
    with pytest.raises(InputError, match=r"prompt 1 has .* and scores of neurons compare them position by position"):
        neurons(model, task)
    alone = Task.from_tokens("alone", [[5, 6, 7]], [[5, 8, 7]], [[[9, 10]]], objective="log-probability")
    found = neurons(model, alone, rules="gradient")
    assert found.values.shape[2] == 4
    assert found.values[:, :, 1:].any()
