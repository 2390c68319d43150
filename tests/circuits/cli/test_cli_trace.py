"""`circuits trace`, on a tiny model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from circuits import AttributionGraph
from circuits.cli import app
from interp.models import load_model
from tests.tiny import tiny_module, word_tokenizer


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_module("llama", torch.float32), tokenizer=word_tokenizer())
    monkeypatch.setattr("interp.models.load_model", lambda source, **settings: model)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["trace", "--model", "tiny", "a b c", *map(str, arguments)])


def test_a_prompt_is_traced_told_and_written(tmp_path: Any) -> None:
    paths = {option: tmp_path / name for option, name in (("-o", "a.json"), ("--save", "b.json"), ("--html", "c.html"))}
    done = run("--target", "b", "--top", 12, "--check", 4, *(part for pair in paths.items() for part in pair))
    assert done.exit_code == 0, done.output
    for told in ("Attribution graph", "Replacement", "Largest influence", "pearson", "Wrote the page"):
        assert told in done.stdout
    assert AttributionGraph.load(paths["--save"]).target_tokens == ["b"]
    assert json.loads(paths["-o"].read_text())["metadata"]["prompt_tokens"] == ["<bos>", "a", "b", "c"]
    page = paths["--html"].read_text(encoding="utf-8")
    assert 'id="circuit-data"' in page
    assert '"measured":{"points":' in page


def test_it_is_told_as_json() -> None:
    done = run("--target", "a|b", "--top", 12, "--leave-out", 0, "--json")
    found = json.loads(done.stdout)
    assert found["targets"] == ["a - b"]
    assert {"nodes", "edges", "replacement_score", "completeness_score"} <= found.keys()
    assert not [node for node in found["nodes"] if node["kind"] == "neuron" and node["position"] == 0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--target", "d e"), "target"), (("--top", "100000"), "top="), (("-o", "/no/such/folder/x.json"), "-o")],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], told: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_heads_are_traced_and_held_against_another_prompt(tmp_path: Any) -> None:
    asked = ("--units", "heads", "--top", 8, "--compare", "b b c", "--resume", tmp_path / "rows.safetensors")
    done = run("--target", "a|b", *asked)
    assert done.exit_code == 0, done.output
    for told in ("Against", "influence_change", "token@1"):
        assert told in done.stdout
    found = json.loads(run("--target", "a|b", *asked, "--json").stdout)
    assert {node["kind"] for node in found["nodes"]} >= {"token", "logit"}
    assert {"both"} <= {node["shown"] for node in found["compare"]}
    assert (tmp_path / "rows.safetensors").exists()
    refused = run("--compare", "a")
    assert refused.exit_code == 2
    assert "equal lengths" in refused.stderr
    assert "is unknown" in run("--units", "experts").stderr
