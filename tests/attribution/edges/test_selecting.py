"""The learned mask as a selection: what it trains, from where, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attribution import EAPIG, UGS, EdgePruning, Learned, SampledEdgePruning, Schedule, Scores, attribute
from circuits import find_circuit
from interp.errors import InputError
from interp.run import Run
from interp.selection import SELECTIONS, connected, prune
from interp.setting import Setting
from tests.tiny import shared, tiny_task

SHORT = EdgePruning(schedule=Schedule(steps=3))


@pytest.fixture(scope="module")
def setting() -> Setting:
    model = shared("llama")
    return Setting(model, tiny_task(model, n=6), run=Run(quiet=True))


@pytest.mark.parametrize(
    "made", [SHORT, SampledEdgePruning(steps=3, prompts=4, seed=2)], ids=["edge-pruning", "edge-pruning-sampled"]
)
def test_each_size_is_that_of_a_mask_learned_for_it(setting: Setting, made: Any) -> None:
    graph, scores = setting.graph, EAPIG(steps=2).scores(setting).values
    rules = Learned(made).rules(setting, scores, [20, 60, graph.n_edges])
    for n, rule in zip((20, 60), rules, strict=False):
        told = {"edges": n, "start": Scores(scores, graph, method="start")}
        alone = attribute(setting.model, setting.task, type(made)(**{**vars(made), **told}), quiet=True)
        assert torch.equal(rule(scores), connected(alone.values, graph, n))
        assert int(rule(scores).sum()) == n
        assert torch.equal(prune(rule(scores), graph), rule(scores))
    assert torch.equal(rules[-1](scores), graph.edge_mask)
    assert not torch.equal(rules[0](scores), rules[0](scores.flip(0) * graph.edge_mask))


def test_find_circuit_takes_it_for_a_size_and_for_a_goal(setting: Setting) -> None:
    told: dict[str, Any] = {"method": "eap", "n_random": 0, "quiet": True}
    found = find_circuit(setting.model, setting.task, selection=Learned(SHORT), edges=30, **told)
    scoring, _ = setting.split(0.5, 0)
    (rule,) = Learned(SHORT).rules(scoring, found.scores.values, [30])
    assert torch.equal(found.mask, rule(found.scores.values))
    assert found.provenance["selection"] == "learned"
    goal = find_circuit(setting.model, setting.task, selection=Learned(SHORT), faithfulness=0.5, **told)
    assert goal.report.ladder
    assert goal.n_edges < setting.graph.n_edges


def test_only_what_learns_a_size() -> None:
    assert SELECTIONS.make("learned") == Learned(EdgePruning())
    with pytest.raises(InputError, match="method='ugs' learns no mask of a size; use 'edge-pruning'"):
        Learned(UGS())
    with pytest.raises(InputError, match="is unknown"):
        Learned("edge-prunning")
