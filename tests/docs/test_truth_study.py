"""The study of truth neurons, on planted ones: what it compares between halves, what it keeps, what its page says."""

from __future__ import annotations

from pathlib import Path

import torch

from attribution import NeuronContrast
from docs.scripts.truth import CONCLUSION, DOCS, INTRODUCTION, SMALL, Study, pairs_of
from tests.planted_neurons import PLANTED, planted_model, planted_questions

HALVES = planted_questions(8), planted_questions(8, seed=1)


def test_neurons_found_on_one_half_are_found_again_on_the_other(tmp_path: Path) -> None:
    study = Study(planted_model(), SMALL, tmp_path)
    found, other = (study.contrast("planted", half, name) for half, name in zip(HALVES, ("one", "other"), strict=True))
    mask = torch.zeros_like(found.q, dtype=torch.bool)
    for place in PLANTED:
        mask[place] = True
    row = study.again(found, other, "planted", mask)
    assert row["count"] == "4"
    assert row["same sign"].value == 1.0
    assert row["and p < .05"].value == 1.0
    turned = study.again(found, found, "planted", mask)
    assert turned["correlation of D"] == "1.00"
    assert study.again(found, other, "none", mask & False)["same sign"] == ""


def test_what_is_done_is_kept_and_not_done_again(tmp_path: Path) -> None:
    study = Study(planted_model(), SMALL, tmp_path)
    first = study.contrast("planted", HALVES[0], "one")

    def again() -> NeuronContrast:
        raise AssertionError("it is there already")

    assert torch.equal(study.kept("one-planted", NeuronContrast, again).values, first.values)
    assert pairs_of(HALVES[0]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_page_is_the_scripts() -> None:
    page = (DOCS / "truth-study.md").read_text(encoding="utf-8")
    assert page.startswith(INTRODUCTION)
    assert page.endswith(CONCLUSION)
