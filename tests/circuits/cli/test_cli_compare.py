"""`circuits compare` and `circuits mib` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import metrics
from attribution import EAP, attribute
from circuits import Circuit, compare_methods, mib
from interp import tasks
from interp.selection import TopN, ladder
from tests.circuits.cli import test_cli
from tests.circuits.cli.test_cli import refused, run

bridge, loaded, saved = test_cli.bridge, test_cli.loaded, test_cli.saved  # fixtures
QUICK = ["compare", "--model", "tiny", "--task", "ioi", "-n", "8", "--methods", "eap,relp", "--random-circuits", "1"]
SUBMIT = ["--models", "tiny", "--tasks", "ioi", "-n", "6", "--method", "eap"]


def test_compare_tells_and_writes(tmp_path: Path, bridge: Any) -> None:
    result = run(*QUICK, "-o", tmp_path / "table.csv", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in ("Methods on ioi", "4 scored the edges, 4 others judged", "Best CMD first", "random", "2 + 1"):
        assert part in text
    assert f"Wrote the table to {tmp_path / 'table.csv'}" in result.stdout
    assert f"Wrote the page to {tmp_path / 'page.html'}" in result.stdout
    expected = compare_methods(
        bridge, tasks.ioi(n=8, seed=0, model=bridge), ["eap", "relp"], n_random=1, quiet=True
    ).to_frame()
    frame = pd.read_csv(tmp_path / "table.csv")
    assert frame.columns.tolist() == expected.columns.tolist()
    assert frame["cmd"].tolist() == pytest.approx(expected["cmd"].tolist())
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_compare_as_json(saved: Path, bridge: Any) -> None:
    settings = ["--truth", saved, "--exact", "30", "--inverted", "--seed", "2", "--steps", "3", "--selection", "greedy"]
    result = run(*QUICK, *settings, "--methods", "eap-ig", "--objective", "log-probability", "--json", "-q")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    data = json.loads(result.stdout)
    task = tasks.ioi(n=8, seed=2, model=bridge).with_objective("log-probability")
    expected = compare_methods(
        bridge, task, {"eap-ig": {"method": "eap-ig", "steps": 3}}, truth=Circuit.load(saved), exact=30, inverted=True,
        n_random=1, seed=2, selection="greedy", quiet=True,
    ).to_frame()  # fmt: skip
    assert [row["method"] for row in data["methods"]] == expected["method"].tolist()
    found, wanted = (pd.DataFrame(one).set_index("method") for one in (data["methods"], expected.to_dict("records")))
    for column in ("cpr", "cmd", "cmd_signed", "edges_95", "auroc", "spearman", "forwards"):
        assert found[column].astype(float).tolist() == pytest.approx(wanted[column].tolist(), nan_ok=True)
    assert (data["seed"], data["selection"], data["files"]) == (2, "greedy", {})
    assert len(data["pairs"]) == 18
    assert data["task"] == task.to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", ","], "--methods ',' names no method"),
        (["--methods", "eapp"], "method='eapp' is unknown; did you mean 'eap'"),
        (["--methods", "activation-patching"], "scores nodes"),
        (["--ablation", "zero", "--methods", "eap-ig"], "follows a path between two prompts"),
        (["--selection", "best"], "selection='best' is unknown"),
        (["--task-file", "x.csv"], "give the task: either --task"),
        (["--truth", "nothing.json"], "nothing.json"),
        (["-o", "same.csv", "--html", "same.csv"], "are two files"),
        (["--html", "no/such/folder/x.html"], "does not exist; make it first"),
    ],
)
def test_compare_refuses_before_it_loads_a_model(
    arguments: list[str], message: str, loaded: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(run(*QUICK, *arguments))
    assert loaded == []


def test_submit_check_and_evaluate(tmp_path: Path, bridge: Any) -> None:
    folder = tmp_path / "submission"
    result = run("mib", "submit", folder, *SUBMIT)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"Wrote {folder / 'ioi_tiny' / 'importances.json'}"]
    assert "MIB has no ioi_tiny: written all the same" in result.stderr
    (entry,) = mib.read(folder)
    scores = attribute(bridge, tasks.ioi(n=6, seed=0, model=bridge), "eap", quiet=True)
    assert entry.scores is not None
    assert torch.equal(entry.scores.values, scores.values)

    checked = run("mib", "check", folder)
    assert checked.exit_code == 2
    assert "Problem: ioi_tiny: the leaderboard has no such pair" in checked.stdout
    assert "MIB would not take this." in checked.stdout
    data = json.loads(run("mib", "check", folder, "--json").stdout)
    assert (data["ok"], data["folders"][0]["holds"]) == (False, "importances")

    judged = run("mib", "evaluate", folder, "-n", "5", "-q", "--json", "-o", tmp_path / "results.csv")
    assert judged.exit_code == 0, judged.output
    (row,) = json.loads(judged.stdout)
    task = tasks.ioi(n=5, seed=1, model=bridge)
    both = metrics.mib(bridge, task, scores, quiet=True).set_index("selection")
    assert row["cpr"] == pytest.approx(both.at["signed", "cpr"], rel=1e-4)
    assert row["cmd"] == pytest.approx(both.at["absolute", "cmd"], rel=1e-4)
    assert pd.read_csv(tmp_path / "results.csv")["entry"].tolist() == ["ioi_tiny"]
    shown = run("mib", "evaluate", folder / "ioi_tiny", "-n", "5")
    assert f"{row['cmd']:.3f} [" in " ".join(shown.stdout.split())


def test_submit_and_evaluate_nodes(tmp_path: Path, bridge: Any) -> None:
    result = run("mib", "submit", tmp_path, *SUBMIT, "--level", "node")
    assert result.exit_code == 0, result.output
    (entry,) = mib.read(tmp_path)
    scores = attribute(bridge, tasks.ioi(n=6, seed=0, model=bridge), EAP(level="node"), quiet=True)
    assert entry.scores is not None
    assert torch.equal(entry.scores.values, scores.values)
    judged = run("mib", "evaluate", tmp_path, "-n", "5", "-q", "--json")
    (row,) = json.loads(judged.stdout)
    own = mib.evaluate(bridge, tasks.ioi(n=5, seed=1, model=bridge), entry, seed=1, quiet=True)
    assert row["cmd"] == pytest.approx(own["cmd"].item())
    assert "level='head' is unknown" in refused(run("mib", "submit", tmp_path, *SUBMIT, "--level", "head"))
    assert "scores edges" in refused(run("mib", "submit", tmp_path, *SUBMIT[:-1], "acdc", "--level", "node"))


def test_a_submission_that_mib_would_take_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuits.mib.check", lambda folder: (pd.DataFrame({"folder": ["ioi_gpt2"]}), []))
    result = run("mib", "check", tmp_path)
    assert result.exit_code == 0
    assert "This is what MIB asks for." in result.stdout


def test_submit_nine_circuits_of_the_pairs_that_mib_has(
    tmp_path: Path, bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(source: str, **settings: Any) -> Any:
        asked.append(source)
        return bridge

    monkeypatch.setattr("interp.models.load_model", load)
    arguments = ["--models", "gpt2,llama3", "--tasks", "ioi,mcqa", "-n", "4", "--method", "eap", "--circuits"]
    monkeypatch.setattr("circuits.cli.mib.built_in", lambda *a: tasks.ioi(n=4, model=bridge))
    result = run("mib", "submit", tmp_path, *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["files"]) == 27
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ioi_gpt2", "ioi_llama3", "mcqa_llama3"]
    assert asked == ["openai-community/gpt2", "meta-llama/Llama-3.1-8B"]
    assert "MIB has no mcqa_gpt2: left out" in result.stderr


def test_export_a_saved_circuit(saved: Path, tmp_path: Path) -> None:
    scores = Circuit.load(saved).scores
    result = run("mib", "export", saved, tmp_path, "--model", "gpt2", "--task", "ioi")
    assert result.exit_code == 0, result.output
    assert torch.equal(mib.read(tmp_path)[0].scores.values, scores.values)  # type: ignore[union-attr]
    nine = run("mib", "export", saved, tmp_path, "--model", "gemma2", "--task", "ioi", "--circuits", "--json")
    assert nine.exit_code == 0, nine.output
    assert len(json.loads(nine.stdout)["files"]) == 9
    assert Circuit.load(saved).provenance["selection"] == "balanced"
    (entry,) = [one for one in mib.read(tmp_path) if one.circuits]
    expected = [TopN().mask(scores.values, scores.graph, n) for n in ladder(scores.graph)][:9]  # chosen as MIB chooses
    assert all(torch.equal(one.mask, mask) for one, mask in zip(entry.circuits, expected, strict=True))
    assert run("mib", "export", saved, tmp_path, "--model", "gpt2", "--task", "ioi", "--circuits").exit_code == 2


def test_evaluate_with_a_known_circuit_and_own_prompts(saved: Path, tmp_path: Path, bridge: Any) -> None:
    circuit = Circuit.load(saved)
    mib.write_importances(circuit.scores, tmp_path / "out", "arc_easy", "llama3")
    circuit.to_eap_ig_json(tmp_path / "truth.json")
    tasks.ioi(n=5, seed=4, model=bridge).to_frame().to_csv(tmp_path / "prompts.csv", index=False)
    arguments = [tmp_path / "out", "--model", "tiny", "--task-file", tmp_path / "prompts.csv"]
    result = run("mib", "evaluate", *arguments, "--truth", tmp_path / "truth.json", "--json", "-q")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["auroc"] == pytest.approx(metrics.auroc(circuit.scores, circuit, mib=True))
    assert row["n"] == 5
    assert "'arc-easy' has no built-in prompts" in refused(run("mib", "evaluate", tmp_path / "out", "--model", "tiny"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "out", "--models", ",", "--tasks", "ioi"], "--models ',' names nothing"),
        (["submit", "out", "--models", "gpt2", "--tasks", "mcqa"], "MIB pairs none of these models"),
        (["submit", "out", "--models", "tiny", "--tasks", "ioy"], "task='ioy' is unknown; did you mean 'ioi'"),
        (["submit", "out", "--models", "tiny", "--tasks", "arc_easy"], "no built-in prompts: give MIB's own"),
        (["submit", "out", "--models", "tiny", "--tasks", "ioi,mcqa", "--task-file", "x.csv"], "one name to --tasks"),
        (["submit", "out", "--models", "tiny", "--tasks", "ioi", "--method", "eapp"], "'eapp' is unknown"),
        (["check", "nothing"], "does not exist"),
        (["evaluate", "."], "holds no folders"),
    ],
)
def test_mib_refuses_before_it_loads_a_model(
    arguments: list[str], message: str, loaded: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("mib", *arguments)
    lines = [line for line in result.stderr.splitlines() if "MIB has no" not in line]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1
    assert message in lines[0]
    assert loaded == []


@pytest.mark.parametrize("name", ["submit", "export", "check", "evaluate"])
def test_help_of_mib(name: str) -> None:
    result = run("mib", name, "--help")
    assert result.exit_code == 0
    assert f"circuits mib {name}" in result.stdout


def test_what_cannot_be_opened_is_left_out(tmp_path: Path, saved: Path) -> None:
    run("mib", "export", saved, tmp_path, "--model", "tiny", "--task", "ioi")
    (tmp_path / "ioi_gpt2").mkdir()
    (tmp_path / "ioi_gpt2" / "importances.pt").write_bytes(b"")
    result = run("mib", "evaluate", tmp_path, "-n", "4", "--json")
    assert [row["entry"] for row in json.loads(result.stdout)] == ["ioi_tiny"]
    assert "ioi_gpt2 is left out: .pt files are pickles" in result.stderr
    assert "holds nothing that can be evaluated" in run("mib", "evaluate", tmp_path / "ioi_gpt2").stderr
