"""A third party's method, selection, rule, metric and task work wherever ours do, and no line of ours knows them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import attribution
import metrics
from circuits import compare_methods, find_circuit, stability
from circuits.cli import app
from interp.errors import InputError
from interp.selection import SELECTIONS, connected
from tests.docs.mine import Cautious, Magnitude, brackets, gentle, mean_rank_of_largest
from tests.tiny import behaving, shared, tiny_module, word_tokenizer

MINE = "tests.docs.mine"


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def task(model: Any) -> Any:
    return behaving(model, 12)


def test_a_method_and_a_selection_find_a_circuit(model: Any, task: Any) -> None:
    circuit = find_circuit(model, task, method=Magnitude(power=2.0), selection=Cautious(0.5), edges=60, quiet=True)
    scoring, _ = task.split(0.5, 0)
    plain = attribution.attribute(model, scoring, "eap", quiet=True)
    torch.testing.assert_close(circuit.scores.values, plain.values.sign() * plain.values**2)
    assert torch.equal(circuit.mask, connected(circuit.scores.values, plain.graph, 30))
    assert circuit.scores.method == "magnitude"
    assert circuit.scores.settings["power"] == 2.0
    by_name = find_circuit(
        model, task, method=f"{MINE}:Magnitude", power=2.0, selection=f"{MINE}:Cautious", edges=27, quiet=True
    )
    assert by_name.n_edges == int(0.9 * 27)


def test_they_are_compared_and_resampled(model: Any, task: Any) -> None:
    table = compare_methods(
        model, task, [Magnitude(2.0), "eap"], selection=Cautious(), n_random=1, resamples=20, quiet=True
    ).to_frame()
    assert {"magnitude", "eap"} <= set(table["method"])
    found = stability(model, task, method=Magnitude(2.0), selection=Cautious(), edges=40, resamples=4, quiet=True)
    assert int(found.mask.sum()) == 36


def test_a_rule_acts(model: Any, task: Any) -> None:
    with_rule = attribution.attribute(model, task, "eap", rules=gentle, quiet=True)
    plain = attribution.attribute(model, task, "eap", quiet=True)
    assert with_rule.settings["rules"]["name"] == "gentle"
    assert not torch.allclose(with_rule.values, plain.values)
    circuit = find_circuit(model, task, method="eap", rules=gentle, edges=20, quiet=True)
    assert circuit.scores.settings["rules"]["name"] == "gentle"


def test_a_metric_judges_explanations() -> None:
    inputs = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))

    def predict(x: torch.Tensor) -> torch.Tensor:
        p = x.mean(1)
        return torch.stack((1 - p, p), 1)

    sharp, flat = np.eye(5)[np.arange(8) % 5] + 1e-3, np.ones((8, 5)) + np.arange(5) * 1e-3
    report = metrics.compare_explanations(
        predict, inputs, {"sharp": sharp, "flat": flat}, {"largest": mean_rank_of_largest}, n_random=1, quiet=True
    )
    values = report.to_frame().set_index("explainer")["value"]
    assert values["sharp"] > 0.9 > values["flat"]


def test_names_are_given_and_taken(model: Any, task: Any) -> None:
    attribution.METHODS.register("magnitude-of-a-test", Magnitude)
    SELECTIONS.register("cautious-of-a-test", Cautious)
    assert "magnitude-of-a-test" in attribution.methods()["method"].tolist()
    circuit = find_circuit(
        model, task, method="magnitude-of-a-test", selection="cautious-of-a-test", edges=20, quiet=True
    )
    assert circuit.n_edges == 18
    with pytest.raises(InputError, match="is taken"):
        attribution.METHODS.register("eap", Magnitude)
    with pytest.raises(InputError, match="cannot be imported"):
        find_circuit(model, task, method=f"{MINE}:Nothing", quiet=True)


def test_they_work_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MINE)  # as if nobody had imported them
    tiny_module("llama", torch.float32).save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    arguments = ["find", "--model", str(tmp_path / "model"), "--task", f"{MINE}:brackets", "-n", "8", "--edges", "30"]
    arguments += ["--method", f"{MINE}:Magnitude", "--selection", f"{MINE}:Cautious", "--set", "power=2.0"]
    arguments += ["-o", str(tmp_path / "found.json"), "--quiet"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert MINE in sys.modules
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["scores"]["method"] == "magnitude"
    assert len(found["edges"]) == 27
    assert brackets(4).name == "brackets"


def test_a_module_that_is_no_python_and_a_name_that_makes_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_python.py").write_text("def (")
    (tmp_path / "a_number.py").write_text("five = 5")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot be imported: invalid syntax"):
        SELECTIONS.maker("no_python:Mine")
    with pytest.raises(InputError, match="selection='a_number:five' is a int; name a Selection, or what makes one"):
        SELECTIONS.maker("a_number:five")


# ---- what is not well-behaved


class Scribbler(attribution.Method):
    name = "scribbler"

    def values(self, setting: Any) -> torch.Tensor:
        setting.prompts.clean.zero_()
        return torch.zeros(setting.graph.shape)


def test_a_method_that_writes_into_the_prompts_is_refused_and_undone(model: Any, task: Any) -> None:
    before = task.prompts(model).clean.clone()
    with pytest.raises(InputError, match=r"method='scribbler' wrote into setting.prompts, .*setting.prompts.copy\(\)"):
        attribution.attribute(model, task, Scribbler(), quiet=True)
    assert torch.equal(task.prompts(model).clean, before)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (lambda *a, **k: np.ones(8) + 1j, r"8 real values, one for each sample; got a complex ndarray of shape \[8\]"),
        (lambda *a, **k: torch.ones(8) + 1j, "got a complex Tensor"),
        (lambda *a, **k: np.ones((8, 2)), r"got a ndarray of shape \[8, 2\]"),
        (lambda *a, **k: metrics.PerSample(columns={"x": np.ones(3)}, better={"x": "higher"}), r"of shape \[3\]"),
        (
            lambda *a, **k: metrics.PerSample(columns={"x": np.ones(8) * 1j}, better={"x": "higher"}),
            "a complex ndarray",
        ),
    ],
)
def test_a_metric_that_returns_something_else_is_refused(own: Any, said: str) -> None:
    inputs = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=said):
        metrics.compare_explanations(
            lambda x: torch.stack((1 - x.mean(1), x.mean(1)), 1), inputs, {"x": inputs}, {"own": own}, quiet=True
        )
