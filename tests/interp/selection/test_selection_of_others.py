"""Selections of users that return what is no circuit, or write into what they get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import attribute
from circuits import find_circuit, stability
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import Selection, connected, select
from metrics import faithfulness_curve
from tests.tiny import behaving, shared


@dataclass(frozen=True, eq=False)
class Given(Selection):
    function: Callable[[Tensor, ComputationalGraph, int], Any]

    name = "given"

    def mask(self, scores: Tensor, graph: ComputationalGraph, n: int) -> Tensor:
        found: Tensor = self.function(scores, graph, n)
        return found


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, 8)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda scores, graph, n: None, "got NoneType"),
        (lambda scores, graph, n: connected(scores, graph, n).numpy(), "got ndarray"),
        (lambda scores, graph, n: connected(scores, graph, n).float(), "got torch.float32"),
        (lambda scores, graph, n: connected(scores, graph, n).T, "got torch.bool"),
        (lambda scores, graph, n: connected(scores, graph, n).to_sparse(), "sparse"),
        (lambda scores, graph, n: torch.ones_like(graph.edge_mask), "edges that do not exist"),
    ],
)
def test_what_is_no_circuit_is_refused_everywhere(model: Any, task: Any, function: Any, message: str) -> None:
    rule = Given(function)
    scores = attribute(model, task, "eap", quiet=True)
    calls: list[Callable[[], Any]] = [
        lambda: select(scores.values, scores.graph, 20, rule),
        lambda: scores.mask(20, selection=rule),
        lambda: find_circuit(model, task, method="eap", selection=rule, edges=20, n_random=1, quiet=True),
        lambda: faithfulness_curve(model, task, scores, selection=rule, quiet=True),
        lambda: stability(model, task, method="eap", selection=rule, edges=20, resamples=3, chunks=4, quiet=True),
    ]
    for call in calls:
        with pytest.raises(InputError, match="the mask of selection='given'") as error:
            call()
        assert message in str(error.value)


def test_scores_and_masks_that_are_written_into_stay_what_they_were(model: Any, task: Any) -> None:
    held = torch.zeros(0)

    def writes(scores: Tensor, graph: ComputationalGraph, n: int) -> Tensor:
        nonlocal held
        found = connected(scores, graph, n)
        held = found if not len(held) else held.copy_(found)
        scores.zero_()
        return held

    scores = attribute(model, task, "eap", quiet=True)
    before = scores.values.clone()
    curve = faithfulness_curve(model, task, scores, selection=Given(writes), quiet=True)
    assert torch.equal(scores.values, before)
    expected = faithfulness_curve(model, task, scores, selection="connected", quiet=True)
    torch.testing.assert_close(curve.values.circuits, expected.values.circuits)
