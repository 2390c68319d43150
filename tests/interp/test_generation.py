"""Text from the model itself: its distribution, its cache, its seeds, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp import GeneratedText, InputError, sample_text
from interp.generated import REASONS, why_dropped
from interp.generation import chosen_tokens
from tests.tiny import VOCAB, shared, tiny

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -3.0]], dtype=torch.float64)


def drawn(model: Any, n: int = 6, length: int = 8, **settings: Any) -> GeneratedText:
    return sample_text(model, n, length, quiet=True, **{"min_length": 1, **settings})


@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.1])
def test_tokens_come_as_often_as_their_probability(top_p: float) -> None:
    draws = (np.arange(1000) + 0.5) / 1000
    found = torch.bincount(chosen_tokens(LOGITS.expand(1000, -1), draws, top_p), minlength=4) / 1000
    wanted = LOGITS[0].softmax(0)  # .70, .10, .26, .00 before the cut
    if top_p < 1:
        wanted = wanted * torch.tensor([1, 0, top_p == 0.7, 0])
    torch.testing.assert_close(found.double(), wanted / wanted.sum(), rtol=0, atol=2e-3)


def test_texts_are_what_whole_passes_give_token_by_token() -> None:
    """An oracle without a cache, of one text at a time, which stops at the end token."""
    model = shared("llama")
    found = drawn(model, 3, seed=3, temperature=2.0)
    assert (found.ids[:, 0] == 0).all()
    for index, row in enumerate(found.ids):
        draws, text = np.random.default_rng([3, index]).random(8), [0]
        for draw in draws:
            with torch.no_grad():
                likely = (model(torch.tensor([text]))[0, -1] / 2).softmax(0)
            token = int((likely.cumsum(0) <= draw).sum())
            if token == 1:
                break
            text.append(token)
        assert row[row >= 0].tolist() == text
    assert torch.equal(drawn(model, 3, seed=3, temperature=2.0, batch_size=2).ids, found.ids)
    assert not torch.equal(drawn(model, 3, seed=4, temperature=2.0).ids, found.ids)


def test_a_run_that_is_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = shared("llama"), tmp_path / "text"
    whole, done = drawn(model, batch_size=2), []

    def stopped(*given: Any) -> torch.Tensor:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given)
        return own(*given)

    from interp import generation

    own = generation._sampled
    monkeypatch.setattr(generation, "_sampled", stopped)
    with pytest.raises(KeyboardInterrupt):
        drawn(model, batch_size=2, resume=file)
    done.pop()  # one more batch may be drawn, and is enough
    assert torch.equal(drawn(model, batch_size=2, resume=file).ids, whole.ids)
    with pytest.raises(InputError, match="belongs to another run"):
        drawn(model, seed=1, resume=file)


def test_what_is_left_out_is_told_and_kept_apart(tmp_path: Path) -> None:
    text = list(range(5, 12))
    loop = [5, 6, 7, 8] * 4
    rows = [text, [5, 6], loop, text, text[::-1]]
    ids = torch.full((5, 17), -1)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own) + 1] = torch.tensor([0, *own])
    dropped = why_dropped(ids, 4, 0.5)
    assert dropped == ["", "short", "repeats", "duplicate", ""]
    found = GeneratedText(ids=ids, dropped=dropped, model="m", seconds=0.0)
    assert found.texts() == [[0, *text], [0, *text[::-1]]]
    assert found.n_tokens == 16
    assert found.rows(5).tolist() == [[0, *text[:4]], [0, *text[4:], text[-1]], [0, *text[-2:1:-1][:4]]]
    frame = found.to_frame().set_index("what")
    assert frame.index.tolist() == ["kept", *REASONS]
    assert frame["texts"].tolist() == [2, 1, 1, 1]
    assert frame["tokens"].sum() == int((ids >= 0).sum())
    assert frame.loc["repeats", "repeated"] == pytest.approx(1 - 5 / 14)
    again = GeneratedText.load(found.save(tmp_path / "text.json"))
    assert torch.equal(again.ids, ids)
    assert "2 texts of 5 kept, 16 tokens; left out: 1 short, 1 repeats, 1 duplicate" in repr(again)


def test_bad_input_is_refused() -> None:
    model = shared("llama")
    for settings, message in (
        ({"start": VOCAB}, f"start={VOCAB} is no token"),
        ({"top_p": 0.0}, "top_p=0.0 must be"),
        ({"steps": 3}, "keyword of sample_text"),
    ):
        with pytest.raises(InputError, match=message):
            drawn(model, **settings)
    with pytest.raises(InputError, match="more than the model's 32 positions"):
        drawn(shared("gpt2"), length=32)
    with pytest.raises(InputError, match="behind their first; give more"):
        drawn(model, n=1).rows(1000)
    with pytest.raises(InputError, match="no token that texts begin with"):
        drawn(tiny("llama", bos_token_id=None))
