"""The study of circuits by position, on a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import Run, Setting
from interp.tasks.task import Task
from tests.tiny import behaving, shared

STUDY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "scripts" / "positions.py"))


def test_both_kinds_of_circuits_are_compared_at_equal_sizes():
    model = shared("llama")
    found = behaving(model, 8)
    task = Task("behaving", found.examples, objective=found.objective, spans={"front": (0, 2), "end": (-1, None)})
    setting = Setting(model, task, run=Run(quiet=True))
    own = STUDY["measured"](setting, (0.2, 1.0), (5, setting.graph.n_edges), steps=2)
    small, whole = own["circuits"]
    # everything is the model itself, whichever way it is counted, and ranks all edges
    assert (whole["faithfulness"], whole["by position"]) == ("1.00 [1.00, 1.00]",) * 2
    assert whole["by position less plain"] == "0.00 [0.00, 0.00]"
    # where logits are read at one span alone, not all edges at the others lead there
    assert int(small["edges at spans"]) == 3 * int(0.2 * setting.graph.n_edges) < int(whole["edges at spans"])
    assert own["misranked"][f"{setting.graph.n_edges:,}"] == "0%"
    assert own["spans"] == ["front", "end", "rest"]
    value, apart, less = (float(small[key].split()[0]) for key in list(small)[2:])
    assert less == pytest.approx(apart - value, abs=0.011)
    text = STUDY["page"]({"behaving": own}, 8)
    assert "Spans: front, end, rest. Misranked by the sum:" in text
    assert f"| {small['edges at spans']} |" in text


def test_edges_whose_spans_cancel_are_misranked():
    values = torch.tensor([[5.0, 1.0, 0.0], [-5.0, 1.0, 0.5]])
    assert STUDY["misranked"](values, (1, 2, 3)) == [1.0, 0.5, 0.0]
