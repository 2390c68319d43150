"""Circuits found with backward rules: by method, by `rules=`, and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import circuits.find
from attribution import RuleSet, attribute, rule_set
from attribution.rules import Epsilon, HeldScale, Identity, pattern_held
from circuits import Circuit, find_circuit
from circuits.cli import app
from interp import tasks
from interp.errors import InputError
from interp.models import load_model
from tests.interp.tasks.test_tasks_support import every_word
from tests.tiny import tiny, tiny_module, tiny_task

METHODS = ("relp", "gim", "attnlrp", "cp-lrp")
# what each set holds for a dense model without a gate, as it is recorded
ON_GPT2 = {
    "relp": ["HeldScale()", "Identity()"],
    "gim": ["HeldScale()", "AttentionFactors(query=0.25, key=0.25, value=0.5, temperature=2.0)"],
    "attnlrp": ["HeldScale()", "Identity()", "AttentionFactors(query=0.25, key=0.25, value=0.5, temperature=None)"],
    "cp-lrp": ["HeldScale()", "Identity()", "AttentionFactors(query=0.0, key=0.0, value=1.0, temperature=None)"],
}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return tiny_task(model, 12)


def find(model: Any, task: Any, **settings: Any) -> Circuit:
    return find_circuit(model, task, **{"edges": 40, "n_random": 1, "quiet": True, **settings})


# ---- find_circuit


@pytest.mark.parametrize("method", METHODS)
def test_a_circuit_is_found_by_a_method_with_rules(model: Any, task: Any, method: str) -> None:
    found = find(model, task, method=method, selection="top-n")
    scoring, _ = task.split(0.5, 0)
    scores = attribute(model, scoring, method, quiet=True)
    assert torch.equal(found.scores.values, scores.values)
    assert torch.equal(found.mask, scores.mask(40))
    plain = attribute(model, scoring, "eap", quiet=True)
    assert not torch.allclose(found.scores.values, plain.values, rtol=0.01)  # the rules do something
    assert found.scores.method == found.provenance["method"] == method
    assert found.report.faithfulness is not None
    assert found.report.n_held_out == 6


@pytest.mark.parametrize("method", ["relp", "attnlrp"])
def test_a_method_with_rules_is_eap_with_these_rules(model: Any, task: Any, method: str) -> None:
    by_method, by_rules = find(model, task, method=method), find(model, task, method="eap", rules=method)
    assert torch.equal(by_method.scores.values, by_rules.scores.values)
    assert torch.equal(by_method.mask, by_rules.mask)
    assert by_rules.scores.method == "eap"
    assert by_method.scores.settings["rules"] == by_rules.scores.settings["rules"] == rule_set(method, model).to_dict()


@pytest.mark.parametrize(
    "rules",
    ["relp-ah", rule_set("relp").plus(Epsilon(0.25), pattern_held(), name="mine"), RuleSet.of(HeldScale(), Identity())],
    ids=["name", "composed", "own"],
)
def test_rules_are_recorded_and_survive_the_disk(model: Any, task: Any, rules: Any, tmp_path: Path) -> None:
    found = find(model, task, method="eap-ig", rules=rules, steps=2)
    scoring, _ = task.split(0.5, 0)
    expected = attribute(model, scoring, "eap-ig", rules=rules, steps=2, quiet=True)
    assert torch.equal(found.scores.values, expected.values)
    recorded = rule_set(rules, model).to_dict()
    assert recorded["rules"]  # as they stand in the file
    again = Circuit.load(found.save(tmp_path / "circuit.json"))
    document = json.loads((tmp_path / "circuit.json").read_text())
    assert document["provenance"]["settings"]["rules"] == recorded
    for circuit in (found, again):
        assert circuit.scores.settings["rules"] == recorded
        assert circuit.provenance["settings"]["rules"] == recorded
        assert circuit.scores.settings["steps"] == 2
        assert (circuit.scores.method, circuit.provenance["method"]) == ("eap-ig", "eap-ig")
    assert torch.equal(again.mask, found.mask)
    assert torch.equal(again.scores.values, found.scores.values)
    assert again.report == found.report


def test_settings_of_rules_are_in_the_record(model: Any, task: Any) -> None:
    found = find(model, task, method="eap", rules=rule_set("relp").plus(Epsilon(0.25), name="mine"))
    record = found.scores.settings["rules"]
    assert record == {"name": "mine", "rules": ["HeldScale()", "Identity()", "Half()", "Epsilon(epsilon=0.25)"]}


def test_without_rules_none_are_recorded(model: Any, task: Any) -> None:
    assert "rules" not in find(model, task, method="eap").scores.settings
    plain = find(model, task, method="eap", rules="gradient")
    assert "rules" not in plain.scores.settings
    assert torch.equal(plain.scores.values, find(model, task, method="eap").scores.values)


def test_a_size_ladder_with_rules(model: Any, task: Any) -> None:
    found = find(model, task, method="relp", edges=None, faithfulness=0.5, ladder=True)
    sizes = [rung["edges"] for rung in found.report.ladder]
    assert len(sizes) == 10
    assert sizes == sorted(sizes)
    assert sizes[-1] == found.graph.n_edges
    assert found.report.ladder[-1]["faithfulness"] == pytest.approx(1)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_rules_under_other_ablations(model: Any, task: Any, ablation: str) -> None:
    found = find(model, task, method="relp", ablation=ablation)
    scoring, _ = task.split(0.5, 0)
    assert torch.equal(found.scores.values, attribute(model, scoring, "relp", ablation=ablation, quiet=True).values)
    assert found.report.ablation == ablation


@pytest.mark.parametrize("name", ["gptj", "opt", "mixtral"])
def test_kernels_take_every_rule_on_every_architecture(name: str) -> None:
    # also the softmax's temperature, which hooks cannot reach on GPT-J and OPT
    other = tiny(name)
    for method in METHODS:
        found = find(other, tiny_task(other, 4), method=method, n_random=0)
        assert 0 < found.n_edges <= 40
        assert ("HeldRouting()" in found.scores.settings["rules"]["rules"]) == (name == "mixtral")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": "rlp"}, "rules='rlp' is unknown; did you mean 'relp'"),
        ({"rules": "eap"}, "rules='eap' is unknown"),
        ({"rules": HeldScale()}, r"rules must be a name \(.*\) or a RuleSet; got HeldScale"),
        ({"rules": 5}, "or a RuleSet; got int"),
        ({"method": "relp", "rules": "gim"}, "rules is no setting of method='relp', which takes: level, checkpointed"),
        ({"method": "relp", "rules": "relp"}, "rules is no setting of method='relp'"),
        ({"method": "exact", "rules": "relp"}, "rules is no setting of method='exact', which takes"),
        ({"method": "relpp"}, "method='relpp' is unknown; did you mean 'relp'"),
        ({"method": "relp-ah"}, "method='relp-ah' is unknown; did you mean 'relp'"),
        ({"method": "relp", "objective": "kl"}, "has a gradient of zero at the clean run"),
        ({"rule": "relp"}, "'rule' is unknown; did you mean 'rules'"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(model: Any, task: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(model, task, **settings)


# ---- the command line

QUICK = ["--model", "tiny", "-n", "8", "--task", "ioi", "--random-circuits", "1", "--edges", "50"]


@pytest.fixture(scope="module")
def bridge() -> Any:
    """A tiny random GPT-2 with a tokenizer that knows the words of a task."""
    examples = tasks.get("ioi", n=300).examples
    texts = [str(text) for e in examples for text in (e.clean, e.corrupted, e.correct[0], e.incorrect[0])]
    tokenizer = every_word(*texts)
    model = load_model(tiny_module("gpt2", torch.float32, vocab_size=len(tokenizer)), tokenizer=tokenizer)
    model.cfg.model_name = "tiny"
    return model


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, bridge: Any) -> list[str]:
    """Makes `load_model("tiny")` give the tiny model; returns what was loaded."""
    calls: list[str] = []

    def load(source: str, **settings: Any) -> Any:
        calls.append(source)
        return bridge

    monkeypatch.setattr("interp.models.load_model", load)
    return calls


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize(
    ("arguments", "method", "rules"),
    [
        *((["--method", method], method, method) for method in METHODS),
        (["--method", "eap", "--rules", "relp"], "eap", "relp"),
        (["--rules", "attnlrp", "--steps", "2"], "eap-ig", "attnlrp"),
    ],
    ids=str,
)
def test_find_with_rules_writes_what_it_did(
    arguments: list[str], method: str, rules: str, loaded: list[str], bridge: Any, tmp_path: Path
) -> None:
    output = tmp_path / "ioi.json"
    result = run("find", *QUICK, *arguments, "-o", output, "--html", tmp_path / "ioi.html")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.replace("│", " ").split())
    for text in ("Circuit of ioi in tiny", "Faithfulness", "95 % interval", "4 held-out prompts", f"Found by {method}"):
        assert text in told
    circuit = Circuit.load(output)
    assert circuit.scores.method == method
    assert circuit.scores.settings["rules"] == {"name": rules, "rules": ON_GPT2[rules]}
    assert f"{circuit.report.faithfulness:.3f}" in told
    task = tasks.ioi(n=8, seed=0, model=bridge)
    settings: dict[str, Any] = {} if method in METHODS else {"rules": rules}
    settings |= {"steps": 2} if "--steps" in arguments else {}
    again = find(bridge, task, method=method, edges=50, **settings)
    assert torch.equal(again.mask, circuit.mask)
    assert (tmp_path / "ioi.html").stat().st_size > 1000


def test_find_says_by_which_rules_it_was_found(loaded: list[str]) -> None:
    # a circuit of eap-ig under rules is another one than of eap-ig: the report must not call both the same
    result = run("find", *QUICK, "--method", "eap", "--rules", "relp", "-q")
    (line,) = [line for line in result.stdout.splitlines() if "Found by" in line]
    assert "relp" in line


def test_find_as_json_names_method_and_rules(loaded: list[str]) -> None:
    result = run("find", *QUICK, "--method", "eap", "--rules", "cp-lrp", "--json", "-q")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["method"], data["settings"]["rules"]["name"]) == ("eap", "cp-lrp")
    assert data["settings"]["rules"]["rules"] == ON_GPT2["cp-lrp"]
    assert len(data["strongest_edges"]) == 10
    assert data["report"]["faithfulness"] is not None


def test_find_shows_a_ladder_with_rules(loaded: list[str]) -> None:
    result = run("find", *QUICK[:-2], "--method", "relp", "--faithfulness", "0.6", "--ladder", "-q")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert "Faithfulness by size, on the 4 prompts that chose it" in told
    assert "chosen" in told
    assert "100.00%" in told


def test_rules_are_passed_on_or_left_out(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, model: Any, task: Any
) -> None:
    given: list[dict[str, Any]] = []
    circuit = find(model, task, method="relp")

    def spy(model: Any, task: Any, **settings: Any) -> Circuit:
        given.append(settings)
        return circuit

    monkeypatch.setattr(circuits.find, "find_circuit", spy)
    for arguments in ([], ["--rules", "gim"]):
        assert run("find", *QUICK, *arguments, "-q").exit_code == 0
    assert [settings["method"].rules for settings in given] == [None, "gim"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "rlp"], "rules='rlp' is unknown; did you mean 'relp'"),
        (["--rules", ""], "rules='' is unknown"),
        (["--method", "relp", "--rules", "gim"], "rules is no setting of method='relp'"),
        (["--method", "exact", "--rules", "relp"], "rules is no setting of method='exact', which takes"),
        (["--method", "rlp"], "method='rlp' is unknown; did you mean 'relp'"),
    ],
    ids=str,
)
def test_bad_rules_are_refused_before_a_model_is_loaded(
    arguments: list[str], message: str, loaded: list[str], tmp_path: Path
) -> None:
    result = run("find", *QUICK, *arguments, "-o", tmp_path / "ioi.json")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("circuits: error: ")
    assert message in line
    assert loaded == []
    assert list(tmp_path.iterdir()) == []


def test_methods_and_help_tell_of_rules() -> None:
    records = {record["method"]: record for record in json.loads(run("methods", "--json").stdout)}
    assert {name: records[name]["rules"] for name in (*METHODS, "eap", "exact")} == {
        **{name: name for name in METHODS}, "eap": "gradient", "exact": "",
    }  # fmt: skip
    help_text = run("find", "--help").stdout
    assert "--rules" in help_text
    for name in METHODS:
        assert name in help_text


def test_a_circuit_found_with_rules_is_evaluated_and_drawn_like_any_other(loaded: list[str], tmp_path: Path) -> None:
    output = tmp_path / "ioi.json"
    assert run("find", *QUICK, "--method", "relp", "-o", output, "-q").exit_code == 0
    judged = run("evaluate", output, "--random-circuits", 1, "--json", "-q")
    assert judged.exit_code == 0, judged.output
    data = json.loads(judged.stdout)
    assert data["edges"] == Circuit.load(output).n_edges
    assert data["faithfulness"]["low"] <= data["faithfulness"]["high"]
    assert run("curve", output, "--random-circuits", 0, "-q").exit_code == 0
