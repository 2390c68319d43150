"""Training finds planted features again, and writes what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.dictionaries import Dictionary, capture_activations, loop, splice, train_dictionary
from interp.errors import InputError
from tests.dictionaries import random_dictionary
from tests.tiny import D_MODEL, VOCAB, tiny

WIDTH, PLANTED, ACTIVE = 24, 40, 2


def planted(seed: int = 0, n: int = 20000) -> tuple[Tensor, Tensor]:
    """Directions of length 1, and sums of two of them, of random lengths, about a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(PLANTED, WIDTH, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    which = torch.rand(n, PLANTED, generator=generator).topk(ACTIVE, -1).indices
    lengths = torch.zeros(n, PLANTED).scatter(-1, which, 0.5 + torch.rand(n, ACTIVE, generator=generator))
    return directions, lengths @ directions + 0.3


def found_again(one: Dictionary, directions: Tensor) -> float:
    """The mean over planted directions of the cosine with the feature that is nearest."""
    rows = one.W_dec / one.W_dec.norm(dim=1, keepdim=True)
    return float((directions @ rows.T).max(1).values.mean())


def test_planted_features_are_found_again() -> None:
    directions, x = planted()
    state = torch.get_rng_state()
    one = train_dictionary(x, 0, "residual", n_features=60, k=ACTIVE, steps=300, batch_size=256, learning_rate=0.006)
    assert torch.equal(torch.get_rng_state(), state)
    assert found_again(one, directions) > 0.95
    left = (x - one.decode(one.encode(x))).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert left < 0.1
    assert ((one.encode(x[:100]) > 0).sum(-1) <= ACTIVE).all()
    # fewer steps, the same seed: the same dictionary; random rows are far away
    few = [train_dictionary(x, 0, "residual", 60, ACTIVE, steps=3, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(few[0].W_enc, few[1].W_enc)
    assert not torch.equal(few[0].W_enc, few[2].W_enc)
    assert found_again(few[0], directions) < 0.8


def test_a_training_that_is_cut_off_goes_on_to_the_same_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = planted(n=2000)[1]
    settings: dict[str, Any] = {"steps": 30, "batch_size": 64, "quiet": True}
    whole = train_dictionary(x, 0, "residual", 60, ACTIVE, **settings)
    step, done = loop._Training.one_step, []

    def cut_off(self: Any, *given: Tensor) -> None:
        done.append(self.step)
        if len(done) == 25:
            raise KeyboardInterrupt
        step(self, *given)

    monkeypatch.setattr(loop._Training, "one_step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train_dictionary(x, 0, "residual", 60, ACTIVE, resume=tmp_path / "training", **settings)
    again = train_dictionary(x, 0, "residual", 60, ACTIVE, resume=tmp_path / "training", **settings)
    assert done == [*range(25), *range(20, 30)]
    assert torch.equal(again.W_enc, whole.W_enc)
    assert torch.equal(again.W_dec, whole.W_dec)
    with pytest.raises(InputError, match="belongs to another run"):
        train_dictionary(x + 1, 0, "residual", 60, ACTIVE, resume=tmp_path / "training", **settings)


def test_a_transcoder_learns_what_a_planted_one_writes() -> None:
    generator = torch.Generator().manual_seed(0)
    skip = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH
    directions, x = planted()
    y = torch.relu((x - 0.3) @ directions.T - 0.4) @ directions.flip(0) + x @ skip.T
    one = train_dictionary(
        x, 1, "transcoder", 60, 4, targets=y, skip=True, steps=600, batch_size=256, reads="normalized"
    )
    left = (y - one.decode(one.encode(x), x)).pow(2).sum() / (y - y.mean(0)).pow(2).sum()
    assert left < 0.1
    assert (one.reads, one.W_skip is not None) == ("normalized", True)


def test_captured_activations_are_what_a_dictionary_sees() -> None:
    model = tiny("gemma2")
    tokens = torch.randint(VOCAB, (2, 5), generator=torch.Generator().manual_seed(0))
    for place in ("transcoder-scope", "mlp", "residual", "embedding"):
        one = random_dictionary(place, D_MODEL)
        read, written = capture_activations(model, tokens, one.layer, one.site, reads=one.reads, writes=one.writes)
        seen = splice(model, tokens, one)
        torch.testing.assert_close(one.encode(read), seen.features[0].flatten(0, 1))
        torch.testing.assert_close(written - one.decode(one.encode(read), read), seen.errors[0].flatten(0, 1))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"activations": torch.full((4, 3), float("nan"))}, "activations holds 12 of 12 numbers that are NaN"),
    ({"activations": torch.ones(4, 3)}, "activations hold one row 4 times"),
    ({"activations": torch.ones(3)}, r"activations has shape \[3\]"),
    ({"k": 9}, "k=9 features cannot be active of n_features=8"),
    ({"targets": torch.ones(4, 3)}, "targets belong to site='transcoder'"),
    ({"site": "transcoder"}, "targets belong to site='transcoder'"),
    ({"site": "transcoder", "targets": torch.ones(4, 2)}, "they must be of one shape"),
    ({"skip": True}, "skip=True is for transcoders"),
    ({"steps": 0}, "steps=0 must be a whole number of at least 1"),
    ({"learnin_rate": 1}, "did you mean 'learning_rate'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], message: str) -> None:
    given = {"activations": torch.eye(4)[:, :3], "layer": 0, "site": "residual", "n_features": 8, "k": 2, "steps": 1}
    with pytest.raises(InputError, match=message):
        train_dictionary(**{**given, **changes})


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsify", None)
    with pytest.raises(InputError, match=r"pip install 'faithful-circuits\[dictionaries\]'"):
        train_dictionary(torch.eye(4), 0, "residual", 8, 2, steps=1)
