"""Completeness and minimality of circuits of nodes: against hooks, against plain runs, and against those of edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attribution.scores import Scores
from circuits import NodeCircuit
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from interp.result import Result
from metrics import completeness, evaluate, measure, minimality
from metrics.circuit.controls import random_nodes
from metrics.circuit.elements import NodeElements
from metrics.testing import paired_test
from tests.dictionaries import unequal
from tests.interp.test_node_circuits import by_hooks
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving, tiny, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "seed": 3}
UNITS = unequal(D_MODEL)
CASES: dict[str, Any] = {
    "neuron": {"level": "neuron"},
    "head": {"level": "head"},
    "node": {"level": "node"},
    "positions": {"level": "neuron", "spans": (2, 4, 6)},
    "feature": {"level": "feature", "dictionaries": UNITS, "errors": "nodes"},
}


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


def some(full: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """A random part of all nodes."""
    drawn = torch.rand(full.shape, generator=torch.Generator().manual_seed(1)) < share
    return drawn & full


def elements_in(model: Any, task: Any, level: str, spans: Any = None, **features: Any) -> NodeElements:
    """What circuits of a case are made of."""
    known = DictionarySet(UNITS, "nodes") if features else None
    return NodeElements(Setting(model, task, "mean", run=Run(quiet=True), features=known), level, spans)


def less(mask: torch.Tensor, elements: NodeElements, names: Any) -> torch.Tensor:
    """A mask without nodes, by name."""
    place = dict(zip(elements.names(elements.places), elements.places.tolist(), strict=True))
    result = mask.clone()
    result.view(-1)[[place[name] for name in names]] = False
    return result


def test_both_are_those_of_runs_in_which_hooks_write_over_neurons(model: Any) -> None:
    task = behaving(model, 8)
    elements = NodeElements(Setting(model, task, run=Run(quiet=True)), "neuron")
    mask = some(elements.full, 0.2)

    def run(one: torch.Tensor) -> torch.Tensor:
        return by_hooks(model, elements.setting.prompts, one[:, None], "patch").double()

    whole = torch.ones(LAYERS, MLP, dtype=torch.bool)
    clean, empty = run(whole).mean(), run(~whole).mean()
    found = completeness(model, task, NodeMask(mask, "neuron"), sets=3, n_random=1, **QUIET)
    assert found.level == "neuron"
    gaps = [
        float((run(less(mask, elements, out)) - run(less(whole, elements, out))).mean().abs() / (clean - empty).abs())
        for out in found.sets
    ]
    assert [one.value for one in found.gaps] == pytest.approx(gaps, rel=1e-6)
    assert found.incompleteness.value == pytest.approx(np.mean(gaps), rel=1e-6)
    needed = minimality(model, task, NodeMask(mask, "neuron"), sets=1, sample=4, **QUIET)
    assert (needed.level, needed.tested, needed.total) == ("neuron", 4, int(mask.sum()))
    for row in needed.frame.to_dict("records"):
        fall = run(mask) - run(less(mask, elements, [row["node"]]))
        assert row["largest"] == pytest.approx(float(fall.mean()), abs=1e-4)  # falls that count as none are left out
        assert row["share"] == pytest.approx(row["largest"] / float(clean - empty), rel=1e-6)
        if (fall.abs() > 1e-3).all():
            assert row["p"] == pytest.approx(paired_test(fall.numpy(), np.zeros(8), seed=3))


@pytest.mark.parametrize("case", CASES)
def test_every_level_is_run_as_evaluate_runs_it(model: Any, case: str) -> None:
    task, told = tiny_task(model, n=6), CASES[case]
    elements = elements_in(model, task, **told)
    mask, given = some(elements.full), {**told, "ablation": "mean", "quiet": True}

    def run(*masks: torch.Tensor) -> torch.Tensor:
        return evaluate(model, task, torch.stack(masks), **given).double().mean(1)

    found = completeness(model, task, mask, sets=3, n_random=2, seed=5, **given)
    ends = measure(model, task, mask, **given)
    clean, empty = ends.clean.double().mean(), ends.empty.double().mean()
    for names, gap in zip(found.sets, found.gaps, strict=True):
        assert set(names) <= set(elements.names(elements.inside(mask)))
        own, whole = run(less(mask, elements, names), less(elements.full, elements, names))
        assert gap.value == pytest.approx(float((own - whole).abs() / (clean - empty).abs()), rel=1e-6, abs=1e-9)
    drawn = random_nodes(elements.setting, [NodeMask(mask, elements.level, elements.spans)], 2, 5)
    alone = [completeness(model, task, one, sets=3, n_random=0, seed=5, **_unsaid(given)) for one in drawn]
    assert found.random is not None
    assert found.random.value == pytest.approx(np.mean([one.incompleteness.value for one in alone]), rel=1e-6)
    needed = minimality(model, task, mask, sets=2, sample=3, seed=5, **given)
    for row in needed.frame.to_dict("records"):
        own, without = run(mask, less(mask, elements, [row["node"]]))
        assert abs(row["largest"]) >= abs(float(own - without)) - 1e-4
    assert needed.total == elements.count(mask)


def _unsaid(given: dict[str, Any]) -> dict[str, Any]:
    """Without what masks of nodes say themselves."""
    return {name: value for name, value in given.items() if name not in ("level", "spans")}


def test_heads_and_mlps_are_knocked_out_as_from_the_same_circuit_of_edges(model: Any) -> None:
    task = behaving(model, 6)
    elements = NodeElements(Setting(model, task, run=Run(quiet=True)), "node")
    mask, graph = some(elements.full), elements.setting.graph
    mask[0] = True
    nodes = NodeCircuit(Scores(mask.double(), graph, "eap", level="node"), mask)
    edges = nodes.to_circuit()
    own, other = (completeness(model, task, one, sets=5, n_random=0, **QUIET) for one in (nodes, edges))
    assert own.sets == other.sets
    gaps = [
        sorted(one.to_frame()["objective_gap"]) for one in (own, other)
    ]  # the scales differ: `input` is live in one
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-9)
    own, other = (minimality(model, task, one, sample=None, **told, **QUIET) for one, told in (
        (nodes, {}), (edges, {"level": "node"}),
    ))  # fmt: skip
    first, second = (one.frame.set_index("node")["mean"].sort_index() for one in (own, other))
    assert first.index.equals(second.index)
    assert first.to_numpy() == pytest.approx(second.to_numpy(), abs=1e-3)  # what counts as none follows the scale


def test_all_nodes_are_complete_and_a_neuron_that_writes_nothing_is_not_shown_to_be_needed(tmp_path: Any) -> None:
    model = tiny("llama")
    model.blocks[1].mlp.out.original_component.weight.data[:, 3] = 0
    task = behaving(model, 20)
    full = torch.ones(LAYERS, MLP, dtype=torch.bool)
    whole = completeness(model, task, full, level="neuron", sets=4, n_random=1, **QUIET)
    assert whole.worst.value < 1e-9
    assert "knock-out sets of neurons" in repr(whole)
    again = Result.load(whole.save(tmp_path / "completeness.json"))
    assert (again.level, again.sets) == ("neuron", whole.sets)
    mask = torch.zeros_like(full)
    mask[1] = True
    found = minimality(model, task, mask, level="neuron", sample=None, sets=2, correction="none", **QUIET)
    assert next(iter(found.frame)) == "node"
    row = found.frame.set_index("node").loc["m1.n3"]
    assert (row["largest"], row["p"]) == (0, 1)
    assert "m1.n3" in found.unproven
    assert 0 < len(found.unproven) < 24
    assert "of the circuit's 24 neurons" in repr(found)
    assert list(found.figure().data[0].x) == found.frame["node"].tolist()
    assert Result.load(found.save(tmp_path / "minimality.json")).unproven == found.unproven


@pytest.mark.parametrize("function", [completeness, minimality])
def test_what_does_not_fit_is_refused_in_a_sentence(model: Any, function: Any) -> None:
    task, mask = tiny_task(model), torch.zeros(LAYERS, MLP, dtype=torch.bool)
    with pytest.raises(InputError, match="circuit holds no neuron"):
        function(model, task, mask, level="neuron", **QUIET)
    with pytest.raises(InputError, match=r"level='node' beside a circuit of neurons.*leave it out"):
        function(model, task, NodeMask(~mask, "neuron"), level="node", **QUIET)
    with pytest.raises(InputError, match="holds 2 circuits"):
        function(model, task, torch.stack([mask, ~mask]), level="neuron", **QUIET)
    with pytest.raises(InputError, match="dictionaries are for features"):
        function(model, task, ~mask, level="neuron", dictionaries=UNITS, **QUIET)
