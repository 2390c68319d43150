"""The study of circuits by position, on a tiny model."""

from __future__ import annotations

import torch

from docs.scripts.positions import compared
from interp.tasks.task import Task
from tests.tiny import behaving, shared


def test_both_kinds_of_circuits_are_compared_at_equal_sizes():
    model = shared("llama", torch.float32)
    found = behaving(model, 8)
    task = Task("behaving", found.examples, objective=found.objective, spans={"front": (0, 2), "end": (-1, None)})
    frame = compared(model, task, (0.2, 1.0), steps=2)
    assert frame.columns.tolist() == ["edges", "plain", "by_position"]
    # everything is the model itself, whichever way it is counted
    assert frame["plain"].iloc[1].startswith(("1.000", "0.999"))
    assert frame["edges"].iloc[1] > 2 * frame["edges"].iloc[0]
