"""The command `circuits`: what it prints and writes, its exit codes, and its sentences about bad input."""

from __future__ import annotations

import errno
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

import circuits.find
from attribution.edges.gradient import EAPIGActivations
from attribution.edges.named import METHODS
from circuits import Circuit
from circuits.cli import app, main, options
from circuits.cli.find import _check
from circuits.cli.inputs import parse_size
from circuits.cli.output import CommandError, as_json, interval
from circuits.node_circuit import NodeCircuit
from interp import tasks
from interp.models import load_model
from interp.selection import SELECTIONS
from interp.tasks import Task
from metrics import evaluate, faithfulness
from metrics.circuit.evaluate import measure
from tests.interp.tasks.test_tasks_support import every_word
from tests.tiny import tiny_module

ROOT = Path(__file__).parents[3]
COMMANDS = ("find", "evaluate", "curve", "compare", "trace", "tasks", "models", "methods")
# what every `find` here has in common: few prompts, a fixed size, a cheap method
QUICK = ["--model", "tiny", "-n", "8", "--method", "eap", "--random-circuits", "1"]


@pytest.fixture(scope="module")
def bridge() -> Any:
    """A tiny random GPT-2 with a tokenizer that knows the words of two tasks."""
    texts = [
        text
        for name in ("ioi", "capitals")
        for example in tasks.get(name, n=40 if name == "capitals" else 300).examples
        for text in (str(example.clean), str(example.corrupted), str(example.correct[0]), str(example.incorrect[0]))
    ]
    tokenizer = every_word(*texts)
    model = load_model(tiny_module("gpt2", torch.float32, vocab_size=len(tokenizer)), tokenizer=tokenizer)
    model.cfg.model_name = "tiny"
    return model


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, bridge: Any) -> list[tuple[str, Any, Any]]:
    """Makes `load_model("tiny")` give the tiny model; returns what was loaded."""
    calls: list[tuple[str, Any, Any]] = []

    def load(source: str, *, device: Any = None, dtype: Any = None) -> Any:
        calls.append((source, device, dtype))
        return bridge if source == "tiny" else load_model(source, device=device, dtype=dtype)

    monkeypatch.setattr("interp.models.load_model", load)
    return calls


@pytest.fixture(scope="module")
def saved(bridge: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circuit on disk, found on half of 8 prompts of seed 0."""
    task = tasks.ioi(n=8, seed=0, model=bridge)
    circuit = circuits.find.find_circuit(bridge, task, method="eap", edges=60, quiet=True)
    return circuit.save(tmp_path_factory.mktemp("saved") / "ioi.json")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def refused(result: Result) -> str:
    """The one sentence of an error about the input."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("circuits: loading")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("circuits: error: ")
    return lines[0].removeprefix("circuits: error: ")


# help and start


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"  circuits {name}" in result.stdout
    assert "--json" in result.stdout
    assert "-o, --output" in result.stdout
    assert result.stderr == ""


def test_help_lists_the_commands() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)
    assert run("-h").stdout == result.stdout


@pytest.mark.parametrize("command", [("find", "-m", "gpt2"), ("evaluate", "x.json"), ("curve", "x.json")])
@pytest.mark.parametrize("seed", ["-1", str(2**64)])
def test_a_seed_that_is_none_is_refused_before_a_model_is_loaded(command: tuple[str, ...], seed: str) -> None:
    result = run(*command, "--seed", seed)
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.stderr


