"""Two and three real processes find what one finds, and say in a sentence what is wrong with one of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import attribute
from circuits import find_circuit
from interp import InputError, ranks
from metrics import evaluate, faithfulness_curve
from tests.processes import ended, fork
from tests.tiny import shared, tiny_task

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def on_ranks(count: int, work: Callable[[int], object]) -> list[int]:
    """Do `work(rank)` in so many processes that have joined; their exit statuses."""

    def joined(rank: int) -> None:
        ranks.join()
        work(rank)
        ranks.leave()

    return started(count, joined)


def started(count: int, work: Callable[[int], object]) -> list[int]:
    """The same in processes that torchrun would have started, and that have not joined."""
    port = _free_port()

    def one(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        work(rank)

    children = [fork(lambda rank=rank: one(rank)) for rank in range(count)]
    return [ended(child) for child in children]


def numbers_of(model: Any, task: Any) -> dict[str, torch.Tensor]:
    """What a rank and a single process have to agree on."""
    found = {m: attribute(model, task, m, quiet=True).values for m in ("eap", "eap-ig", "mask-ig", "exact", "cd-t")}
    found["mean"] = attribute(model, task, "eap", ablation="mean", quiet=True).values
    found["node"] = attribute(model, task, "attribution-patching", quiet=True).values
    circuit = find_circuit(model, task, method="eap", edges=12, n_random=1, quiet=True)
    found["mask"] = circuit.mask
    found["evaluated"] = evaluate(model, task, circuit, quiet=True)
    found["curve"] = torch.tensor(faithfulness_curve(model, task, circuit.scores, quiet=True).faithfulness)
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


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_what_is_wrong_is_said_on_every_rank(tmp_path: Path) -> None:
    model = shared("gpt2")
    tasks = [tiny_task(model, n=4, seed=seed) for seed in range(2)]
    few = tasks[0].select(range(1))
    task = tasks[0]

    def fails(rank: int) -> None:
        with ranks.together():
            if rank == 1:
                raise InputError("prompt 3 is bad")

    def work(rank: int) -> None:
        said = [
            sentence(lambda: attribute(model, tasks[rank], "eap", quiet=True)),
            sentence(lambda: attribute(model, few, "eap", quiet=True)),
            sentence(lambda: attribute(model, task, "exact", resume=tmp_path / "resume", quiet=True)),
            sentence(lambda: fails(rank)),
        ]
        (tmp_path / f"{rank}.txt").write_text("\n".join(said))

    assert on_ranks(2, work) == [0, 0]
    said, other = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in range(2))
    assert said == other
    assert said[0].startswith("ranks have different tasks: rank 0 tiny, 4 prompts")
    assert said[1].startswith("task='tiny' has 1 prompts for 2 ranks")
    assert "keeps the work of one process" in said[2]
    assert said[3] == "prompt 3 is bad"


def test_ranks_of_two_versions_are_refused(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            ranks.__version__ = "0.0.1"  # type: ignore[attr-defined]
        (tmp_path / str(rank)).write_text(sentence(ranks.join))

    assert started(2, work) == [0, 0]
    said = {(tmp_path / str(rank)).read_text() for rank in range(2)}
    assert len(said) == 1
    assert said.pop().startswith("ranks have different versions of faithful-circuits, torch: rank 0 ")


def test_a_rank_that_dies_ends_all_and_leaves_files_whole(tmp_path: Path) -> None:
    model = shared("gpt2")
    task, path = tiny_task(model, n=4), tmp_path / "scores"
    path.write_text("old")

    def work(rank: int) -> None:
        if rank == 1:
            os._exit(9)
        said = sentence(lambda: attribute(model, task, "eap", quiet=True).save(path))
        (tmp_path / "said").write_text(said)

    assert on_ranks(2, work) == [0, 9]
    assert (tmp_path / "said").read_text().startswith("rank 0 lost another rank")
    assert path.read_text() == "old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["said", "scores"]


def test_the_first_rank_writes(tmp_path: Path) -> None:
    model = shared("gpt2")
    task = tiny_task(model, n=4)

    def work(rank: int) -> None:
        found = find_circuit(model, task, method="eap", edges=12, n_random=1, quiet=True)
        folder = tmp_path / str(rank)
        folder.mkdir()
        assert found.save(folder / "circuit.json") == folder / "circuit.json"
        found.scores.save(folder / "scores")

    assert on_ranks(2, work) == [0, 0]
    assert len(list((tmp_path / "0").iterdir())) == 3
    assert list((tmp_path / "1").iterdir()) == []


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks.join()
    assert (ranks.rank(), ranks.count(), ranks.first()) == (0, 1, True)
    assert ranks.share([3, 1, 2]) == [3, 1, 2]
    assert ranks.gathered("one") == ["one"]
