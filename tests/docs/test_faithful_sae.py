"""The study of dictionaries from own text: where the other text is from, and what its tables hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from docs.scripts.faithful_sae import SEEDS, SMALL, SOURCES, Study, other_text, shared, texts_of
from interp.dictionaries import Dictionary
from tests.tiny import shared as tiny_shared


def of(rows: torch.Tensor) -> Dictionary:
    return Dictionary.from_tensors(0, "residual", rows, None, rows, None)


def test_other_text_is_docstrings_and_paragraphs_each_once(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text('"""Of the module."""\n\n\ndef f():\n    """Of f."""\n', encoding="utf-8")
    licence = tmp_path / "LICENSE.txt"
    licence.write_text("One\n  paragraph.\n\nAnother.\n", encoding="utf-8")
    assert texts_of(code) == ["Of the module.", "Of f."]
    assert texts_of(licence) == ["One paragraph.", "Another."]
    first, again = (list(itertools.islice(other_text(), 5)) for _ in range(2))
    assert first == again
    assert len({*first}) == 5
    assert min(map(len, first)) > 200


def test_the_tables_tell_seeds_and_sources_apart() -> None:
    eye = torch.eye(6)
    made = {(source, seed): of(eye[:3]) for source in SOURCES for seed in SEEDS}
    made[SOURCES[1], SEEDS[1]] = of(eye[3:])
    table = shared(made).set_index("pair")["one to one"]
    assert [one.value for one in table] == [1, 0, 1]


def test_a_training_is_kept_with_what_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.scripts.faithful_sae.LAYER", 1)
    study = Study(tiny_shared("llama", torch.float32), SMALL, tmp_path)
    rows = torch.randint(5, 50, (6, 8), generator=torch.Generator().manual_seed(0))
    one, again = (study.trained(SOURCES[0], 0, rows) for _ in range(2))
    assert torch.equal(one.W_enc, again.W_enc)
    assert torch.load(tmp_path / ".sae-activations-0.pt", weights_only=True).shape == (6 * 7, 16)