def test_nothing_heavy_is_imported_to_show_help() -> None:
    # the package's own __init__ is left out: what it imports is its affair
    code = (
        "import sys, types; package = types.ModuleType('circuits'); package.__path__ = ['circuits'];"
        "sys.modules['circuits'] = package; from circuits.cli import main;"
        "sys.argv = ['circuits', 'find', '--help'];\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'pandas', 'numpy', 'scipy', 'transformers', 'plotly', 'interp'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "circuits find --model smollm2-135m" in done.stdout


def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["circuits", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("circuits", run_name="__main__")  # what `python -m circuits` does
    assert not end.value.code
    assert capsys.readouterr().out.startswith("faithful-circuits ")


def test_as_a_console_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["circuits", "tasks", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)[0]["name"] == "ioi"


def test_bad_usage() -> None:
    for arguments in (["find", "--nope"], ["nope"], ["find", "--task", "ioi"], ["find", "-m", "tiny", "-n", "0"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
    assert "--model" in run("find", "--task", "ioi").stderr


# tables


@pytest.mark.parametrize(
    ("name", "known", "column"),
    [("tasks", "greater_than", "name"), ("models", "smollm2-135m", "name"), ("methods", "eap-ig", "method")],
)
def test_tables(name: str, known: str, column: str, tmp_path: Path) -> None:
    result = run(name)
    assert result.exit_code == 0
    assert known in result.stdout
    assert result.stderr == ""
    records = json.loads(run(name, "--json").stdout)
    assert known in [record[column] for record in records]
    written = run(name, "-o", tmp_path / "table.csv")
    assert "Wrote" in written.stdout
    frame = pd.read_csv(tmp_path / "table.csv")
    assert frame[column].tolist() == [record[column] for record in records]
    assert json.loads(run(name, "--json", "-o", tmp_path / "table.json").stdout) == records
    assert json.loads((tmp_path / "table.json").read_text()) == records


# find


def test_find_tells_and_writes(tmp_path: Path) -> None:
    output, html = tmp_path / "ioi.json", tmp_path / "ioi.html"
    result = run("find", *QUICK, "--task", "ioi", "-o", output, "--html", html)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(output)
    report = circuit.report
    for text in ("Circuit of ioi in tiny", "Faithfulness", "95 % interval", "4 held-out prompts", "Random circuits"):
        assert text in result.stdout.replace("\n", " ")
    assert f"{report.faithfulness:.3f}" in result.stdout
    assert f"{report.edges:,} edges" in result.stdout
    assert circuit.edges
    assert circuit.to_frame()["edge"][0] in result.stdout
    assert "chosen" in result.stdout
    assert f"Wrote the circuit to {output}" in result.stdout
    assert f"Wrote the picture to {html}" in result.stdout
    page = html.read_text()
    assert page.startswith("<!doctype html>")
    held = json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])
    assert "scoring prompts" in held["curveOf"]  # the sizes of the slider are measured
    assert held["curve"][0]["edges"] == 1
    assert held["curve"][-1]["edges"] >= held["quality"]["held"]["edges"]
    assert "8 prompts of ioi: " in result.stderr
    assert circuit.provenance["task"]["n"] == 8
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".safetensors"]


def test_of_many_prompts_some_say_whether_the_model_does_the_task(bridge: Any) -> None:
    task, said = tasks.get("ioi", n=70, seed=0, model=bridge), list[str]()
    check = _check(task, bridge, said.append)
    with pytest.warns(UserWarning, match="no behaviour to explain"):
        assert check == task.select(range(0, 70, 5)).check(bridge)
    assert said[0].startswith("14 of 70 prompts of ioi: ")


def test_find_as_json(bridge: Any, tmp_path: Path) -> None:
    settings = ["--edges", "10%", "--seed", "3", "--objective", "log-probability", "--ablation", "mean"]
    result = run("find", *QUICK, "--task", "ioi", *settings, "--json", "-o", tmp_path / "bare")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    task = tasks.ioi(n=8, seed=3, model=bridge).with_objective("log-probability")
    circuit = circuits.find.find_circuit(
        bridge, task, method="eap", edges=0.1, seed=3, ablation="mean", n_random=1, quiet=True
    )
    assert data["report"]["faithfulness"] == pytest.approx(circuit.report.faithfulness)
    assert data["report"]["edges"] == circuit.n_edges
    assert data["report"]["ablation"] == "mean"
    assert data["report"]["objective"] == "log-probability"
    assert data["task"] == task.to_dict()
    assert (data["model"], data["method"], data["seed"]) == ("tiny", "eap", 3)
    assert [one["edge"] for one in data["strongest_edges"]] == circuit.to_frame()["edge"].tolist()[:10]
    assert set(data["check"]) >= {"clean", "corrupted", "accuracy_clean", "ok"}
    assert data["files"] == {"circuit": str(tmp_path / "bare.json")}
    assert torch.equal(Circuit.load(tmp_path / "bare.json").mask, circuit.mask)


def dictionaries_in(folder: Path, width: int) -> Path:
    """The folder, with random dictionaries of two layers in it."""
    generator = torch.Generator().manual_seed(0)
    for layer in (0, 1):
        inside = folder / f"layers.{layer}"
        inside.mkdir(parents=True)
        (inside / "cfg.json").write_text(json.dumps({"activation": "topk", "k": 4, "d_in": width}))
        weights = {"encoder.weight": (9, width), "encoder.bias": (9,), "W_dec": (9, width), "b_dec": (width,)}
        drawn = {name: torch.randn(shape, generator=generator) for name, shape in weights.items()}
        safetensors.torch.save_file(drawn, inside / "sae.safetensors")
    return folder


def test_find_takes_a_folder_of_dictionaries(bridge: Any, tmp_path: Path) -> None:
    saes = dictionaries_in(tmp_path / "saes", bridge.cfg.d_model)
    asked = ["find", *QUICK, "--task", "ioi", "--level", "feature"]
    output = tmp_path / "features.json"
    told = ["--dictionaries", saes, "--errors", "nodes", "--nodes", "5", "-o", output]
    result = run(*asked, *told)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(output)
    assert (circuit.level, circuit.n_nodes, circuit.setting.errors) == ("feature", 5, "nodes")
    assert "5 features" in result.stdout.replace("\n", " ")
    assert "needs dictionaries=" in refused(run(*asked, "-q"))


def test_find_takes_nodes(bridge: Any, tmp_path: Path) -> None:
    output, page = tmp_path / "neurons.json", tmp_path / "neurons.html"
    told = ["--level", "neuron", "--nodes", "12", "-o", output, "--html", page]
    result = run("find", *QUICK, "--task", "ioi", *told)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(output)
    assert isinstance(circuit, NodeCircuit)
    assert circuit.n_nodes == 12
    assert all(name in page.read_text(encoding="utf-8") for name in circuit.nodes)
    for text in ("12 neurons", "Strongest nodes", circuit.nodes[0], "Without the circuit", "Random neurons"):
        assert text in result.stdout.replace("\n", " ")
    data = json.loads(run("find", *QUICK, "--task", "ioi", "--level", "head", "--json").stdout)
    assert data["report"]["level"] == "head"
    assert set(data["strongest_nodes"][0]) == {"node", "score"}
    assert "edges is for circuits of edges" in refused(
        run("find", *QUICK, "--task", "ioi", "--level", "neuron", "--edges", "12", "-q")
    )
    assert "--positions 'here'" in refused(
        run("find", *QUICK, "--task", "ioi", "--level", "neuron", "--positions", "here", "-q")
    )


def test_find_passes_every_option_on(monkeypatch: pytest.MonkeyPatch, loaded: list[Any], saved: Path) -> None:
    given: dict[str, Any] = {}

    def spy(model: Any, task: Task, **settings: Any) -> Circuit:
        given.update(settings, task=task)
        return Circuit.load(saved)

    monkeypatch.setattr(circuits.find, "find_circuit", spy)
    result = run(
        "find", "--model", "tiny", "--task", "ioi", "-n", 5, "--method", "eap-ig-activations", "--faithfulness", 0.7,
        "--rules", "relp", "--ablation", "zero", "--selection", "greedy", "--steps", 3, "--seed", 2,
        "--random-circuits", 4, "--stable", "--tests", "--kl", 0.2, "--lower-end", "--ladder", "--minimal",
        "--device", "cpu", "--dtype", "float32", "--batch-size", 2, "--no-checkpointed", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    task = given.pop("task")
    assert (task.name, len(task), task.seed) == ("ioi", 5, 2)
    assert given == {
        "method": EAPIGActivations(rules="relp", steps=3, checkpointed=False),
        "edges": None, "faithfulness": 0.7, "ablation": "zero", "selection": "greedy",
        "seed": 2, "n_random": 4, "batch_size": 2, "quiet": True, "stable": True, "tests": True,
        "kl": 0.2, "lower_end": True, "ladder": True, "minimal": True,
    }  # fmt: skip
    assert loaded == [("tiny", "cpu", "float32")]


def test_help_names_what_the_registries_have() -> None:
    assert list(options.METHODS) == [name for name in METHODS.names() if METHODS.make(name).level == "edge"]
    assert set(options.SELECTIONS) == set(SELECTIONS.names())
    told = "".join(run("find", "--help").stdout.split())  # names are broken at their hyphens
    assert ",".join(options.METHODS) in told
    assert ",".join(options.SELECTIONS) in told


def test_settings_by_set(tmp_path: Path) -> None:
    output = tmp_path / "set.json"
    given = ["--method", "eap-ig", "--set", "quadrature=right", "--set", "steps=2", "--selection", "top-n"]
    result = run("find", *QUICK[:-2], "--task", "ioi", "--edges", "50", *given, "--set", "absolute=false", "-o", output)
    assert result.exit_code == 0, result.output
    circuit = Circuit.load(output)
    assert circuit.scores.settings["quadrature"] == "right"
    assert circuit.scores.settings["steps"] == 2
    assert circuit.provenance["selection_settings"] == {"absolute": False, "pruned": True}
    assert run("curve", output, "--random-circuits", 0, "-q").exit_code == 0
    assert "--set 'steps' must be NAME=VALUE" in refused(run("find", *QUICK, "--task", "ioi", "--set", "steps"))
    assert "--set power: method 'eap' takes" in refused(run("find", *QUICK, "--task", "ioi", "--set", "power=2", "-q"))


def test_quiet_says_nothing_on_the_way() -> None:
    result = run("find", *QUICK, "--task", "ioi", "--edges", "50", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "Faithfulness" in result.stdout
    loud = run("find", *QUICK, "--task", "ioi", "--edges", "50")
    assert loud.stdout == result.stdout
    assert "nothing was saved" in loud.stderr


def test_what_libraries_print_stays_out_of_the_json(monkeypatch: pytest.MonkeyPatch, bridge: Any) -> None:
    def chatty(source: str, **settings: Any) -> Any:
        print("Loaded pretrained model")
        return bridge

    monkeypatch.setattr("interp.models.load_model", chatty)
    result = run("find", *QUICK, "--task", "ioi", "--edges", "50", "--json")
    json.loads(result.stdout)
    assert "Loaded pretrained model" in result.stderr


def test_a_model_without_the_behaviour_is_said(tmp_path: Path, bridge: Any) -> None:
    frame = tasks.ioi(n=8, model=bridge).to_frame()
    turned = frame.rename(columns={"correct": "incorrect", "incorrect": "correct"})
    noted = []
    for table in (frame, turned):  # a random model fails at least at one of them
        table.to_csv(tmp_path / "prompts.csv", index=False)
        result = run("find", *QUICK, "--task-file", tmp_path / "prompts.csv", "--edges", "50", "--json")
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        noted.append("no behaviour to explain" in result.stderr)
        assert noted[-1] == (not data["check"]["ok"])
        assert any("no behaviour" in note for note in data["report"]["notes"]) <= noted[-1]
    assert any(noted)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_prompts_from_a_file(suffix: str, tmp_path: Path, bridge: Any) -> None:
    path = tmp_path / f"mine{suffix}"
    frame = tasks.ioi(n=10, model=bridge).to_frame()
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        path.write_text(frame.to_json(orient="records"))
    result = run("find", *QUICK, "--task-file", path, "--edges", "50", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["task"]["name"], data["task"]["n"]) == ("mine", 8)
    assert data["task"]["sha256"] == Task.from_frame(frame).select(range(8)).to_dict()["sha256"]


# evaluate


def test_evaluate_on_fresh_prompts(saved: Path, bridge: Any, tmp_path: Path) -> None:
    result = run("evaluate", saved, "--json", "-o", tmp_path / "prompts.csv")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    task, circuit = tasks.ioi(n=8, seed=1, model=bridge), Circuit.load(saved)
    values = measure(bridge, task, circuit.mask[None])
    (expected,) = faithfulness(values, seed=1)
    # far out, the ends of the interval divide by next to nothing
    assert data["faithfulness"] == pytest.approx(expected.to_dict(), rel=5e-3)
    assert data["random_faithfulness"]["low"] <= data["random_faithfulness"]["high"]
    assert data["task"] == task.to_dict()
    assert (data["seed"], data["n"], data["model"], data["notes"]) == (1, 8, "tiny", [])
    assert data["edges"] == circuit.n_edges
    means = {"clean": values.clean, "empty": values.empty, "circuit": values.circuits[0]}
    expected_means = {name: float(one.mean()) for name, one in means.items()}
    assert data["mean_objective"] == pytest.approx(expected_means, rel=1e-4)
    frame = pd.read_csv(tmp_path / "prompts.csv")
    assert frame.columns.tolist() == [
        "clean", "corrupted", "correct", "incorrect", "spans", "model", "empty", "circuit",
    ]  # fmt: skip
    assert frame["clean"].tolist() == [example.clean for example in task.examples]
    assert frame["circuit"].tolist() == pytest.approx(values.circuits[0].tolist(), rel=1e-4)
    assert data["files"] == {"prompts": str(tmp_path / "prompts.csv")}


def test_evaluate_tells(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # the title holds the file's path, however long
    result = run("evaluate", saved, "-q", "--random-circuits", 0)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in ("8 prompts of ioi", "Faithfulness", "(95 % interval)", "empty circuit", "(ablation: patch)", "Seed"):
        assert part in text
    assert "Random" not in text
    assert "Warning" not in text
    assert result.stderr == ""


def test_evaluate_makes_the_tests(saved: Path, bridge: Any) -> None:
    data = json.loads(run("evaluate", saved, "--tests", "--json", "-q").stdout)
    battery = Circuit.load(saved).test(bridge, tasks.ioi(n=8, seed=1, model=bridge), seed=1, quiet=True)
    assert [row["p"] for row in data["tests"]["tests"]] == pytest.approx([one.p for one in battery.tests], rel=1e-3)
    assert len(data["tests"]["edges"]) == 40
    assert data["by_prompt"]["mean"] == pytest.approx(data["faithfulness"]["value"])
    assert [row["of"] for row in data["output"]] == ["circuit", "empty", "random"]
    text = " ".join(run("evaluate", saved, "--tests", "-q").stdout.split())
    for part in ("By prompt", "KL from the model", "Hypothesis tests", "sufficiency", "Only 8 prompts"):
        assert part in text
    assert "tests" not in json.loads(run("evaluate", saved, "--json", "-q").stdout)


def test_find_stable(tmp_path: Path) -> None:
    found = run("find", *QUICK, "--task", "ioi", "--edges", 60, "--stable", "-o", tmp_path / "s.json", "-q")
    assert found.exit_code == 0, found.output
    assert "of 20 resamples put" in " ".join(found.stdout.split())
    assert Circuit.load(tmp_path / "s.json").n_edges <= 60


def test_evaluate_with_other_settings(saved: Path, bridge: Any) -> None:
    settings = ["-n", 6, "--seed", 9, "--ablation", "zero", "--objective", "log-probability", "--model", "tiny"]
    data = json.loads(run("evaluate", saved, "--task", "ioi", *settings, "--json", "-q").stdout)
    task = tasks.ioi(n=6, seed=9, model=bridge)
    values = evaluate(bridge, task, Circuit.load(saved), ablation="zero", objective="log-probability")
    assert data["mean_objective"]["circuit"] == pytest.approx(float(values.mean()))
    assert (data["ablation"], data["objective"], data["n"], data["seed"]) == ("zero", "log-probability", 6, 9)


def test_evaluate_and_the_library_judge_a_circuit_under_its_own_setting(bridge: Any, tmp_path: Path) -> None:
    found = circuits.find.find_circuit(
        bridge, tasks.ioi(n=8, seed=3, model=bridge), method="eap", edges=40, ablation="zero",
        objective="log-probability", n_random=0, quiet=True,
    )  # fmt: skip
    path = found.save(tmp_path / "zero.json")
    data = json.loads(run("evaluate", path, "--model", "tiny", "--tests", "--json", "-q").stdout)
    task, loaded = tasks.ioi(n=8, seed=4, model=bridge), Circuit.load(path)
    assert (data["ablation"], data["objective"]) == ("zero", "log-probability")
    assert data["mean_objective"]["circuit"] == pytest.approx(float(evaluate(bridge, task, loaded).mean()), rel=1e-4)
    made = loaded.test(bridge, task, seed=4, quiet=True)
    assert [row["p"] for row in data["tests"]["tests"]] == pytest.approx([one.p for one in made.tests], rel=1e-3)
    assert data["tests"]["settings"]["objective"] == "log-probability"
    other = ["-n", 4, "--objective", "kl"]
    told = json.loads(run("evaluate", path, "--model", "tiny", *other, "--tests", "--json", "-q").stdout)
    assert (told["objective"], told["tests"]["settings"]["objective"]) == ("kl", "kl")


def test_a_circuit_of_an_objective_of_ones_own_needs_one_by_name(bridge: Any, tmp_path: Path) -> None:
    def mine(logits: Any, prompts: Any, clean: Any) -> Any:
        return logits[:, 0]

    task = tasks.ioi(n=8, seed=3, model=bridge)
    found = circuits.find.find_circuit(bridge, task, method="eap", edges=40, objective=mine, n_random=0, quiet=True)
    path = found.save(tmp_path / "mine.json")
    assert "under the objective 'mine', a function" in refused(run("evaluate", path, "--model", "tiny"))
    assert run("evaluate", path, "--model", "tiny", "--objective", "kl", "-q").exit_code == 0


def test_evaluate_on_the_prompts_that_chose_the_circuit(saved: Path) -> None:
    result = run("evaluate", saved, "--seed", 0, "--json", "-q")
    (note,) = json.loads(result.stdout)["notes"]
    assert note.startswith("4 of the 8 prompts chose the circuit")
    assert "4 of the 8 prompts chose the circuit" in " ".join(run("evaluate", saved, "--seed", 0).stdout.split())


def test_evaluate_keeps_the_tasks_parameters(bridge: Any, tmp_path: Path) -> None:
    task = tasks.ioi(n=8, model=bridge, corruption="third-name")
    found = circuits.find.find_circuit(bridge, task, method="eap", edges=60, quiet=True)
    data = json.loads(run("evaluate", found.save(tmp_path / "c.json"), "--json", "-q").stdout)
    assert data["task"] == tasks.ioi(n=8, seed=1, model=bridge, corruption="third-name").to_dict()


def test_evaluate_prompts_from_a_file(bridge: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    tasks.ioi(n=8, model=bridge).to_frame().to_csv(path, index=False)
    found = run("find", *QUICK, "--task-file", path, "--edges", "50", "-o", tmp_path / "mine.json", "-q")
    assert found.exit_code == 0, found.output
    assert "not built in: give --task-file" in refused(run("evaluate", tmp_path / "mine.json"))
    data = json.loads(run("evaluate", tmp_path / "mine.json", "--task-file", path, "--json", "-q").stdout)
    assert data["notes"][0].startswith("4 of the 8 prompts chose the circuit")
    tasks.ioi(n=8, seed=5, model=bridge).to_frame().to_csv(path, index=False)
    data = json.loads(run("evaluate", tmp_path / "mine.json", "--task-file", path, "--json", "-q").stdout)
    assert data["notes"] == []


def test_evaluate_on_another_task(saved: Path) -> None:
    data = json.loads(run("evaluate", saved, "--task", "capitals", "-n", 4, "--json", "-q").stdout)
    assert (data["task"]["name"], data["notes"]) == ("capitals", [])


# curve


def test_curve(saved: Path, tmp_path: Path) -> None:
    output, html = tmp_path / "curve.csv", tmp_path / "curve.html"
    result = run("curve", saved, "--random-circuits", 1, "-o", output, "--html", html, "-q")
    assert result.exit_code == 0, result.output
    for part in ("CPR", "CMD", "random circuits", "100.0%", f"Wrote the curve to {output}"):
        assert part in result.stdout.replace("\n", "")
    frame = pd.read_csv(output)
    assert len(frame) == 10
    assert frame["faithfulness"].iloc[-1] == pytest.approx(1, abs=1e-4)
    assert 'id="chart-0"' in html.read_text()
    data = json.loads(run("curve", saved, "--random-circuits", 1, "--json", "-q").stdout)
    assert [row["edges"] for row in data["sizes"]] == frame["edges"].tolist()
    assert [row["faithfulness"] for row in data["sizes"]] == pytest.approx(frame["faithfulness"].tolist(), abs=1e-5)
    assert data["cmd"]["low"] <= data["cmd"]["high"]
    assert {"cpr", "log_cpr", "log_cmd"} <= set(data)


# bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "iio"], "task='iio' is unknown; did you mean 'ioi'"),
        (["--task", "ioi", "--method", "eap_ig"], "method='eap_ig' is unknown; did you mean 'eap-ig'"),
        (["--task", "ioi", "--method", "activation-patching"], "scores nodes; here a method of edges is needed"),
        (["--task", "ioi", "--ablation", "zeros"], "ablation='zeros' is unknown; did you mean 'zero'"),
        (["--task", "ioi", "--ablation", "zero"], "method='eap-ig' follows a path between two prompts"),
        (["--task", "ioi", "--objective", "logit"], "objective='logit' is unknown"),
        (["--task", "ioi", "--selection", "topn"], "selection='topn' is unknown; did you mean 'top-n'"),
        (["--task", "ioi", "--edges", "many"], "--edges 'many' must be a number of edges such as 200"),
        (["--task", "ioi", "--edges", "150%"], "--edges '150%' must be"),
        (["--task", "ioi", "--task-file", "mine.csv"], "give the task: either --task"),
        ([], "give the task: either --task"),
        (["--task-file", "nowhere.csv"], "there is no such file"),
        (["--task-file", "prompts.txt"], "must be a .csv or .json file"),
        (["--task", "ioi", "-o", "nowhere/ioi.json"], "does not exist; make it first"),
        (["--task", "ioi", "--html", "nowhere/ioi.html"], "does not exist; make it first"),
        (["--task", "ioi", "-o", "same.html", "--html", "same.html"], "are two files"),
        (["--task", "ioi", "-o", "."], "is a folder; give the name of a file in it"),
        (["--task", "ioi", "-o", "/dev/null"], "-o='/dev/null' is no plain file; a circuit is two files side by side"),
    ],
)
def test_find_refuses_before_a_model_is_loaded(
    arguments: list[str],
    message: str,
    loaded: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(run("find", "--model", "tiny", *arguments))
    assert loaded == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[Any]) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and may(path, mode))
    message = refused(run("find", *QUICK, "--task", "ioi", "-o", tmp_path / "ioi.json"))
    assert f"the folder '{tmp_path}' is read-only; name another" in message
    assert loaded == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "smollm-135m", "--task", "ioi"], "model='smollm-135m' is unknown; did you mean 'smollm2-135m'"),
        (["--model", "./nowhere.gguf", "--task", "ioi"], "source='./nowhere.gguf' does not exist"),
        (["--model", "tiny", "--task", "ioi", "-n", "3"], "find_circuit needs at least 4"),
        (["--model", "tiny", "--task", "ioi", "--objective", "accuracy"], "has no gradient"),
        (["--model", "tiny", "--task", "ioi", "--edges", "9", "--faithfulness", "0.5"], "two ways to choose a size"),
        (["--model", "tiny", "--task", "ioi", "--edges", "999999"], "out of range"),
        (["--model", "tiny", "--task", "agreement"], "could be made for this tokenizer; dropped: "),
    ],
)
def test_find_refuses(arguments: list[str], message: str) -> None:
    assert message in refused(run("find", *arguments, "-q"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("When Mary and John", "When Mary and John", " Mary", " John"), "corrupted version equal to the clean one"),
        (("When Mary and John", "When John and John", " zyx", " John"), "is not in the tokenizer's vocabulary"),
    ],
)
def test_prompts_that_cannot_be_used(row: tuple[str, ...], message: str, tmp_path: Path, bridge: Any) -> None:
    path = tmp_path / "prompts.json"
    good = tasks.ioi(n=4, model=bridge).to_frame().to_dict("records")
    path.write_text(json.dumps([*good, dict(zip(("clean", "corrupted", "correct", "incorrect"), row, strict=True))]))
    sentence = refused(run("find", "-m", "tiny", "--task-file", path, "-q"))
    assert message in sentence
    assert "prompt 4" in sentence


