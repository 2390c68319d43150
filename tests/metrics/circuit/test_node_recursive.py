"""The recursive curve of nodes: the orders by brute force, exact removal, gradients inside what is left, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import metrics
from attribution.edges.mask_ig import MaskIG
from circuits import NodeCircuit, rescorer
from interp import InputError
from metrics import evaluate, recursive_curve, removal_scores
from tests.node_circuits import LEVELS, QUIET, UNITS, bare, small_circuit
from tests.oracle import error, model_of
from tests.tiny import behaving

SHARES = (0.1, 0.4, 1.0)
SPANS = (4, 6)


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, 8)


@pytest.fixture(scope="module", params=LEVELS)
def found(request: pytest.FixtureRequest, model: Any, task: Any) -> NodeCircuit:
    return small_circuit(model, task, request.param)


def everything(circuit: NodeCircuit) -> Tensor:
    """The mask of all nodes that there are: dictionaries are of unequal width, each with an error behind the widest."""
    full = torch.ones_like(circuit.node_mask)
    if circuit.level == "feature":
        for row, one in zip(full, UNITS, strict=True):
            row[one.n_features : -1] = False
    return full


def nodes_of(mask: Tensor, level: str) -> list[int]:
    """Flat indices of a mask's nodes; the input of level node is none."""
    places = mask.flatten().nonzero()[:, 0].tolist()
    return [place for place in places if level != "node" or place % mask.shape[-1]]


def less(mask: Tensor, places: list[int]) -> Tensor:
    changed = mask.clone()
    for place in places:
        changed.view(-1)[place] = False
    return changed


@pytest.mark.parametrize("absolute", [False, True])
def test_the_highest_of_what_is_left_goes_first(model: Any, task: Any, found: NodeCircuit, absolute: bool) -> None:
    curve = recursive_curve(model, task, found.scores, SHARES, n_random=2, absolute=absolute, **QUIET)
    full, scores = everything(found), found.scores.values.flatten()
    key = scores.abs() if absolute else scores
    order = sorted(nodes_of(full, found.level), key=lambda place: -float(key[place]))
    assert curve.level == found.level
    assert curve.removed == (0, *(int(share * len(order)) for share in SHARES))
    for count, left in zip(curve.removed, curve.masks, strict=True):
        assert torch.equal(left, less(full, order[:count]))
    means = torch.stack([evaluate(model, task, left, quiet=True, **bare(found)).mean() for left in curve.masks])
    expected = (means - means[-1]) / (means[0] - means[-1])  # the last is the empty circuit
    assert [one.value for one in curve.points] == pytest.approx(expected.tolist(), abs=1e-9)
    assert [one.value for one in curve.random][::3] == pytest.approx([1, 0], abs=1e-9)
    assert [trace.name for trace in curve.figure().data] == ["scores", f"random {found.level}s"]
    told = recursive_curve(
        model, task, found.scores.values, SHARES, n_random=2, absolute=absolute, **bare(found), **QUIET
    )
    assert told.area == curve.area


def test_removal_scores_are_exact(model: Any, task: Any, found: NodeCircuit) -> None:
    full = everything(found)
    drawn = torch.rand(full.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    left = full & drawn
    scores = removal_scores(model, task, quiet=True, **bare(found))(left)
    whole = evaluate(model, task, left, quiet=True, **bare(found)).mean()
    inside = nodes_of(left, found.level)
    outside = torch.ones_like(left).flatten()
    outside[inside] = False
    assert not scores.flatten()[outside].any()
    for place in inside[:: max(1, len(inside) // 6)]:
        after = evaluate(model, task, less(left, [place]), quiet=True, **bare(found)).mean()
        assert float(scores.flatten()[place]) == pytest.approx(float(whole - after), abs=1e-9)


def test_what_is_left_is_scored_again_by_gradients_there(model: Any, task: Any, found: NodeCircuit) -> None:
    """Along the weights of what is left its nodes' scores add up to M(left) - M(empty)."""
    score = rescorer(model, task, "mask-ig", steps=16, **bare(found))
    asked: list[Tensor] = []

    def asking(left: Tensor) -> Tensor:
        asked.append(left.clone())
        return score(left)

    curve = recursive_curve(model, task, asking, (0.2, 0.5), n_random=1, **bare(found), **QUIET)
    assert [one.tolist() for one in asked] == [one.tolist() for one in curve.masks[:-1]]
    left = curve.masks[1]
    inside = nodes_of(left, found.level)
    if found.level != "feature":  # of thresholds, which jump, no gradient says anything
        measured = metrics.measure(model, task, left, quiet=True, **bare(found))
        whole = float((measured.circuits[0] - measured.empty).mean())
        assert float(score(left).flatten()[inside].sum()) == pytest.approx(whole, rel=1e-3, abs=1e-5)
    assert error(score(left), score(curve.masks[0])) > 1e-6  # not what the whole model's scores say


def test_positions_are_told_apart(model: Any, task: Any) -> None:
    told: dict[str, Any] = {"level": "head", "spans": SPANS}
    full = torch.ones(model.cfg.n_layers, len(SPANS), model.cfg.n_heads, dtype=torch.bool)
    exact = removal_scores(model, task, quiet=True, **told)
    curve = recursive_curve(model, task, exact, SHARES, n_random=2, **told, **QUIET)
    scores, count = exact(full).flatten(), curve.removed[1]
    highest = scores.argsort(descending=True, stable=True)[:count].tolist()
    assert torch.equal(curve.masks[1], less(full, highest))
    again = exact(curve.masks[1]).flatten()
    gone = (curve.masks[1] & ~curve.masks[2]).flatten()
    kept = curve.masks[2].flatten()
    assert float(again[gone].min()) > float(again[kept].max())


def test_what_does_not_fit_is_refused(model: Any, task: Any, found: NodeCircuit) -> None:
    with pytest.raises(InputError, match="does not fit scores of level"):
        recursive_curve(model, task, found.scores, level="neuron" if found.level == "head" else "head")
    with pytest.raises(InputError, match="score must give a tensor of shape"):
        recursive_curve(model, task, lambda left: left[:1].double(), **bare(found), **QUIET)
    with pytest.raises(InputError, match=f"scores are constant: there is no order to ablate {found.level}s in"):
        recursive_curve(model, task, lambda left: left.double() * 0, **bare(found), **QUIET)


def test_a_callable_says_what_it_is_of(model: Any, task: Any) -> None:
    for told, message in (
        ({"level": "heads"}, "did you mean 'head'"),
        ({"spans": SPANS}, "spans goes with level"),
        ({"level": "head", "dictionaries": UNITS}, "dictionaries are for features"),
    ):
        with pytest.raises(InputError, match=message):
            recursive_curve(model, task, lambda left: left.double(), **told)
    with pytest.raises(InputError, match="does not fit"):
        removal_scores(model, task, level="head")(torch.ones(2, 3, dtype=torch.bool))
    left = torch.ones(model.cfg.n_layers, model.cfg.n_heads, dtype=torch.bool)
    named, made = (rescorer(model, task, *one, level="head") for one in (("mask-ig",), (MaskIG(),)))
    assert torch.equal(named(left), made(left))
