"""One circuit for a task or several: a task mixed of two is taken apart again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from attribution import EAP, attribute
from circuits import Mechanisms, find_circuit, mechanisms
from interp import Task, tasks
from interp.errors import InputError
from metrics import evaluate
from tests.tiny import behaving, shared

QUICK: dict[str, Any] = {"draws": 19, "n_random": 0, "resamples": 50, "quiet": True}


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Task]:
    model = shared("gpt2")
    return model, behaving(model, 12)


@pytest.fixture(scope="module")
def forced(tiny: Any) -> Mechanisms:
    model, task = tiny
    return mechanisms(model, task, clusters=2, edges=30, seed=3, **QUICK)


def test_a_task_mixed_of_two_is_two(smollm2: Any):
    parts = [tasks.ioi(n=8, seed=0, model=smollm2), tasks.greater_than(n=8, seed=0, model=smollm2)]
    mixed = Task("mixed", [one for pair in zip(*(part.examples for part in parts), strict=True) for one in pair])
    found = mechanisms(smollm2, mixed, edges=300, selection="connected", **QUICK)
    assert found.n_clusters == 2
    labels = found.prompts["cluster"].to_numpy()
    assert set(labels[::2]) != set(labels[1::2])
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
    (pair,) = found.pairs.to_dict("records")
    assert pair["distance"] > 3 * pair["halves"]
    assert pair["p_corrected"] <= 0.1
    assert pair["jaccard"] < 0.3
    faithfulness = found.faithfulness.pivot(index="circuit", columns="prompts_of", values="faithfulness").to_numpy()
    assert faithfulness.diagonal().min() > 0.4
    assert max(faithfulness[0, 1], faithfulness[1, 0]) < 0.2
    assert "2 mechanisms in mixed" in repr(found)


def test_prompts_are_scored_alone_and_their_mean_is_the_task_s_score(tiny: Any, forced: Mechanisms):
    model, task = tiny
    alone = torch.stack([attribute(model, task.select([i]), "eap", quiet=True).values for i in range(len(task))])
    rows = alone.flatten(1).double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(forced.cosines.double(), rows @ rows.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.mean(0), attribute(model, task, "eap", quiet=True).values, atol=1e-6, rtol=1e-4)


def test_each_cluster_has_the_circuit_that_its_prompts_alone_have(tiny: Any, forced: Mechanisms):
    model, task = tiny
    for cluster, circuit in enumerate(forced.circuits):
        inside = np.flatnonzero(forced.prompts["cluster"] == cluster).tolist()
        if len(inside) < 4:
            assert circuit is None
            continue
        assert circuit is not None
        own = find_circuit(
            model, task.select(inside), method=EAP(), edges=30, seed=3, n_random=0, resamples=50, quiet=True
        )
        assert circuit.edges == own.edges  # type: ignore[union-attr]
        row = forced.to_frame().iloc[cluster]
        assert row["faithfulness"] == pytest.approx(own.report.faithfulness, abs=1e-5)
    assert any(one is not None for one in forced.circuits)


def test_circuits_are_judged_on_all_prompts_of_other_clusters(tiny: Any, forced: Mechanisms):
    model, task = tiny
    across = forced.faithfulness[forced.faithfulness["circuit"] != forced.faithfulness["prompts_of"]]
    for row in across.to_dict("records"):
        others = task.select(np.flatnonzero(forced.prompts["cluster"] == row["prompts_of"]).tolist())
        part = others.split(0.5, seed=3)[1] if forced.circuits[row["prompts_of"]] is not None else others
        circuit = forced.circuits[row["circuit"]]
        assert circuit is not None
        whole, empty = (evaluate(model, part, mask, quiet=True).mean() for mask in
                        (circuit.graph.edge_mask, torch.zeros_like(circuit.mask)))  # fmt: skip
        value = (evaluate(model, part, circuit.mask, quiet=True).mean() - empty) / (whole - empty)
        assert row["faithfulness"] == pytest.approx(float(value), abs=1e-4)
    assert len(across) == sum(one is not None for one in forced.circuits)


def test_it_is_kept_shown_and_drawn(forced: Mechanisms, tmp_path: Any):
    again = Mechanisms.load(forced.save(tmp_path / "mechanisms.json"))
    assert again.headline() == forced.headline()
    assert again.to_frame().to_csv() == forced.to_frame().to_csv()
    assert [one and one.edges for one in again.circuits] == [one and one.edges for one in forced.circuits]  # type: ignore[union-attr]
    assert "cluster" in forced._repr_html_()
    assert np.shape(forced.figure().data[0].z) == (12, 12)


def test_the_same_seed_finds_the_same(tiny: Any, forced: Mechanisms):
    model, task = tiny
    again = mechanisms(model, task, clusters=2, edges=30, seed=3, **QUICK)
    assert again.prompts.equals(forced.prompts)
    assert again.pairs["p"].tolist() == forced.pairs["p"].tolist()


def test_nodes_have_mechanisms_too(tiny: Any):
    model, task = tiny
    found = mechanisms(model, task, level="neuron", nodes=20, clusters=2, **QUICK)
    assert {one.level for one in found.circuits if one is not None} == {"neuron"}  # type: ignore[union-attr]


def test_one_cluster_has_no_pairs(tiny: Any):
    model, task = tiny
    found = mechanisms(model, task, clusters=1, edges=30, **QUICK)
    assert found.n_clusters == 1
    assert found.pairs.empty
    assert "one mechanism" in repr(found)
    assert not math.isnan(found.to_frame()["faithfulness"].iloc[0])


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"clusters": 4}, "clusters=4 of 12 prompts are too many: give at most 3"),
        ({"clusters": 0}, "clusters"),
        ({"most": 1}, "most"),
        ({"draws": 5}, "draws"),
        ({"ablation": "mean"}, "mechanisms scores each alone"),
        ({"edgs": 3}, "edgs"),
        ({"method": "attribution-patching"}, "scores nodes"),
    ],
)
def test_what_cannot_be_is_refused(tiny: Any, keywords: Any, sentence: str):
    model, task = tiny
    with pytest.raises(InputError, match=sentence):
        mechanisms(model, task, **{**QUICK, **keywords})


def test_a_few_prompts_and_prompts_without_scores_are_refused(tiny: Any):
    model, task = tiny
    with pytest.raises(InputError, match="at least 8"):
        mechanisms(model, task.select(range(7)), **QUICK)
    flat = task.with_objective(lambda logits, prompts, clean: 0 * logits[:, 0])
    with pytest.raises(InputError, match="scores of prompt 0 are all 0"):
        mechanisms(model, flat, **QUICK)
