"""Files of circuits of nodes on the command line: `evaluate`, `curve`, `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import circuits.find
import metrics
from attribution import Dictionary
from circuits import Circuit, compare_methods, find_circuit
from interp import tasks
from metrics.circuit.evaluate import measure
from tests.circuits.cli import test_cli
from tests.circuits.cli.test_cli import dictionaries_in, refused, run

bridge, loaded = test_cli.bridge, test_cli.loaded  # fixtures


@pytest.fixture(scope="module")
def neurons(bridge: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circuit of neurons on disk, found on half of 8 prompts of seed 0."""
    task = tasks.ioi(n=8, seed=0, model=bridge)
    found = find_circuit(bridge, task, level="neuron", method="eap", nodes=20, quiet=True)
    return Path(found.save(tmp_path_factory.mktemp("saved") / "neurons.json"))


@pytest.fixture(scope="module")
def saes(bridge: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dictionaries_in(tmp_path_factory.mktemp("dictionaries") / "saes", bridge.cfg.d_model)


@pytest.fixture(scope="module")
def features(bridge: Any, saes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circuit of features on disk; its file holds the digests of its dictionaries alone."""
    found = find_circuit(
        bridge, tasks.ioi(n=8, seed=0, model=bridge), level="feature", dictionaries=Dictionary.load_all(saes),
        errors="nodes", method="eap", nodes=6, quiet=True,
    )  # fmt: skip
    return Path(found.save(tmp_path_factory.mktemp("saved") / "features.json"))


def test_evaluate(neurons: Path, bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    task, circuit = tasks.ioi(n=8, seed=1, model=bridge), Circuit.load(neurons)
    result = run("evaluate", neurons, "--random-circuits", 1, "--tests", "--json", "-q")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    values = measure(bridge, task, circuit)
    (expected,) = metrics.faithfulness(values, seed=1)
    assert data["faithfulness"]["value"] == pytest.approx(expected.value, rel=1e-3)
    left = measure(bridge, task, ~circuit.node_mask, level="neuron")
    assert data["complement"]["value"] == pytest.approx(metrics.faithfulness(left)[0].value, rel=1e-2, abs=1e-4)
    assert (data["level"], data["nodes"], data["fraction"]) == ("neuron", 20, pytest.approx(20 / 72))
    assert "edges" not in data
    corrupted = measure(bridge, task, circuit.graph.edge_mask & False).empty.mean()
    behaviour = (values.clean - values.empty).mean() / (values.clean.mean() - corrupted)
    assert data["behaviour"] == pytest.approx(float(behaviour), rel=1e-3)
    battery = circuit.test(bridge, task, seed=1, quiet=True)
    assert [row["p"] for row in data["tests"]["tests"]] == pytest.approx([one.p for one in battery.tests], rel=1e-3)
    assert {row["node"] for row in data["tests"]["nodes"]} == set(circuit.nodes)
    text = " ".join(run("evaluate", neurons, "--random-circuits", 1, "-q").stdout.split())
    for part in ("20 neurons (27.78% of all)", "Random neurons", "Without the circuit", "Behaviour lost without all"):
        assert part in text


def test_curve(neurons: Path, bridge: Any) -> None:
    result = run("curve", neurons, "--random-circuits", 1, "--json", "-q")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    task, circuit = tasks.ioi(n=8, seed=1, model=bridge), Circuit.load(neurons)
    choosing, measured = task.split(0.5, 1)
    expected = metrics.faithfulness_curve(
        bridge, measured, circuit.scores, selection="balanced", choosing=choosing, quiet=True
    )
    assert [row["faithfulness"] for row in data["sizes"]] == pytest.approx(list(expected.faithfulness), abs=1e-4)
    assert [row["size"] for row in data["sizes"]] == list(expected.sizes)
    assert data["level"] == "neuron"
    assert "neurons" in run("curve", neurons, "--random-circuits", 0, "-q").stdout


@pytest.mark.parametrize("command", ["evaluate", "curve"])
def test_features_need_their_dictionaries(command: str, features: Path, saes: Path, neurons: Path) -> None:
    assert "give --dictionaries, the folder that they are in" in refused(run(command, features, "-q"))
    told = [command, features, "--dictionaries", saes, "--random-circuits", 1, "-q"]
    result = run(*told, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["level"] == "feature"
    assert "features" in run(*told).stdout
    assert "--dictionaries is for circuits of features" in refused(run(command, neurons, "--dictionaries", saes, "-q"))


def test_a_folder_may_hold_more_dictionaries_but_not_others(
    bridge: Any, saes: Path, features: Path, tmp_path: Path
) -> None:
    second = [Dictionary.load_all(saes)[1]]
    found = circuits.find.find_circuit(
        bridge, tasks.ioi(n=8, model=bridge), level="feature", dictionaries=second, method="eap", nodes=3, quiet=True
    )
    path = found.save(tmp_path / "second.json")
    result = run("evaluate", path, "--dictionaries", saes, "--random-circuits", 0, "--json", "-q")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["nodes"] == 3
    weights = next((dictionaries_in(tmp_path / "other", bridge.cfg.d_model)).glob("layers.1/*.safetensors"))
    weights.write_bytes((saes / "layers.0" / "sae.safetensors").read_bytes())
    message = refused(run("evaluate", features, "--dictionaries", tmp_path / "other", "-q"))
    assert "not those that the features are of" in message


def test_compare(neurons: Path, bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    quick = ["compare", "-m", "tiny", "-t", "ioi", "-n", 8, "--methods", "eap,mask-ig", "--random-circuits", 1]
    asked = [*quick, "--level", "neuron", "--truth", neurons, "-q"]
    result = run(*asked, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    expected = compare_methods(
        bridge, tasks.ioi(n=8, seed=0, model=bridge), ["eap", "mask-ig"], level="neuron", truth=Circuit.load(neurons),
        n_random=1, quiet=True,
    ).to_frame()  # fmt: skip
    assert [row["method"] for row in data["methods"]] == expected["method"].tolist()
    for column in ("cmd", "nodes_85", "auroc"):
        assert [row[column] for row in data["methods"]] == pytest.approx(expected[column].tolist(), rel=1e-4)
    text = " ".join(run(*asked).stdout.split())
    assert "4 scored the neurons" in text
    assert "nodes_85" in text
    assert "truth is a circuit of neurons" in refused(run(*quick, "--truth", neurons, "-q"))
    assert "did you mean 'neuron'" in refused(run(*quick, "--level", "neurons", "-q"))


def test_compare_features(saes: Path) -> None:
    asked = ["compare", "-m", "tiny", "-t", "ioi", "-n", 8, "--methods", "eap", "--random-circuits", 0, "-q"]
    result = run(*asked, "--level", "feature", "--dictionaries", saes, "--errors", "nodes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["nodes"] == 20  # nine features and an error of each of two dictionaries


def test_find_makes_the_tests_of_nodes(tmp_path: Path) -> None:
    told = ["find", *test_cli.QUICK, "--task", "ioi", "--level", "head", "--nodes", "3", "--tests", "-q"]
    result = run(*told, "-o", tmp_path / "heads.json")
    assert result.exit_code == 0, result.output
    assert len(Circuit.load(tmp_path / "heads.json").report.tests) == 5
    assert "Test of sufficiency" in " ".join(result.stdout.split())


def test_find_keeps_stable_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "stable.json"
    told = ("--task", "ioi", "-n", 8, "--level", "neuron", "--method", "eap", "--nodes", 20, "--stable", "-q")
    result = run("find", "-m", "tiny", *told, "-o", path)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(path)
    assert circuit.n_nodes == circuit.report.stability["nodes_kept"] <= 20
    assert "neurons that at least 75% of 20 resamples put among their 20" in result.stdout