def test_more_prompts_than_a_file_holds(tmp_path: Path, bridge: Any) -> None:
    path = tmp_path / "prompts.csv"
    tasks.ioi(n=4, model=bridge).to_frame().to_csv(path, index=False)
    assert "-n 8 is more than the 4 prompts" in refused(run("find", *QUICK, "--task-file", path))
    path.write_text("clean,corrupted,correct,incorrect\n")
    assert "has no prompts" in refused(run("find", "-m", "tiny", "--task-file", path))


def test_circuit_files_that_cannot_be_read(tmp_path: Path, saved: Path, loaded: list[Any]) -> None:
    assert "does not exist" in refused(run("evaluate", tmp_path / "none.json"))
    damaged = tmp_path / "damaged.json"
    damaged.write_text(saved.read_text()[:-100])
    assert "is damaged" in refused(run("evaluate", damaged))
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(json.loads(saved.read_text()) | {"version": 99}))
    assert "upgrade faithful-circuits" in refused(run("evaluate", newer))
    alone = tmp_path / "alone.json"
    alone.write_text(saved.read_text())
    assert "must lie beside it" in refused(run("curve", alone))
    assert loaded == []


def test_evaluate_refuses(saved: Path, tmp_path: Path, loaded: list[Any]) -> None:
    assert "not both" in refused(run("evaluate", saved, "--task", "ioi", "--task-file", "x.csv"))
    assert "did you mean 'mean'" in refused(run("evaluate", saved, "--ablation", "means"))
    assert "did you mean 'ioi'" in refused(run("evaluate", saved, "--task", "ioii"))
    assert "does not exist; make it first" in refused(run("evaluate", saved, "-o", tmp_path / "no" / "x.csv"))
    assert "does not exist; make it first" in refused(run("curve", saved, "--html", tmp_path / "no" / "x.html"))
    assert "does not exist; make it first" in refused(run("models", "-o", tmp_path / "no" / "x.csv"))
    assert loaded == []


