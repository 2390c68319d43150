"""Two and three real processes find what one finds, and say in a sentence what is wrong with one of them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import attribute
from circuits import Circuit, find_circuit
from interp import InputError, ranks
from metrics import evaluate, faithfulness_curve
from tests.processes import ended, fork
from tests.tiny import behaving, shared, tiny_task

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def on_ranks(count: int, work: Callable[[int], object]) -> list[int]:
    """Do `work(rank)` in so many processes that have joined; their exit statuses."""
    port = _free_port()

    def one(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        ranks.join()
        work(rank)
        ranks.leave()

    children = [fork(lambda rank=rank: one(rank)) for rank in range(count)]
    return [ended(child) for child in children]


def numbers_of(model: Any, task: Any) -> dict[str, torch.Tensor]:
    """What a rank and a single process have to agree on."""
    found = {m: attribute(model, task, m, quiet=True).values for m in ("eap", "eap-ig", "mask-ig", "exact", "cd-t")}
    found["mean"] = attribute(model, task, "eap", ablation="mean", quiet=True).values
    found["node"] = attribute(model, task, "attribution-patching", quiet=True).values
    circuit = find_circuit(model, task, method="eap", edges=12, n_random=1, quiet=True)
    found["mask"] = circuit.mask
    report = evaluate(model, task, circuit, quiet=True)
    found["faithfulness"] = torch.tensor([report.faithfulness.value])
    curve = faithfulness_curve(model, task, circuit.scores, fractions=(0.1, 0.5), quiet=True)
    found["curve"] = torch.tensor(curve.to_frame()["faithfulness"].to_numpy())
    return found


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_find_what_one_finds(count: int, tmp_path: Path) -> None:
    model = shared("gpt2")
    task = tiny_task(model, n=7, ragged=True)  # 7 prompts: shares are ragged too
    expected = numbers_of(model, task)

    def work(rank: int) -> None:
        torch.save(numbers_of(model, task), tmp_path / f"{rank}.pt")

    assert on_ranks(count, work) == [0] * count
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(count)]
    for name, values in expected.items():
        for one in found:
            torch.testing.assert_close(one[name], values, rtol=1e-9, atol=1e-12)
            assert one[name].equal(found[0][name]), name
