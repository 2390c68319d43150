"""Sweeps: the grid's file, the table, what is kept, and a second start after a kill."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from circuits import find_circuit, sweep
from circuits.cli import app
from circuits.sweeping.planning import plan_sweep
from interp import load_model, tasks
from interp.errors import InputError
from interp.result import Result
from tests.interp.tasks.test_tasks_support import every_word
from tests.processes import ended, fork
from tests.tiny import tiny_module

FIND = {"edges": 20, "selection": "top-n", "n_random": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 on disk, with a tokenizer that knows the words of a task."""
    examples = tasks.ioi(n=300).examples
    tokenizer = every_word(*[str(w) for e in examples for w in (e.clean, e.corrupted, e.correct[0], e.incorrect[0])])
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_module("gpt2", torch.float32, vocab_size=len(tokenizer)).save_pretrained(path)  # type: ignore[operator]
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def grid(folder: Path) -> dict[str, Any]:
    methods = ["eap", {"method": "eap-ig", "steps": 2}]
    return {"models": str(folder), "tasks": "ioi", "methods": methods, "seeds": [0, 1], "n": 8, "find": FIND}


def test_a_row_is_what_find_circuit_reports(folder: Path, grid: dict[str, Any], tmp_path: Path) -> None:
    result = sweep(grid, quiet=True)
    frame = result.to_frame()
    assert frame["method"].tolist() == ["eap", "eap-ig, steps=2"] * 2
    assert frame["seed"].tolist() == [0, 0, 1, 1]
    model = load_model(folder)
    circuit = find_circuit(
        model, tasks.ioi(n=8, seed=1, model=model), method="eap-ig", steps=2, seed=1, quiet=True, **FIND
    )
    row, report = frame.iloc[3], circuit.report
    assert row["faithfulness"] == report.faithfulness
    assert (row["faithfulness_low"], row["faithfulness_high"]) == report.interval
    assert (row["random"], row["size"], row["n_held_out"]) == (report.random_faithfulness, report.edges, 4)
    kept = result.kept[(result.kept["method"] == "eap-ig, steps=2") & (result.kept["seed"] == 1)]
    assert dict(zip(kept["edge"], kept["score"], strict=True)) == circuit.edge_scores()
    assert result.over_seeds()["seeds"].tolist() == [2, 2]
    again = Result.load(result.save(tmp_path / "sweep.json"))
    pd.testing.assert_frame_equal(again.to_frame(), frame)
    assert "Over seeds" in result.to_html()


def test_a_killed_sweep_goes_on_with_what_is_missing(grid: dict[str, Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    child = fork(lambda: sweep(grid, store=store, quiet=True))
    until = time.monotonic() + 120
    while not list(store.glob("*.json")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    first = {path: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert 1 <= len(first) < 4
    planned = plan_sweep(grid, store=store)
    assert planned.to_frame()["done"].sum() == len(first)
    assert planned.to_frame()["backward"].tolist() == [1, 2, 1, 2]
    result = sweep(grid, store=store, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(store.glob("*.json"))) == 4
    whole = sweep(grid, quiet=True)
    pd.testing.assert_frame_equal(result.frame.drop(columns="seconds"), whole.frame.drop(columns="seconds"))


def test_a_circuit_that_fails_leaves_the_others(grid: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**grid, "models": [grid["models"], "./absent"], "methods": ["eap"], "seeds": 0}))
    asked = ["sweep", str(path), "-o", str(tmp_path / "table.csv"), "--html", str(tmp_path / "page.html"), "-q"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 1
    assert "eap on ioi in ./absent, seed 0, failed: InputError" in told.stderr
    assert "1 circuits of 1 models" in told.stdout
    assert pd.read_csv(tmp_path / "table.csv")["method"].tolist() == ["eap"]
    assert "failed: InputError" in (tmp_path / "page.html").read_text()


def test_a_dry_run_finds_nothing(grid: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(grid))
    told = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--store", str(tmp_path / "store")])
    assert told.exit_code == 0
    assert "4 circuits, 0 done, 4 to find" in told.stdout
    assert not (tmp_path / "store").exists()


def test_a_full_disk_says_so_and_leaves_what_was_kept(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {**grid, "methods": ["eap"], "seeds": [0]}
    sweep(one, store=tmp_path, quiet=True)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("interp.files.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*json"):
        sweep(grid, store=tmp_path, quiet=True)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(sweep(one, store=tmp_path, quiet=True).frame) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["eapp"]}, "did you mean 'eap'"),
        ({"tasks": ["ioii"]}, "did you mean 'ioi'"),
        ({"tasks": {"mine": {"n": 8, "file": "nothing.csv"}}}, "does not exist"),
        ({"seeds": [0, 0]}, "seeds names 0 twice"),
        ({"seeds": [-1]}, "seeds"),
        ({"models": []}, "models of a sweep names nothing"),
        ({"find": {"edgse": 3}}, "edgse"),
        ({"find": {"seed": 3}}, "seed"),
        ({"model": "x"}, "entry of grid"),
    ],
)
def test_bad_grids_are_refused_before_a_model_is_loaded(
    grid: dict[str, Any], change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuits.sweeping.cell.load_model", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(InputError, match=message):
        sweep({**grid, **change}, quiet=True)
