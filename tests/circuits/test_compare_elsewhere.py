"""`compare_methods` on circuits that were made elsewhere, and on the whole output."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution import Scores, attribute
from circuits import Circuit, MethodComparison, compare_methods, mib
from interp import ComputationalGraph
from interp.errors import InputError
from interp.selection import LADDER_FRACTIONS, connected, ladder, top_n
from tests.node_circuits import small_circuit
from tests.tiny import shared, tiny_task

QUIET: dict[str, Any] = {"quiet": True, "resamples": 50}


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, n=10)


@pytest.fixture(scope="module")
def graph(model: Any) -> ComputationalGraph:
    return ComputationalGraph.of(model)


@pytest.fixture(scope="module")
def theirs(graph: ComputationalGraph) -> Circuit:
    drawn = torch.rand(graph.shape, generator=torch.Generator().manual_seed(1)) * graph.edge_mask
    return Circuit(Scores(drawn, graph, method="theirs"), connected(drawn, graph, 30))


def rows(table: MethodComparison, circuit: str) -> dict[str, dict[Any, Any]]:
    part = table.circuits[table.circuits["circuit"] == circuit]
    return {row["method"]: row for row in part.to_dict("records")}


def test_the_output_is_looked_at_at_every_size(model: Any, task: Any, graph: ComputationalGraph) -> None:
    scoring, judging = task.split(0.5, 0)
    values = attribute(model, scoring, "eap", quiet=True).values
    table = compare_methods(model, task, ["eap"], n_random=0, **QUIET)
    masks = [top_n(values, graph, n) for n in ladder(graph)]
    found = [metrics.output_agreement(model, judging, mask, n_random=0, quiet=True) for mask in masks]
    points = table.points.query("method == 'eap' and ranking == 'absolute'")
    kl, same = (np.array([getattr(one, name).value for one in found]) for name in ("kl", "same"))
    assert points["kl"].tolist() == pytest.approx(kl.tolist(), abs=1e-6)
    assert points["same_argmax"].tolist() == pytest.approx(same.tolist())
    assert (points["kl_low"] >= 0).all()
    row, log_p = table.to_frame().iloc[0], np.log(LADDER_FRACTIONS)
    for name, by_size in (("kl", kl), ("same_argmax", same)):
        assert row[name] == pytest.approx(np.trapezoid(by_size, log_p) / (log_p[-1] - log_p[0]), abs=1e-6)
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert {"kl", "same_argmax"} <= set(table.summary())


def test_a_single_circuit_stands_beside_those_of_its_size(
    model: Any, task: Any, graph: ComputationalGraph, theirs: Circuit, tmp_path: Path
) -> None:
    scoring, judging = task.split(0.5, 0)
    eap = attribute(model, scoring, "eap", quiet=True).values
    table = compare_methods(
        model, task, {"eap": "eap", "mask": theirs.mask, "circuit": theirs}, selection="connected", n_random=2, **QUIET
    )
    assert set(table.to_frame()["method"]) == {"eap", "random"}
    assert table.circuits["circuit"].tolist() == ["mask"] * 3 + ["circuit"] * 3
    by_mask, by_circuit = rows(table, "mask"), rows(table, "circuit")
    assert [by_mask["mask"]["edges"], by_mask["eap"]["edges"]] == [30, 30]
    masks = torch.stack([theirs.mask, connected(eap, graph, 30)])
    curve = metrics.measure(model, judging, masks, quiet=True)
    f = [one.value for one in metrics.faithfulness(curve)]
    agreement = metrics.output_agreement(model, judging, theirs.mask, n_random=0, quiet=True)
    for own, name in ((by_mask, "mask"), (by_circuit, "circuit")):
        assert own[name]["faithfulness"] == pytest.approx(f[0])
        assert own["eap"]["faithfulness"] == pytest.approx(f[1])
        assert own[name]["kl"] == pytest.approx(agreement.kl.value)
        assert own[name]["same_argmax"] == pytest.approx(agreement.same.value)
        assert math.isnan(own[name]["farther"])
        assert own["eap"]["farther"] == pytest.approx(abs(1 - f[1]) - abs(1 - f[0]))
        assert own["eap"]["farther_low"] <= own["eap"]["farther"] <= own["eap"]["farther_high"]
        assert 0 < own["eap"]["p"] <= own["eap"]["p_adjusted"] <= 1
    assert "Single circuits" in table.to_html()
    again = MethodComparison.load(table.save(tmp_path / "table.json"))
    assert str(again) == str(table)


def test_files_of_circuits_and_of_scores(model: Any, task: Any, theirs: Circuit, tmp_path: Path) -> None:
    theirs.save(tmp_path / "ours.json")
    theirs.to_eap_ig_json(tmp_path / "graph.json")
    nothing = Circuit(theirs.scores, torch.zeros_like(theirs.mask))
    nothing.to_eap_ig_json(tmp_path / "scores.json")
    given = {name: tmp_path / f"{name}.json" for name in ("ours", "graph", "scores")}
    table = compare_methods(model, task, given, n_random=0, **QUIET)
    assert table.to_frame()["method"].tolist() == ["scores"]
    assert rows(table, "ours")["ours"]["faithfulness"] == rows(table, "graph")["graph"]["faithfulness"]
    direct = compare_methods(model, task, [theirs.scores], n_random=0, **QUIET)
    assert direct.to_frame()["cmd"].item() == pytest.approx(table.to_frame()["cmd"].item())


def test_entries_of_mib(model: Any, task: Any, theirs: Circuit, tmp_path: Path) -> None:
    mib.write_importances(theirs.scores, tmp_path / "scores", "ioi", "gpt2", 8)
    mib.write_circuits(theirs.scores, tmp_path / "nine", "ioi", "gpt2", 8)
    (entry,) = mib.read(tmp_path / "scores")
    given = {"theirs": theirs.scores, "importances": entry, "nine": tmp_path / "nine" / "ioi_gpt2"}
    frame = compare_methods(model, task, given, truth=theirs, n_random=0, **QUIET).to_frame().set_index("method")
    for name in ("cmd", "log_cpr", "kl", "edges_85"):
        assert frame.loc[["importances", "nine"], name].tolist() == pytest.approx([frame.loc["theirs", name]] * 2)
    assert frame.loc["importances", "cpr_signed"] == pytest.approx(frame.loc["theirs", "cpr_signed"])
    assert math.isnan(frame.loc["nine", "cpr_signed"])
    assert frame.loc["nine", "auroc"] > 0.5
    assert math.isnan(frame.loc["nine", "seconds"])


def test_circuits_of_nodes(model: Any, task: Any) -> None:
    _, judging = task.split(0.5, 0)
    circuit = small_circuit(model, task, "node")
    table = compare_methods(model, task, {"eap": "eap", "circuit": circuit}, level="node", n_random=1, **QUIET)
    f = metrics.faithfulness(metrics.measure(model, judging, circuit, quiet=True))
    found = rows(table, "circuit")
    assert set(found) == {"circuit", "eap", "random"}
    assert found["circuit"]["faithfulness"] == pytest.approx(f[0].value)
    assert found["circuit"]["nodes"] == found["eap"]["nodes"] == 5
    with pytest.raises(InputError, match="is a circuit of nodes; give one of edges"):
        compare_methods(model, task, {"eap": "eap", "circuit": circuit}, **QUIET)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"one": torch.ones(2, 2, dtype=torch.bool)}, "single circuits alone"),
        ({"eap": "eap", "one": torch.ones(2, 2, dtype=torch.bool)}, r"methods\['one'\] must be a torch.bool tensor"),
        ({"eap": "eap", "one": Path("missing.json")}, "missing.json"),
    ],
)
def test_refusals(model: Any, task: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_methods(model, task, given, **QUIET)


def test_folders_that_are_refused(model: Any, task: Any, theirs: Circuit, tmp_path: Path) -> None:
    for name in ("ioi", "mcqa"):
        mib.write_importances(theirs.scores, tmp_path, name, "qwen2.5", 8)
    with pytest.raises(InputError, match="holds 2 entries; name the folder of one"):
        compare_methods(model, task, {"eap": "eap", "one": tmp_path}, **QUIET)
    (tmp_path / "ioi_qwen2.5" / "importances.json").write_text("{}")
    with pytest.raises(InputError, match=r"ioi_qwen2.5 cannot be read"):
        compare_methods(model, task, {"eap": "eap", "one": tmp_path / "ioi_qwen2.5"}, **QUIET)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match=r"other\.json"):
        compare_methods(model, task, {"eap": "eap", "one": tmp_path / "other.json"}, **QUIET)
