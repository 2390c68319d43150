"""Ranks: processes, as `torchrun` starts them, that share the prompts of all that is measured.

Every rank makes the same calls. Where prompts are run, each takes its share of them; what a share gives is summed over
the ranks, so that all end with the same numbers, bit by bit, and choose the same. The first rank writes files and bars.
Nothing is shared before `join`: torch.distributed may be in use for something else.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from interp._version import __version__
from interp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
N = TypeVar("N", int, float)

# a rank may be that much later than another at a sum: uneven shares, a slow machine
_PATIENCE = datetime.timedelta(hours=2)


@dataclass
class _Place:
    """Which rank this process is, of how many."""

    rank: int = 0
    count: int = 1


_place = _Place()


def started() -> bool:
    """Whether something such as `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def rank() -> int:
    """The number of this process; 0 for the first, and where there is only one."""
    return _place.rank


def count() -> int:
    """How many processes share the prompts; 1 unless they have joined."""
    return _place.count


def first() -> bool:
    """Whether this process writes files and bars."""
    return _place.rank == 0


def join() -> None:
    """Share the prompts of all further calls with the other processes that `torchrun` started; alone it does nothing.

    Initialises torch.distributed from the environment, unless that is done: gloo for what is on a CPU, nccl for what is
    on a GPU where every process of a machine has its own, which becomes its default. All ranks then have to make the
    same calls, in the same order. Raises `InputError` where ranks run different versions.
    """
    if not started() or _place.count > 1:
        return
    import torch  # here and below: files and bars, which ask for `first`, load nothing heavy

    local, here = (int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    own_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= here > 0
    if own_gpu:
        torch.cuda.set_device(local)
    with _others_alive():
        if not torch.distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if own_gpu else "gloo"
            torch.distributed.init_process_group(backend, timeout=_PATIENCE)
        _place.rank, _place.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        agree("versions of faithful-circuits, torch", f"{__version__}, {torch.__version__}")
    except InputError:
        leave()
        raise


def leave() -> None:
    """Share nothing any more: this process works for itself again, and torch.distributed is shut down."""
    if _place.count > 1:
        import torch

        _place.rank, _place.count = 0, 1
        torch.distributed.destroy_process_group()


def share(items: Sequence[T]) -> list[T]:
    """This rank's part: every `count()`-th, so that like ones are spread evenly. May be empty."""
    return list(items[_place.rank :: _place.count])


def for_all(advance: Callable[[N], None]) -> Callable[[N], None]:
    """Counts what this rank does for all of them: the first has the largest share."""
    return advance if _place.count == 1 else lambda n: advance(n * _place.count)


def add(*totals: Tensor) -> None:
    """Sum each tensor over the ranks, in place: all then hold the same bits."""
    if _place.count > 1:
        import torch

        with _others_alive():
            for total in totals:
                torch.distributed.all_reduce(total)


def total(part: Tensor | None) -> Tensor:
    """The sum over the ranks of what their shares gave; None is what an empty share gave."""
    if _place.count > 1:
        shapes = [one for one in gathered(None if part is None else (tuple(part.shape), part.dtype)) if one is not None]
        if part is None:
            import torch

            part = torch.zeros(shapes[0][0], dtype=shapes[0][1], device="cpu")
        add(part)
    assert part is not None
    return part


def same(values: Tensor) -> Tensor:
    """What the first rank holds, on all of them: for what each has computed whole, which rounding may tell apart."""
    if _place.count == 1:
        return values
    import torch

    with _others_alive():
        values = values.contiguous()
        torch.distributed.broadcast(values, 0)
    return values


def gathered(value: T) -> list[T]:
    """What each rank has, in their order."""
    if _place.count == 1:
        return [value]
    import torch

    values: list[Any] = [None] * _place.count
    with _others_alive():
        torch.distributed.all_gather_object(values, value)
    return values


def agree(what: str, value: object) -> None:
    """Raise `InputError`, on all ranks, unless `value` is the same on all of them."""
    values = gathered(value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise InputError(f"ranks have different {what}: rank 0 {values[0]}, rank {number} {other}")


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that works on this rank's share: what is wrong with it on one rank is raised on all of them.

    As it is on the rank that met it, as an `InputError` on the others.
    """
    if _place.count == 1:
        yield
        return
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    sentence = f"rank {_place.rank} failed: {failed!r}"
    told = gathered(None if failed is None else str(failed) if isinstance(failed, InputError) else sentence)
    if failed is not None:
        raise failed
    for one in told:
        if one is not None:
            raise InputError(one)


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    """Raise `InputError` where another rank went away while this one waited for it."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"rank {_place.rank} lost another rank, which ended or could not be reached, and stops too; no file was "
            f"left half-written ({str(error).strip().splitlines()[0]})"
        ) from error