def test_a_circuit_of_another_model_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch, bridge: Any) -> None:
    other = load_model(
        tiny_module("gpt2", torch.float32, vocab_size=len(bridge.tokenizer), n_layer=2), tokenizer=bridge.tokenizer
    )
    monkeypatch.setattr("interp.models.load_model", lambda source, **settings: other)
    assert "does not fit model=" in refused(run("evaluate", saved, "--model", "other", "-q"))


# what goes wrong on the way


def fail(error: BaseException) -> Any:
    def failing(*arguments: Any, **settings: Any) -> Any:
        raise error

    return failing


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ioi.json").write_text("old")
    monkeypatch.setattr(
        "circuits.formats.native.write_text", fail(OSError(errno.ENOSPC, "No space left on device", "ioi"))
    )
    result = run("find", *QUICK, "--task", "ioi", "--edges", 50, "-o", tmp_path / "ioi.json", "-q")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "circuits: error: No space left on device: ioi\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ioi.json"]
    assert (tmp_path / "ioi.json").read_text() == "old"


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits.find, "find_circuit", fail(KeyboardInterrupt()))
    result = run("find", *QUICK, "--task", "ioi", "-o", tmp_path / "ioi.json", "-q")
    assert result.exit_code == 130
    assert result.stderr == "circuits: interrupted; no file was left half-written\n"
    assert list(tmp_path.iterdir()) == []


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("a bug"), ValueError("another")):
        monkeypatch.setattr(circuits.find, "find_circuit", fail(error))
        assert run("find", *QUICK, "--task", "ioi").exception is error


