"""Prompts: padding, selection, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from interp.errors import InputError
from interp.tasks import Prompts


def example() -> Prompts:
    return Prompts.from_lists(
        clean=[[5, 6, 7], [5, 8], [9, 9, 9, 4]],
        corrupted=[[5, 6, 1], [6, 8], [9, 2, 9, 3]],
        correct=[[1], [2, 3], [4]],
        incorrect=[[2], [], [5, 6]],
    )


def test_padding_is_on_the_right() -> None:
    prompts = example()
    assert prompts.clean.tolist() == [[5, 6, 7, 0], [5, 8, 0, 0], [9, 9, 9, 4]]
    assert prompts.lengths.tolist() == [3, 2, 4]
    assert prompts.mask.sum(1).tolist() == [3, 2, 4]
    assert prompts.correct.tolist() == [[1, -1], [2, 3], [4, -1]]
    assert prompts.incorrect_mask.tolist() == [[True, False], [False, False], [True, True]]
    assert prompts.correct_mask.sum(1).tolist() == [1, 2, 1]


def test_first_difference_ignores_padding() -> None:
    assert example().first_difference.tolist() == [2, 0, 1]
    prompts = Prompts(
        clean=torch.tensor([[1, 2, 0]]),
        corrupted=torch.tensor([[1, 3, 7]]),
        lengths=torch.tensor([2]),
        correct=torch.tensor([[1]]),
        incorrect=torch.tensor([[-1]]),
    )
    assert prompts.first_difference.tolist() == [1]


def test_select_trims_the_padding() -> None:
    prompts = example().select([1, 0])
    assert prompts.clean.tolist() == [[5, 8, 0], [5, 6, 7]]
    assert prompts.incorrect.tolist() == [[-1], [2]]
    assert prompts.first_difference.tolist() == [0, 2]
    assert example().select([1]).incorrect.shape == (1, 0)
    assert example().select(slice(2, 3)).clean.tolist() == [[9, 9, 9, 4]]
    assert example().select(torch.tensor([2, 1])).lengths.tolist() == [4, 2]
    assert len(example().select(torch.tensor([True, False, True]))) == 2
    with pytest.raises(InputError, match="there are no prompts"):
        example().select([])


def test_to_keeps_everything() -> None:
    prompts = example()
    assert prompts.to("cpu") is prompts
    assert repr(prompts) == "Prompts(n=3, tokens=2-4, device=cpu)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": torch.zeros(3, 4)}, "clean is float32 of shape"),
        ({"clean": torch.zeros(4, dtype=torch.int64)}, "clean is int64 of shape"),
        ({"corrupted": torch.zeros(2, 4, dtype=torch.int64)}, "corrupted has 2 rows, but there are 3"),
        ({"corrupted": torch.zeros(3, 5, dtype=torch.int64)}, r"clean has the shape \[3, 4\], corrupted \[3, 5\]"),
        ({"lengths": torch.tensor([3, 0, 4])}, "prompt 1 has the length 0"),
        ({"lengths": torch.tensor([3, 2, 5])}, "prompt 2 has the length 5"),
        ({"correct": torch.tensor([[1], [-1], [2]])}, "prompt 1 has no correct answer"),
        ({"incorrect": torch.tensor([[1], [-1], [-2]])}, "incorrect holds a negative token id in prompt 2"),
        ({"clean": torch.tensor([[5, -6, 7, 0], [5, 8, 0, 0], [9, 9, 9, 4]])}, "negative token id in prompt 0"),
        (
            {"corrupted": torch.tensor([[5, 6, 1, 0], [5, 8, 3, 3], [9, 2, 9, 3]])},
            "prompt 1 has a corrupted version equal to the clean one",
        ),
    ],
)
def test_refusals(change: dict[str, torch.Tensor], message: str) -> None:
    good = example()
    fields = {name: getattr(good, name) for name in ("clean", "corrupted", "lengths", "correct", "incorrect")}
    with pytest.raises(InputError, match=message):
        Prompts(**(fields | change))


def test_no_prompts_and_uneven_lists_are_refused() -> None:
    with pytest.raises(InputError, match="there are no prompts"):
        Prompts.from_lists([], [], [], [])
    with pytest.raises(InputError, match="one entry per prompt; they have 1, 1, 2, 1"):
        Prompts.from_lists([[1]], [[2]], [[1], [2]], [[]])
