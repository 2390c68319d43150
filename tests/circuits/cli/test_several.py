"""`torchrun --nproc-per-node=2 -m circuits`: the circuit of one process, told once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circuits import Circuit
from interp import tasks
from tests.interp.tasks.test_tasks_support import every_word
from tests.tiny import tiny_module

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 on disk, with a tokenizer that knows the words of a task."""
    texts = [
        text
        for example in tasks.ioi(n=300).examples
        for text in (str(example.clean), str(example.corrupted), str(example.correct[0]), str(example.incorrect[0]))
    ]
    tokenizer, made = every_word(*texts), tmp_path_factory.mktemp("model")
    tiny_module("gpt2", torch.float32, vocab_size=len(tokenizer)).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def command(*started_by: str, arguments: list[object]) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *started_by, "-m", "circuits", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=surroundings, capture_output=True, text=True)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.slow
def test_find_under_torchrun(folder: Path, tmp_path: Path) -> None:
    asked = ["find", "-m", folder, "--task", "ioi", "-n", 10, "--method", "eap", "--edges", 20, "--json"]
    alone = command(arguments=[*asked, "-o", tmp_path / "alone.json"])
    assert alone.returncode == 0, alone.stderr
    shared = command(*TORCHRUN, arguments=[*asked, "-o", tmp_path / "shared.json"])
    assert shared.returncode == 0, shared.stderr
    one, both = (json.loads(done.stdout) for done in (alone, shared))
    assert both["report"]["faithfulness"] == pytest.approx(one["report"]["faithfulness"], rel=1e-4)
    found, expected = (Circuit.load(tmp_path / f"{name}.json") for name in ("shared", "alone"))
    assert found.mask.equal(expected.mask)
    torch.testing.assert_close(found.scores.values, expected.scores.values)


@pytest.mark.slow
def test_too_few_prompts_for_the_ranks(folder: Path, tmp_path: Path) -> None:
    asked = ["find", "-m", folder, "--task", "ioi", "-n", 1, "--method", "eap", "-o", tmp_path / "x.json"]
    done = command(*TORCHRUN, arguments=asked)
    assert done.returncode != 0
    assert "has 1 prompts for 2 ranks; start at most one rank for each prompt" in done.stderr
