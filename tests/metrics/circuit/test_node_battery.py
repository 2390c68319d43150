"""Hypothesis tests of circuits of nodes: statistics recomputed with hooks and by plain runs, and what passes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from attribution import Exact
from attribution.units.nodes import scores_of_nodes
from circuits import find_circuit
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask
from metrics import Reference, circuit_tests, evaluate
from metrics.circuit.controls import random_nodes
from metrics.circuit.elements import NodeElements
from metrics.circuit.node_scores import NodeScores
from metrics.circuit.nulls import hsic
from tests.dictionaries import unequal
from tests.interp.test_node_circuits import by_hooks
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, MLP, behaving, tiny, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "seed": 3}
ALL = Reference(prompts=None)
UNITS = unequal(D_MODEL)


def best(setting: Setting, n: int, level: str = "neuron") -> NodeMask:
    """The nodes that alone do most."""
    return NodeScores(scores_of_nodes(setting, Exact(), level).values, level).among(setting).top(n)


def test_statistics_are_those_of_runs_in_which_hooks_write_over_neurons():
    model = model_of("llama")
    task = behaving(model, 8)
    setting = Setting(model, task, run=Run(quiet=True))
    circuit = best(setting, 12)
    found = circuit_tests(model, task, circuit, n_random=6, sample=5, reference=ALL, **QUIET)

    def run(mask):
        return by_hooks(model, setting.prompts, mask[:, None], "patch")

    whole, own = run(torch.ones(LAYERS, MLP, dtype=torch.bool)), run(circuit.mask)
    assert found["equivalence"].statistic == pytest.approx(float((own > whole).double().mean()))
    rest = run(~circuit.mask)
    assert found["independence"].statistic == pytest.approx(hsic(whole, rest), rel=1e-6)
    drawn = [one.mask for one in random_nodes(setting, [circuit], 6, 3)]
    far = [float((run(one) - whole).abs().mean()) for one in drawn]
    assert found["sufficiency"].statistic == np.mean(float((own - whole).abs().mean()) < np.array(far))
    far = [float((run(~one) - whole).abs().mean()) for one in drawn]
    assert found["necessity"].statistic == np.mean(float((rest - whole).abs().mean()) > np.array(far))
    added = []
    for (place,) in NodeElements(setting, "neuron").additions(circuit.mask, 6, 3):
        more = circuit.mask.clone()
        more.view(-1)[place] = True
        assert more.sum() == 13
        assert circuit.mask[place // MLP].any()  # of a layer that the circuit has neurons in
        added.append(float((run(more) - own).abs().mean()))
    assert len(found.edges) == 5
    for row in found.edges.itertuples():
        layer, neuron = map(int, re.fullmatch(r"m(\d+)\.n(\d+)", row.node).groups())
        assert circuit.mask[layer, neuron]
        less = circuit.mask.clone()
        less[layer, neuron] = False
        change = float((run(less) - own).abs().mean())
        assert row.change == pytest.approx(change, rel=1e-6)
        assert row.beaten == pytest.approx(np.mean(change > np.array(added)))
    assert (found.settings["level"], found.settings["reference"]) == ("neuron", "matched")
    assert found.settings["nodes_tested"] == 5


CASES = {
    "head": {"level": "head"},
    "node": {"level": "node"},
    "positions": {"level": "neuron", "spans": (2, 4, 6)},
    "feature": {"level": "feature", "dictionaries": UNITS, "errors": "nodes"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_level_is_tested_as_evaluate_runs_it(case):
    model, told = model_of("llama"), CASES[case]
    task = tiny_task(model, n=6)
    features = DictionarySet(UNITS, "nodes") if case == "feature" else None
    setting = Setting(model, task, "mean", run=Run(quiet=True), features=features)
    level, spans = told["level"], told.get("spans")
    elements = NodeElements(setting, level, spans)
    mask = torch.rand(elements.full.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    mask &= elements.full
    circuit = NodeMask(mask, level, spans)
    given: Any = {**told, "ablation": "mean", "quiet": True}
    found = circuit_tests(model, task, mask, n_random=4, sample=3, reference=ALL, seed=5, **given)

    def run(one):
        return evaluate(model, task, one, **given)

    whole, own = run(elements.full), run(mask)
    drawn = [one.mask for one in random_nodes(setting, [circuit], 4, 5)]
    far = np.array([float((run(one) - whole).abs().mean()) for one in drawn])
    assert found["sufficiency"].statistic == np.mean(float((own - whole).abs().mean()) < far)
    enough = not any(elements.count(one & mask) for one in drawn) or case == "feature"
    assert (found["necessity"].passed is not None) == enough
    assert len(found.edges) == 3
    inside = dict(zip(elements.names(elements.inside(mask)), elements.inside(mask).tolist(), strict=True))
    assert len(inside) == circuit.n_nodes
    for name, change in zip(found.edges["node"], found.edges["change"], strict=True):
        less = mask.clone()
        less.view(-1)[inside[name]] = False
        assert change == pytest.approx(float((run(less) - own).abs().mean()), abs=1e-9)
    assert circuit_tests(model, task, circuit, n_random=4, sample=3, reference=ALL, seed=5, **{
        name: value for name, value in given.items() if name not in ("level", "spans")
    }).edges.equals(found.edges)  # fmt: skip


def test_random_nodes_from_the_complement_may_share_errors_alone():
    model = model_of("llama")
    setting = Setting(model, tiny_task(model), run=Run(quiet=True), features=DictionarySet(UNITS, "nodes"))
    elements = NodeElements(setting, "feature")
    mask = torch.zeros_like(elements.full)
    mask[:, :3] = mask[:, -1] = True
    for one in elements.outside(mask, 3, 0):
        assert torch.equal((one & mask).nonzero()[:, 1], torch.full((3,), mask.shape[1] - 1))
    mask[1] = elements.full[1]  # of one dictionary nothing is left
    assert elements.outside(mask, 3, 0) == []


@pytest.fixture(scope="module")
def model():
    """With a neuron, m1.n3, that writes nothing."""
    made = tiny("llama", torch.float32)
    made.blocks[1].mlp.out.original_component.weight.data[:, 3] = 0
    return made


@pytest.fixture(scope="module")
def task(model):
    return behaving(model, 24)


def test_a_good_circuit_passes_what_a_random_one_fails(model, task):
    setting = Setting(model, task, run=Run(quiet=True))
    good = best(setting, 14)
    found = circuit_tests(model, task, good, sample=10, **QUIET)
    assert found["sufficiency"].passed
    assert found["necessity"].passed
    (random,) = random_nodes(setting, [good], 1, 50)
    other = circuit_tests(model, task, random, tests=["sufficiency", "necessity"], **QUIET)
    assert not other["sufficiency"].passed
    assert not other["necessity"].passed
    assert "random circuits" in str(other)


def test_an_idle_neuron_is_flagged_and_no_other(model, task):
    mask = best(Setting(model, task, run=Run(quiet=True)), 6).mask
    assert not mask[1, 3]
    mask[1, 3] = True
    found = circuit_tests(model, task, mask, level="neuron", tests=["minimality"], **QUIET)
    assert found.edges.loc[found.edges["superfluous"], "node"].tolist() == ["m1.n3"]
    assert found["minimality"].rejected
    assert "1 of 7 neurons tested do not, of 7 in the circuit" in found["minimality"].observed


def test_the_whole_level_is_the_model(model, task):
    setting = Setting(model, task, run=Run(quiet=True))
    found = circuit_tests(model, task, setting.nodes("head").full, level="head", n_random=5, **QUIET)
    assert found["equivalence"].p == 1.0
    assert "(1 different ones)" in found["sufficiency"].observed
    assert not found["sufficiency"].rejected
    assert found["minimality"].passed is None  # no head can be added
    assert found["necessity"].passed is None  # none is left outside
    assert "too few heads outside" in str(found)


def test_circuits_that_were_found_are_tested_on_held_out_prompts(model, task, tmp_path):
    told: dict[str, Any] = {"level": "neuron", "nodes": 20, "method": "eap", **QUIET}
    found = find_circuit(model, task, tests=True, **told)
    _, held_out = task.split(0.5, 3)
    expected = found.test(model, held_out, **QUIET)
    assert [row["test"] for row in found.report.tests] == [one.test for one in expected.tests]
    for row, one in zip(found.report.tests, expected.tests, strict=True):
        assert row["p_corrected"] == pytest.approx(one.p_corrected)
    assert "Test of sufficiency" in str(found.report)
    assert type(found).load(found.save(tmp_path / "tested.json")).report == found.report
    assert find_circuit(model, task, **told).report.tests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "grown"}, "reference='grown' is for circuits of edges"),
        ({"reference": Reference(size=73)}, "size=73 is out of range: there are 72 neurons"),
        ({"tests": ["minimal"]}, "did you mean 'minimality'"),
        ({"dictionaries": UNITS}, "dictionaries are for features"),
    ],
)
def test_bad_input_is_refused(model, task, settings, message):
    circuit = NodeMask(torch.ones(LAYERS, MLP, dtype=torch.bool), "neuron")
    with pytest.raises(InputError, match=message):
        circuit_tests(model, task, circuit, **QUIET, **settings)
    with pytest.raises(InputError, match="circuit has no neurons"):
        circuit_tests(model, task, ~circuit, **QUIET)
