"""What takes circuits of edges takes circuits of nodes, as objects and as tensors, or says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution.scores import Scores
from circuits import Circuit, NodeCircuit
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from metrics import Reference, circuit_tests
from metrics.circuit.controls import random_nodes
from metrics.circuit.elements import NodeElements
from tests.node_circuits import LEVELS, QUIET, UNITS, bare, small_circuit
from tests.oracle import model_of
from tests.tiny import LAYERS, MLP, behaving, tiny_task


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, 8)


@pytest.fixture(scope="module", params=LEVELS)
def found(request: pytest.FixtureRequest, model: Any, task: Any) -> NodeCircuit:
    return small_circuit(model, task, request.param)


@pytest.mark.parametrize("function", [metrics.output_agreement, metrics.prompt_faithfulness])
def test_tensors_are_judged_like_circuits(model: Any, task: Any, found: NodeCircuit, function: Any) -> None:
    own, other = function(model, task, found, **QUIET), function(model, task, found.node_mask, **bare(found), **QUIET)
    assert own.to_frame().equals(other.to_frame())


def test_known_circuits_say_what_is_ranked(found: NodeCircuit) -> None:
    for measure in (metrics.auroc, metrics.average_precision):
        assert measure(found.scores, found) == measure(found.scores, found, level=found.level)
        if found.level != "feature":  # where dictionaries are of unequal size, scores know it and tensors do not
            assert measure(found.scores.values, found) == measure(found.scores, found)


def test_curves_take_scores_that_say_their_level(model: Any, task: Any, found: NodeCircuit) -> None:
    curve = metrics.faithfulness_curve(model, task, found.scores, **QUIET)
    assert curve.level == found.level
    assert curve.edges[-1] == found.n_all
    with pytest.raises(InputError, match=r"such \.values, as a circuit's \.scores; got NodeCircuit"):
        metrics.faithfulness_curve(model, task, found, **QUIET)
    with pytest.raises(InputError, match="reference='grown' is for circuits of edges, which need paths"):
        metrics.faithfulness_curve(model, task, found.scores, n_random=1, reference="grown", **QUIET)


def test_edges_and_nodes_have_no_overlap(found: NodeCircuit) -> None:
    graph = found.graph
    edges = Circuit(Scores(torch.zeros(graph.shape), graph, "eap"), graph.edge_mask)
    for one, other in ((edges, found), (found, edges)):
        with pytest.raises(InputError, match="overlap"):
            one.jaccard(other)  # type: ignore[attr-defined]


# ---- random nodes of another size


@pytest.mark.parametrize("size", [3, 12, 20, 28])
@pytest.mark.parametrize("spans", [None, (2, 4)])
def test_random_nodes_of_another_size_are_of_the_same_layers_in_proportion(model: Any, size: int, spans: Any) -> None:
    setting = Setting(model, tiny_task(model), run=Run(quiet=True))
    elements = NodeElements(setting, "neuron", spans)
    mask = torch.zeros_like(elements.full)
    mask[0, ..., :2] = mask[2, ..., :5] = True
    own = mask.sum(-1)
    copies, more = divmod(size, int(own.sum()))
    drawn = elements.random(mask, 6, 3, None, size)
    for one in drawn:
        assert elements.count(one) == size
        counts = one.sum(-1)
        assert bool((counts >= copies * own).all())
        assert bool((counts <= copies * own + own.clamp(max=more)).all())
        if size <= 12:  # no more than there are outside
            assert not (one & mask).any()
    assert not all(torch.equal(drawn[0], one) for one in drawn[1:])
    norms = setting.node_norms("neuron")
    assert torch.equal(torch.stack(drawn), torch.stack(elements.random(mask, 6, 3, None, size)))
    one = torch.zeros(LAYERS, MLP, dtype=torch.bool)
    one[0, int(norms[0].argmax())] = True  # those like the largest are the largest
    (eight,) = random_nodes(setting, [NodeMask(one, "neuron")], 1, 0, 8)
    rank = norms[0].argsort(descending=True).argsort()[eight.mask[0]]
    assert int(rank.min()) >= 1
    assert int(rank.max()) <= 15


def test_errors_stay_in_random_circuits_of_another_size(model: Any) -> None:
    setting = Setting(model, tiny_task(model), run=Run(quiet=True), features=DictionarySet(UNITS, "nodes"))
    elements = NodeElements(setting, "feature")
    mask = torch.zeros_like(elements.full)
    mask[0, :2] = mask[:, -1] = True
    (one,) = elements.random(mask, 1, 0, None, 8)
    assert one[:, -1].all()
    assert one[0, :-1].sum() == 5
    with pytest.raises(InputError, match="size=2 does not fit: random circuits keep the 3 errors"):
        elements.random(mask, 1, 0, None, 2)


def test_the_test_of_sufficiency_holds_a_circuit_against_larger_ones(model: Any, task: Any) -> None:
    mask = torch.zeros(LAYERS, MLP, dtype=torch.bool)
    mask[:, :4] = True
    circuit = NodeMask(mask, "neuron")
    told: dict[str, Any] = {"tests": ["sufficiency"], "n_random": 5, **QUIET}
    found = circuit_tests(model, task, circuit, reference=Reference(size=0.5, prompts=None), **told)
    assert "of 36 neurons" in found["sufficiency"].observed
    drawn = random_nodes(Setting(model, task, run=Run(quiet=True)), [circuit], 5, 3, 36)

    def run(one: torch.Tensor) -> torch.Tensor:
        return metrics.evaluate(model, task, one, level="neuron", quiet=True)

    whole = run(torch.ones_like(mask))
    far = [float((run(one.mask) - whole).abs().mean()) for one in drawn]
    assert found["sufficiency"].statistic == np.mean(float((run(mask) - whole).abs().mean()) < np.array(far))
    few = torch.zeros_like(mask)
    few[0, :12] = True
    with pytest.raises(InputError, match=r"size=40 does not fit: .*, which hold 24 in its proportions"):
        circuit_tests(model, task, NodeMask(few, "neuron"), reference=Reference(size=40), **told)


# ---- SaCo


def test_groups_of_nodes_are_ablated_in_the_whole_model(model: Any, task: Any, found: NodeCircuit) -> None:
    saco = metrics.circuit_saco(model, task, found.scores, 3, n_random=1, **QUIET)
    frame = found.scores.to_frame()
    frame = frame[frame["node"] != "input"].sort_values("score", ascending=False, kind="stable")
    assert saco.level == found.level
    assert sum(saco.sizes) == found.n_all == len(frame)
    features = DictionarySet(UNITS, "nodes") if found.level == "feature" else None
    elements = NodeElements(Setting(model, task, run=Run(quiet=True), features=features), found.level)
    place = dict(zip(elements.names(elements.places), elements.places.tolist(), strict=True))
    whole, first = metrics.measure(model, task, found, quiet=True).clean, 0
    for size, salience, drop in zip(saco.sizes, saco.salience, saco.drops, strict=True):
        group = frame.iloc[first : first + size]
        first += size
        assert salience == pytest.approx(group["score"].sum(), abs=1e-9)
        less = elements.full.clone()
        less.view(-1)[[place[name] for name in group["node"]]] = False
        own = metrics.evaluate(model, task, less, quiet=True, **bare(found))
        assert drop == pytest.approx((whole - own).numpy(), abs=1e-9)
    if found.level != "node":
        told = metrics.circuit_saco(model, task, found.scores.values, 3, n_random=1, **bare(found), **QUIET)
        assert told.mean == saco.mean