# small parts


def test_sizes_and_intervals() -> None:
    assert [parse_size("--edges", text) for text in (None, "200", "0.02", "2%", "1", "1.0", "100%")] == [
        None, 200, 0.02, 0.02, 1, 1.0, 1.0,
    ]  # fmt: skip
    assert isinstance(parse_size("--edges", "1"), int)
    assert isinstance(parse_size("--edges", "1.0"), float)
    assert interval(-1e-9, (-0.25, 1 / 3)) == "0.000 [-0.250, 0.333]"
    assert interval(float("nan")) == interval(None) == "unknown"
    for text in ("", "x", "-5", "-0.1", "1.5", "0.0", "nan", "inf", "5 %%"):
        with pytest.raises(CommandError, match="--edges"):
            parse_size("--edges", text)


def test_json_holds_no_nan() -> None:
    data = {"a": float("nan"), 1: [float("inf"), 2.5, (True, None)], "t": torch.tensor([1.0])}
    assert json.loads(as_json(data)) == {"a": None, "1": [None, 2.5, [True, None]], "t": [1.0]}


# the real thing


@pytest.mark.slow
@pytest.mark.real
def test_find_and_evaluate_a_real_circuit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Any, loaded: list[Any]
) -> None:
    monkeypatch.setattr("interp.models.load_model", lambda source, **settings: smollm2)
    output, html = tmp_path / "ioi.json", tmp_path / "ioi.html"
    settings = ["--steps", 2, "--random-circuits", 1, "--edges", "1%"]
    found = run(
        "find", "-m", "smollm2-135m", "-t", "ioi", "-n", 10, *settings, "-o", output, "--html", html, "--json"
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert data["check"]["ok"]
    assert data["model"] == "smollm2-135m"
    assert 0.6 < data["report"]["faithfulness"] < 1.3
    assert data["report"]["random_faithfulness"] < 0.2
    assert 800 < data["report"]["edges"] <= 1232
    assert "input->m0" in [edge["edge"] for edge in data["strongest_edges"]]
    assert html.stat().st_size > 1_000_000
    judged = run("evaluate", output, "-n", 8, "--random-circuits", 1, "--json", "-q")
    assert judged.exit_code == 0, judged.output
    again = json.loads(judged.stdout)
    assert (again["seed"], again["n"], again["notes"]) == (1, 8, [])
    assert again["faithfulness"]["value"] == pytest.approx(data["report"]["faithfulness"], abs=0.4)
    assert again["random_faithfulness"]["value"] < 0.2
