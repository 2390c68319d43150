"""The models that explanations are judged on: stories and what is known of them, story models, MiniLM's frozen part."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import roar_minilm
from benchmarks.models import minilm
from benchmarks.models.stories import KINDS, MASK, PAD, PLACES, short_cuts, stories, story
from benchmarks.models.story_models import MODELS, correct, train_stories
from benchmarks.roar_minilm import EXPLAINERS, data, run, train
from interp.errors import InputError


def solve(words: list[str]) -> str:
    """Reads a story from its words alone, independently of the generator."""
    *told, question = " ".join(words).split(" . ")
    asked = question.split()[-2]
    where: dict[str, str] = {}
    holder: dict[str, str] = {}
    for sentence in told:
        first, verb, *_, last = sentence.split()
        if last in PLACES and sentence.split()[2] == "to":
            where[first] = last
        elif verb in ("took", "picked", "grabbed"):
            holder[last] = first
    return where[holder.get(asked, asked)]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_words_and_all_that_is_needed_is_told(kind: str) -> None:
    draw = random.Random(0)
    for _ in range(300):
        one = story(kind, draw)
        assert solve(one.words) == one.answer
        needed = [word for word, is_needed in zip(one.words, one.needed, strict=True) if is_needed]
        assert len(needed) == 2 * (1 + KINDS.index(kind))
        assert one.answer in needed
        supporting = {n for n, fact in zip(one.sentence, one.facts, strict=True) if fact}
        assert len(supporting) == 1 + KINDS.index(kind)


def test_stories_are_seeded_and_padded_in_front() -> None:
    first, same, other = stories(20, 0), stories(20, 0), stories(20, 1)
    assert torch.equal(first.ids, same.ids)
    assert not torch.equal(first.ids, other.ids)
    assert (first.ids[:, -1] != PAD).all()
    assert not (first.maskable & (first.ids == PAD)).any()
    assert not first.maskable[:, -3:].any()  # the question
    assert (first.maskable | ~first.needed).all()
    assert not (first.ids == MASK).any()
    with pytest.raises(InputError, match="kind='three'"):
        story("three", random.Random(0))


def test_no_place_of_a_story_gives_the_answer_away() -> None:
    drawn = stories(2000, 0, ("one",))
    assert max(short_cuts(drawn).values()) < 0.45  # a fifth by design, and a sixth of the rest by chance: a third
    each = drawn.labels.bincount(minlength=len(PLACES)) / len(drawn.labels)
    assert ((each > 0.12) & (each < 0.22)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_story_models_learn_and_the_seed_decides(name: str) -> None:
    few = stories(64, 0, ("one",), 3)
    before = torch.get_rng_state()
    one, same = (train_stories(MODELS[name], few[:2], few[:2], 0, epochs=25, batch_size=16) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert correct(one, few.ids, few.labels).double().mean() > 0.6  # chance is a sixth
    assert torch.equal(one(few.ids), same(few.ids))
    assert torch.allclose(one.classify(one.embed(few.ids), few.ids), one(few.ids))


SIZES = {"train": 16, "validation": 4, "test": 8}


def test_the_frozen_part_and_the_rest_are_the_model() -> None:
    model, _ = minilm.load(0)
    ids = data(SIZES)["test"][0]
    states = minilm.lower(model, ids, 4)
    with torch.no_grad():
        split = minilm.upper(model, states, ids, 4)
    torch.testing.assert_close(split, minilm.logits(model, ids), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_retraining_is_seeded_and_leaves_the_frozen_part() -> None:
    ids, labels, _ = data(SIZES)["train"]
    one, same, other = (train((ids, labels), None, seed) for seed in (0, 0, 1))
    assert torch.equal(minilm.logits(one, ids), minilm.logits(same, ids))
    assert not torch.equal(minilm.logits(one, ids), minilm.logits(other, ids))
    plain, _ = minilm.load(0)
    for layer, (ours, theirs) in enumerate(zip(one.bert.encoder.layer, plain.bert.encoder.layer, strict=True)):
        same_weights = torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
        assert same_weights == (layer < 4)
    for explain in EXPLAINERS.values():
        scores = explain(one, ids, labels, 0)
        assert scores.shape == ids.shape
        assert scores.isfinite().all()


@pytest.mark.slow
def test_recursive_roar_of_minilm_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roar_minilm, "EPOCHS", 1)
    whole = run(1, tmp_path / "whole", sizes=SIZES, ratios=[0.4, 0.8])
    trained: list[int] = []

    def cut(*arguments: Any) -> Any:
        trained.append(1)
        if len(trained) > 5:
            raise KeyboardInterrupt
        return train(*arguments)

    cut.__module__, cut.__qualname__ = train.__module__, train.__qualname__
    with monkeypatch.context() as patch:
        patch.setattr(roar_minilm, "train", cut)
        with pytest.raises(KeyboardInterrupt):
            run(1, tmp_path / "cut", sizes=SIZES, ratios=[0.4, 0.8])
    again = run(1, tmp_path / "cut", sizes=SIZES, ratios=[0.4, 0.8])
    assert again.curves.equals(whole.curves)
