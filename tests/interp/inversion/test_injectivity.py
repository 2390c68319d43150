"""How near states of different prompts come, against distances taken by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp import InputError, Result
from interp.inversion import hidden_states, injectivity
from tests.tiny import LAYERS, shared

IDS = [[5, 9, 2, 30], [5, 9, 2, 31], [8, 8, 8], [1, 2, 3, 4, 5]]


def test_distances_are_those_by_hand():
    model = shared("llama")
    found = injectivity(model, IDS, [0, 2], quiet=True)
    for row, layer in enumerate((0, 2)):
        last = [hidden_states(model, [ids], layer)[0][-1] for ids in IDS]
        for index, one in enumerate(last):
            others = {j: other for j, other in enumerate(last) if j != index}
            apart = {j: float((one - o).norm() / ((one.norm() + o.norm()) / 2)) for j, o in others.items()}
            nearest = min(apart, key=apart.__getitem__)
            assert found.neighbour[row, index] == nearest
            assert float(found.nearest[row, index]) == pytest.approx(apart[nearest], rel=1e-9)


def test_embeddings_of_one_token_collide():
    """In front of all blocks a state holds its own token alone."""
    model = shared("llama")
    found = injectivity(model, [[1, 7], [2, 7], [3, 4]], quiet=True)
    frame = found.to_frame().set_index("layer")
    assert frame.loc[0, "collisions"] == 2
    assert frame.loc[0, "smallest"] == 0
    assert (frame.loc[1:, "collisions"] == 0).all()
    assert found.layers == tuple(range(LAYERS + 1))
    assert "2 collisions among 3 prompts" in found.headline()


def test_a_result_is_read_as_it_was_written(tmp_path: Any):
    found = injectivity(shared("gpt2"), IDS, quiet=True)
    read = Result.load(found.save(tmp_path / "found.json"))
    torch.testing.assert_close(read.nearest, found.nearest)  # type: ignore[attr-defined]
    assert len(found.figure().data) == LAYERS + 1


@pytest.mark.parametrize(
    ("prompts", "layers", "words"),
    [
        ([[1, 2]], None, "at least two"),
        ([[1, 2], [3], [1, 2]], None, "prompts 0 and 2 are the same tokens"),
        (IDS, [], "at least one layer"),
        (IDS, [LAYERS + 1], "layers"),
    ],
)
def test_what_cannot_be_is_refused(prompts: Any, layers: Any, words: str):
    with pytest.raises(InputError, match=words):
        injectivity(shared("gpt2"), prompts, layers, quiet=True)
