"""Submissions to MIB: round trips, its sizes and names, what it would refuse, and its figures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution import Scores, attribute
from circuits import Circuit, mib
from circuits.formats.mib_names import BUILT_IN, TASKS
from interp import ComputationalGraph, tasks
from interp.errors import InputError
from interp.selection import LADDER_FRACTIONS, greedy, ladder, prune, top_n, top_n_nodes
from metrics.circuit.evaluate import measure
from tests.tiny import shared, tiny_task

GPT2 = ComputationalGraph(n_layers=12, n_heads=12)
MIDDLE = ComputationalGraph(n_layers=5, n_heads=8)
SMALL = ComputationalGraph(n_layers=3, n_heads=4)


def made_up(graph: ComputationalGraph, seed: int = 0) -> Scores:
    noise = torch.randn(graph.shape, generator=torch.Generator().manual_seed(seed))
    return Scores(noise * graph.edge_mask, graph, method="eap", model="a model", task={"name": "ioi"})


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("gpt2")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, n=6)


@pytest.fixture(scope="module")
def scores(model: Any, task: Any) -> Scores:
    return attribute(model, task, "eap", quiet=True)


@pytest.mark.parametrize("kv", ["head", "group"])
def test_importances_come_back(tmp_path: Path, kv: Any) -> None:
    grouped = ComputationalGraph(n_layers=3, n_heads=4, n_kv_heads=2, kv=kv)
    path = mib.write_importances(made_up(grouped), tmp_path, "arc_easy", "org/my_model", d_model=16)
    assert path == tmp_path / "arc-easy_my-model" / "importances.json"
    (entry,) = mib.read(tmp_path)
    assert (entry.task, entry.model, entry.kind) == ("arc-easy", "my-model", "importances")
    assert entry.scores is not None
    if kv == "head":
        torch.testing.assert_close(entry.scores.values, made_up(grouped).values)
    assert entry.scores.values.sum() == pytest.approx(float(made_up(grouped).values.sum()), abs=1e-4)


def test_the_file_is_the_graph_that_mibs_reader_asks_for(tmp_path: Path) -> None:
    scores = made_up(SMALL)
    data = json.loads(mib.write_importances(scores, tmp_path, "ioi", "gpt2", d_model=16).read_text())
    assert data["cfg"] == {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 16}
    assert list(data["nodes"]) == [*SMALL.sources, "logits"]
    assert list(data["edges"]) == list(SMALL.edges())
    assert {type(node["in_graph"]) for node in data["nodes"].values()} == {bool}
    for name, edge in data["edges"].items():
        assert type(edge["in_graph"]) is bool
        assert edge["score"] == scores.values[SMALL.edge_index(name)].item()
    for path in mib.write_circuits(scores, tmp_path / "nine", "ioi", "gpt2", d_model=16):
        edges = json.loads(path.read_text())["edges"].values()
        assert all(edge["score"] == float(edge["in_graph"]) for edge in edges)


@pytest.mark.parametrize(
    ("graph", "selection", "absolute", "rule", "sizes"),
    [
        (GPT2, "top-n", True, top_n, (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245)),
        (MIDDLE, "greedy", False, greedy, (2, 4, 12, 24, 49, 123, 246, 492, 1230)),  # of 2,461
    ],
)
def test_nine_circuits_of_int_p_n_edges_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, graph: ComputationalGraph, selection: str, absolute: bool,
    rule: Any, sizes: tuple[int, ...],
) -> None:  # fmt: skip
    scores = made_up(graph)
    written = mib.write_circuits(scores, tmp_path, "ioi", "gpt2", 768, selection=selection, absolute=absolute)
    names = ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]
    assert [path.name for path in written] == [f"{name}.json" for name in names]
    (entry,) = mib.read(tmp_path)
    assert entry.kind == "circuits"
    for size, circuit in zip(sizes, entry.circuits, strict=True):
        assert torch.equal(circuit.mask, rule(scores.values, graph, size, absolute))
        assert circuit.n_edges <= size
    told = [record.message.partition(".json holds no edges")[0] for record in caplog.records]
    assert told == [name for name, circuit in zip(names, entry.circuits, strict=True) if not circuit.n_edges]


def test_names_need_not_tell_the_order(tmp_path: Path) -> None:
    paths = mib.write_circuits(made_up(MIDDLE), tmp_path, "ioi", "gpt2", selection="greedy")
    before = [circuit.n_edges for circuit in mib.read(tmp_path)[0].circuits]
    for path, letter in zip(paths, "ihgfedcba", strict=True):
        path.rename(path.with_name(f"{letter}.json"))
    (entry,) = mib.read(tmp_path / "ioi_gpt2")
    assert [circuit.n_edges for circuit in entry.circuits] == before == sorted(before)
    assert len(set(before)) > 4


def test_a_submission_that_mib_would_take(tmp_path: Path) -> None:
    qwen = ComputationalGraph(n_layers=24, n_heads=14)
    small = Scores(torch.zeros(qwen.shape), qwen, method="eap")
    small.values[0, 0] = 1.0
    mib.write_circuits(made_up(GPT2), tmp_path, "ioi", "gpt2", 768)
    mib.write_importances(small, tmp_path, "mcqa", "qwen2.5", 896)
    frame, problems = mib.check(tmp_path)
    assert problems == []
    assert frame["folder"].tolist() == ["ioi_gpt2", "mcqa_qwen2.5"]
    assert frame["holds"].tolist() == ["circuits", "importances"]


def test_what_mib_would_refuse(tmp_path: Path) -> None:
    mib.write_importances(made_up(SMALL), tmp_path, "ioi", "gpt2")  # another model's graph
    mib.write_importances(made_up(GPT2), tmp_path, "mcqa", "gpt2")  # no such pair
    zero = Scores(torch.zeros(GPT2.shape), GPT2, method="eap")
    mib.write_importances(zero, tmp_path, "ioi", "interpbench")
    paths = mib.write_circuits(made_up(MIDDLE), tmp_path, "ioi", "qwen2.5", selection="greedy")
    paths[0].write_text(paths[6].read_text())  # no circuit is left that small
    paths = mib.write_circuits(made_up(MIDDLE), tmp_path, "ioi", "gemma2")
    paths[0].unlink()
    paths = mib.write_circuits(made_up(MIDDLE), tmp_path, "ioi", "llama3")
    paths[3].write_text("{}")
    frame, problems = mib.check(tmp_path)
    found = {entry.name: " ".join(entry.problems) for entry in mib.read(tmp_path)}
    assert "its graph has 3 layers of 4 heads; the model has 12 of 12" in found["ioi_gpt2"]
    assert "no such pair" in found["mcqa_gpt2"]
    assert found["ioi_interpbench"] == "no edge or node has a score other than 0"
    assert "at most 5.0% of all edges, 123;" in found["ioi_qwen2.5"]
    assert "there are 8 .json files" in found["ioi_gemma2"]
    assert "is damaged" in found["ioi_llama3"]
    assert (frame["problems"] > 0).all()
    assert any("at least two tasks" in problem for problem in problems)
    assert sum(problem.startswith("ioi_gpt2: ") for problem in problems) == 1


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("a pickle was opened",))

    home = tmp_path / "ioi_gpt2"
    home.mkdir()
    (home / "importances.pt").write_bytes(pickle.dumps(Trap()))
    (entry,) = mib.read(tmp_path)
    assert entry.kind == "unreadable"
    assert "are not opened: write .json instead" in entry.problems[0]
    with pytest.raises(InputError, match=r"cannot be evaluated: \.pt files are pickles"):
        mib.evaluate(None, [], entry)
    with pytest.raises(InputError, match=r"holds 'importances\.pt' already"):
        mib.write_importances(made_up(GPT2), tmp_path, "ioi", "gpt2")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        mib.read(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no folders"):
        mib.read(tmp_path)
    with pytest.raises(InputError, match="cannot name a folder"):
        mib.write_importances(made_up(SMALL), tmp_path, "ioi", "..")
    mib.write_circuits(made_up(SMALL), tmp_path, "ioi", "gpt2")
    with pytest.raises(InputError, match=r"holds '0.1.json' already"):
        mib.write_importances(made_up(GPT2), tmp_path, "ioi", "gpt2")
    assert len(mib.write_circuits(made_up(SMALL, 1), tmp_path, "ioi", "gpt2")) == 9  # written over


def test_importances_are_judged_as_mib_does(model: Any, task: Any, scores: Scores, tmp_path: Path) -> None:
    mib.write_importances(scores, tmp_path, "ioi", "tiny", 16)
    (entry,) = mib.read(tmp_path)
    found = mib.evaluate(model, task, entry, quiet=True, resamples=30).to_dict("records")[0]
    both = metrics.mib(model, task, scores, quiet=True, resamples=30).set_index("selection")
    assert found["cpr"] == pytest.approx(both.at["signed", "cpr"])
    assert found["cmd"] == pytest.approx(both.at["absolute", "cmd"])
    assert found["cpr_low"] == pytest.approx(both.at["signed", "cpr_low"])
    assert found["cmd_high"] == pytest.approx(both.at["absolute", "cmd_high"])
    assert (found["entry"], found["holds"], found["n"]) == ("ioi_tiny", "importances", 6)


def nodes_of(graph: ComputationalGraph, seed: int = 0, first: float = 9.0) -> Scores:
    drawn = torch.randn(len(graph.sources), generator=torch.Generator().manual_seed(seed))
    drawn[0] = first
    return Scores(drawn, graph, method="attribution-patching", level="node")


def by_hand(graph: ComputationalGraph, alive: set[str]) -> torch.Tensor:
    """All edges among nodes and to the logits, without what the input does not reach or what leads nowhere."""
    mask = torch.zeros(graph.shape, dtype=torch.bool)
    for name in graph.edges():
        source, _, target = name.partition("->")
        if source in alive and target.partition("<")[0] in alive | {"logits"}:
            mask[graph.edge_index(name)] = True
    return prune(mask, graph)


def test_importances_of_nodes_are_judged_as_mib_does(model: Any, task: Any, tmp_path: Path) -> None:
    graph = ComputationalGraph.of(model)
    for first in (9.0, 0.3):  # the input is ranked first, or among the others
        nodes = nodes_of(graph, first=first)
        mib.write_importances(nodes, tmp_path, "ioi", "tiny", 16)
        (entry,) = mib.read(tmp_path)
        assert entry.scores is not None
        assert entry.scores.level == "node"
        torch.testing.assert_close(entry.scores.values, nodes.values)
        found = mib.evaluate(model, task, entry, quiet=True, resamples=20).to_dict("records")[0]
        n = len(graph.sources)
        for area, values in (("cpr", nodes.values), ("cmd", nodes.values.abs())):
            order = values.argsort(descending=True)
            chosen = [{graph.sources[i] for i in order[: int(p * n)]} for p in LADDER_FRACTIONS]
            values = measure(model, task, torch.stack([by_hand(graph, one) for one in chosen]), quiet=True)
            f = (values.circuits.mean(1) - values.empty.mean()) / (values.clean.mean() - values.empty.mean())
            distance = f.numpy() if area == "cpr" else np.abs(1 - f.numpy())
            assert found[area] == pytest.approx(np.trapezoid(distance, LADDER_FRACTIONS), abs=1e-5)
        assert found["cmd_low"] <= found["cmd"] <= found["cmd_high"]


def test_nine_circuits_of_nodes_are_as_large_as_mib_allows(tmp_path: Path) -> None:
    nodes = nodes_of(MIDDLE)
    mib.write_circuits(nodes, tmp_path, "ioi", "gpt2")
    (entry,) = mib.read(tmp_path)
    assert not any("at most" in problem for problem in entry.problems)
    order = [MIDDLE.sources[i] for i in nodes.values.abs().argsort(descending=True) if i]
    for limit, circuit in zip(ladder(MIDDLE), entry.circuits, strict=False):
        sizes = [int(by_hand(MIDDLE, {"input", *order[:n]}).sum()) for n in (0, 1, 2)]
        n = next((n for n, size in enumerate(sizes) if size > limit), None)
        if n is not None:
            assert torch.equal(circuit.mask, by_hand(MIDDLE, {"input", *order[: n - 1]}))
        held = len(set(circuit.nodes) - {"input", "logits"})
        assert int(top_n_nodes(nodes.values, MIDDLE, held).sum()) == circuit.n_edges <= limit
        assert held == 45 or int(top_n_nodes(nodes.values, MIDDLE, held + 1).sum()) > limit
    with pytest.raises(InputError, match="of nodes at all positions by 'top-n'"):
        mib.write_circuits(nodes, tmp_path, "ioi", "gpt2", selection="greedy")


def test_nine_circuits_are_judged_with_the_model_as_the_tenth(
    model: Any, task: Any, scores: Scores, tmp_path: Path
) -> None:
    mib.write_circuits(scores, tmp_path, "ioi", "tiny", 16)
    (entry,) = mib.read(tmp_path)
    found = mib.evaluate(model, task, entry, quiet=True, resamples=30).to_dict("records")[0]
    masks = torch.stack([*(circuit.mask for circuit in entry.circuits), scores.graph.edge_mask])
    values = measure(model, task, masks, quiet=True)
    f = (values.circuits.mean(1) - values.empty.mean()) / (values.clean.mean() - values.empty.mean())
    assert f[-1] == pytest.approx(1)
    assert found["cpr"] == pytest.approx(np.trapezoid(f, LADDER_FRACTIONS))
    assert found["cmd"] == pytest.approx(np.trapezoid(np.abs(1 - f.numpy()), LADDER_FRACTIONS))


def test_auroc_is_mibs(model: Any, task: Any, scores: Scores, tmp_path: Path) -> None:
    truth = Circuit(scores, top_n(scores.values, scores.graph, 50))
    truth.to_eap_ig_json(tmp_path / "truth.json")
    known = Circuit.from_eap_ig_json(tmp_path / "truth.json")
    mib.write_importances(scores, tmp_path / "out", "ioi", "interpbench")
    (entry,) = mib.read(tmp_path / "out")
    found = mib.evaluate(model, task, entry, truth=known, quiet=True, resamples=5)
    assert found["auroc"].item() == pytest.approx(metrics.auroc(scores, truth, mib=True))
    nine = mib.Entry("ioi_interpbench", circuits=(truth,) * 9)
    with pytest.raises(InputError, match="AUROC needs importances"):
        mib.evaluate(model, task, nine, truth=known, quiet=True, resamples=5)


def test_what_cannot_be_evaluated(model: Any, task: Any, scores: Scores) -> None:
    nodes = mib.Entry("ioi_tiny", scores=attribute(model, task, "attribution-patching", quiet=True))
    with pytest.raises(InputError, match="importances of nodes are selected by 'top-n'"):
        mib.evaluate(model, task, nodes, selection="greedy", quiet=True)
    with pytest.raises(InputError, match="MIB's AUROC ranks edges"):
        mib.evaluate(model, task, nodes, truth=scores.graph.edge_mask, quiet=True, resamples=5)
    neurons = Scores(torch.ones(3, 5), scores.graph, method="x", level="neuron")
    with pytest.raises(InputError, match="importances of neurons cannot be evaluated"):
        mib.evaluate(model, task, mib.Entry("ioi_tiny", scores=neurons), quiet=True)
    few = mib.Entry("ioi_tiny", circuits=(Circuit(scores, scores.graph.edge_mask),) * 3)
    with pytest.raises(InputError, match="circuits holds 3; MIB measures 9"):
        mib.evaluate(model, task, few, quiet=True)
    with pytest.raises(InputError, match="does not fit model"):
        mib.evaluate(model, task, mib.Entry("ioi_tiny", scores=made_up(GPT2)), quiet=True)


def test_names_are_mibs() -> None:
    assert len(mib.COLUMNS) == 13
    assert set(BUILT_IN) < set(TASKS)
    assert all(name in tasks.names() for name, _ in BUILT_IN.values())
    assert {column.partition("_")[2] for column in mib.COLUMNS} == {*mib.MODELS, "interpbench"}
    assert [round(size * 100, 3) for size in mib.SIZES] == [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
