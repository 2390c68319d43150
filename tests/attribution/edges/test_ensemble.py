"""Ensembles: means of methods by hand, where methods start from others, what is compared, refusals."""

from __future__ import annotations

import functools

import pytest
import torch

import metrics
from attribution import EAPIG, UGS, EdgePruning, Ensemble, SampledEdgePruning, Schedule, attribute, methods
from attribution.edges.start import falling
from circuits import compare_methods, find_circuit, planted
from interp.errors import InputError
from tests import oracle
from tests.oracle import mixed_task

FEW = {"steps": 2, "prompts": 2, "masks": 2}


@functools.cache
def scored(method, name="llama"):
    model = oracle.model_of(name)
    return attribute(model, mixed_task(model), method, quiet=True)


def test_it_is_the_mean_of_ranks_and_of_scaled_scores():
    parts = [scored(name).values for name in ("eap", "relp")]
    real = scored("eap").graph.edge_mask
    ranks, scaled = torch.zeros(2, int(real.sum()), dtype=torch.float64), []
    for row, part in zip(ranks, parts, strict=True):
        values = part[real]
        order = values.abs().argsort().tolist()
        for rank, place in enumerate(order, start=1):
            row[place] = values[place].sign() * rank / len(order)
        scaled.append(values / values.abs().mean())
    by_rank = scored(Ensemble(("eap", "relp")))
    assert torch.allclose(by_rank.values[real], ranks.mean(0))
    by_scale = scored(Ensemble(("eap", "relp"), by="scale"))
    assert torch.allclose(by_scale.values[real], torch.stack(scaled).mean(0))
    assert not by_rank.values[~real].any()
    assert [one["method"] for one in by_rank.settings["methods"]] == ["eap", "relp"]
    assert by_rank.settings["by"] == "rank"


def test_it_costs_what_its_methods_cost_and_knows_what_all_of_them_know():
    both = Ensemble((EAPIG(steps=3), "eap"))
    graph = scored("eap").graph
    assert both.passes(graph) == (4 + 2, 3 + 1)
    assert both.ablations == ("patch",)
    assert set(Ensemble(("eap", "relp")).ablations) > {"patch", "mean"}
    assert Ensemble(("eap", UGS(seed=7))).drawn_with() == 7
    assert Ensemble(("attribution-patching", "activation-patching")).level == "node"
    assert "ensemble" in methods()["method"].tolist()


@pytest.mark.parametrize("learner", [UGS(**FEW, start="eap"), SampledEdgePruning(edges=9, **FEW, start="eap")])
def test_sampled_masks_start_from_scores_or_from_the_method_that_makes_them(learner):
    found = scored(learner)
    assert found.settings["start"] == "eap"
    given = type(learner)(
        **{**{k: getattr(learner, k) for k in FEW}, "start": scored("eap")},
        **({} if isinstance(learner, UGS) else {"edges": 9}),
    )
    assert torch.allclose(scored(given).values, found.values, rtol=1e-6)


def test_a_learned_mask_starts_from_an_ensemble():
    schedule = Schedule(steps=3)
    found = scored(EdgePruning(edges=20, start=Ensemble(("eap", "relp")), schedule=schedule))
    given = scored(EdgePruning(edges=20, start=scored(Ensemble(("eap", "relp"))), schedule=schedule))
    assert found.settings["start"] == "ensemble"
    assert torch.equal(found.values, given.values)


def test_starts_fall_with_the_rank():
    scores = scored("eap")
    values, sizes = falling(scores, 2.0, 0.0), scores.values[scores.graph.edge_mask].abs()
    order = sizes.argsort(descending=True)
    assert torch.allclose(values[order], torch.linspace(2, 0, len(order), dtype=torch.float64))
    assert float(values.mean()) == pytest.approx(1)


# in boolean the two have opposite signs on a true edge, which cancel
@pytest.mark.parametrize(("name", "least"), [("induction", 0.99), ("boolean", 0.9), ("greater", 0.99), ("sum", 0.99)])
def test_of_planted_circuits_it_finds_what_its_methods_find(name, least):
    known = planted.load(name)
    task = known.task.select(range(32))
    assert metrics.auroc(attribute(known.model, task, "ensemble", quiet=True), known.mask) > least


def test_it_is_compared_and_finds_circuits():
    known = planted.load("induction")
    task = known.task.select(range(16))
    table = compare_methods(known.model, task, methods=["eap", Ensemble(("eap", "relp"))], quiet=True)
    assert set(table.to_frame()["method"]) == {"eap", "ensemble", "random"}
    circuit = find_circuit(known.model, task, method=Ensemble(("eap-ig", "relp")), edges=9, quiet=True)
    assert circuit.scores.method == "ensemble"


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="must be at least two methods"):
        Ensemble(("eap",))
    with pytest.raises(InputError, match="must be at least two methods"):
        Ensemble("eap")
    with pytest.raises(InputError, match="by='mean' is unknown"):
        Ensemble(by="mean")
    with pytest.raises(InputError, match="method='eapp' is unknown"):
        Ensemble(("eap", "eapp"))
    with pytest.raises(InputError, match="must all score edges, or all nodes"):
        Ensemble(("eap", "activation-patching"))
    model = oracle.model_of("llama")
    with pytest.raises(InputError, match="follows a path between two prompts"):
        attribute(model, mixed_task(model), "ensemble", ablation="mean", quiet=True)
    with pytest.raises(InputError, match="start must be edge scores over"):
        attribute(model, mixed_task(model), UGS(start="activation-patching"), quiet=True)
