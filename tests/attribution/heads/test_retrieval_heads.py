"""Retrieval scores: by hand, in a model whose copying head is known, on SmolLM2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import Needle, RetrievalScores, needle_prompts, retrieval_heads
from attribution.heads import retrieval
from attribution.heads.retrieval import copied, generated, recall
from circuits import planted
from interp.errors import InputError
from interp.result import Result
from metrics import auroc
from tests.tiny import VOCAB, shared, tiny, word_tokenizer

#                          0  1  2  3  4  5
BY_HAND = Needle(torch.tensor([9, 5, 6, 5, 2, 9]), 1, 4)


def induction(n: int = 12) -> tuple[Any, list[Needle]]:
    """A model whose heads a1.h1 and a1.h3 copy what stood behind the letter that is asked for, and such prompts."""
    known = planted.load("induction", n=n)
    ids = known.task.prompts(known.model).clean
    places = ((ids[:, :-1] == ids[:, -1:]).int().argmax(1) + 1).tolist()
    return known.model, [Needle(row, place, place + 1) for row, place in zip(ids, places, strict=True)]


def test_a_token_is_copied_where_a_head_looks_at_it_while_it_is_made() -> None:
    """Three steps, one layer, four heads: right at all; at another place; at the token outside; one of two alike."""
    made = [5, 6, 9]
    looks = torch.tensor([[[1, 2, 0, 3]], [[2, 1, 0, 3]], [[5, 3, 0, 3]]])
    found = copied(looks, made, BY_HAND)
    assert found[:, 0].int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert found.float().mean(0)[0].tolist() == pytest.approx([2 / 3, 0, 0, 1 / 3])
    assert recall(made, BY_HAND.answer) == pytest.approx(2 / 3)


def test_the_planted_copying_heads_are_found() -> None:
    model, needles = induction()
    found = retrieval_heads(model, needles, steps=1, quiet=True)
    truth = torch.zeros_like(found.values, dtype=torch.bool)
    truth[1, [1, 3]] = True
    assert auroc(found.values, truth, level="head") == 1
    assert found.heads(2) == ["a1.h1", "a1.h3"]
    assert found.values[truth].tolist() == [1, 1]
    assert found.recall.tolist() == [1] * 12
    assert torch.equal(found.mask(2).mask, truth)


def test_generation_with_a_cache_looks_where_a_run_of_the_whole_text_looks() -> None:
    model = shared("llama")
    ids = torch.randint(2, VOCAB, (7,), generator=torch.Generator().manual_seed(0))
    made, looks = generated(model, ids, 5)
    whole = torch.cat((ids, torch.tensor(made)))
    _, cache = model.run_with_cache(whole[None])
    for step in range(len(made)):
        for layer in range(3):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, 6 + step]
            assert looks[step, layer].tolist() == pattern.argmax(-1).tolist()
    assert made == model(whole[None]).argmax(-1)[0, 6:-1].tolist()


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, needles = induction(6)
    whole, made = retrieval_heads(model, needles, steps=1, quiet=True), generated
    left = iter(range(4))

    def cut_off(*given: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return made(*given)

    monkeypatch.setattr(retrieval, "generated", cut_off)
    with pytest.raises(KeyboardInterrupt):
        retrieval_heads(model, needles, steps=1, resume=tmp_path / "run", quiet=True)
    left = iter(range(2))  # that were not made
    again = retrieval_heads(model, needles, steps=1, resume=tmp_path / "run", quiet=True)
    assert torch.equal(again.by_prompt, whole.by_prompt)
    assert torch.equal(again.recall, whole.recall)
    with pytest.raises(InputError, match="belongs to another run"):
        retrieval_heads(model, needles[1:], steps=1, resume=tmp_path / "run", quiet=True)


def test_prompts_that_are_not_answered_do_not_count() -> None:
    model, needles = induction(4)
    wrong = Needle(needles[0].ids, 0, 1)  # BOS, which is never the answer
    found = retrieval_heads(model, [*needles, wrong], steps=1, quiet=True)
    assert found.answered.tolist() == [True] * 4 + [False]
    torch.testing.assert_close(found.values, found.by_prompt[:4].mean(0))
    everything = retrieval_heads(model, [*needles, wrong], steps=1, min_recall=None, quiet=True)
    torch.testing.assert_close(everything.values, found.by_prompt.mean(0))
    with pytest.raises(InputError, match="none of the 1 prompts was answered"):
        retrieval_heads(model, [wrong], steps=1, quiet=True)


def test_the_result_has_a_table_a_picture_a_control_and_a_file(tmp_path: Path) -> None:
    model, needles = induction(4)
    found = retrieval_heads(model, needles, steps=1, quiet=True)
    frame = found.to_frame()
    assert frame.columns.tolist() == ["node", "layer", "head", "score", "prompts"]
    assert frame["score"].is_monotonic_decreasing
    assert len(frame) == found.values.numel()
    assert found.figure().data[0].z[1][1] == 1
    assert not set(found.random_heads(1)) & set(found.heads(1))
    assert found.random_heads(1)[0].startswith("a1.")
    with pytest.raises(InputError, match="too few for a control"):
        found.random_heads(len(frame))
    again = Result.load(found.save(tmp_path / "heads.json"))
    assert isinstance(again, RetrievalScores)
    assert torch.equal(again.values, found.values)
    assert "a1.h1 copies 100.0%" in repr(again)


def test_needles_of_ids_ask_for_what_followed() -> None:
    model = shared("llama")
    needles = needle_prompts(model, n=5, length=40, seed=3)
    assert [one.start for one in needles] != sorted(one.start for one in needles)
    for one, again in zip(needles, needle_prompts(model, n=5, length=40, seed=3), strict=True):
        ids = one.ids.tolist()
        assert ids == again.ids.tolist()
        assert len(ids) == 40
        assert len(one.answer) == 4
        assert ids[-2:] == ids[one.start - 2 : one.start]
        assert all(ids.count(token) == 1 for token in one.answer)


def test_needles_of_words_for_a_tokenizer_that_knows_none_of_them() -> None:
    model = tiny("llama", torch.float32)
    model.tokenizer = word_tokenizer()
    (needle,) = needle_prompts(model, n=1, length=20)
    assert len(needle.ids) >= 20
    assert len(needle.answer) == 7  # four words, two commas, "and"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"needles": []}, "at least one"),
        ({"needles": ["a"]}, "must be a list of Needle"),
        ({"steps": 0}, "steps=0"),
        ({"min_recall": 2.0}, "min_recall=2.0"),
    ],
)
def test_bad_input_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        retrieval_heads(shared("llama"), **given)


def test_a_needle_lies_in_its_prompt() -> None:
    with pytest.raises(InputError, match="holds no token"):
        Needle(torch.tensor([1, 2]), 1, 1)
    with pytest.raises(InputError, match="must be a tensor of token ids"):
        Needle(torch.tensor([1.0, 2.0]), 0, 1)


@pytest.mark.real
def test_smollm2_answers_needles_with_few_of_its_heads(smollm2: Any) -> None:
    needle = needle_prompts(smollm2, n=6, length=60, seed=1)[0]
    text = smollm2.tokenizer.decode(needle.answer)
    assert smollm2.tokenizer.decode(needle.ids).count(text) == 1
    assert text.count(",") == 2
    found = retrieval_heads(smollm2, [needle], steps=8, quiet=True)
    assert found.recall.tolist() == [1]
    assert found.values.max() > 0.5
    assert (found.values < 0.1).float().mean() > 0.8
