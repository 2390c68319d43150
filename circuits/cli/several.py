"""The command as one of several processes that `torchrun` started (`interp.ranks`): the first speaks for all."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def one_of_several() -> Iterator[None]:
    """Share the prompts of what is done inside, if there are others; all but the first are silent meanwhile.

    Where another rank dies `torchrun` sends SIGTERM, which here ends the block as an error does, so that what was
    begun of a file is removed.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    from interp import ranks  # loads torch

    before = signal.signal(signal.SIGTERM, _stop)
    try:
        ranks.join()
        with contextlib.ExitStack() as stack:
            if not ranks.first():
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield
    finally:
        ranks.leave()
        signal.signal(signal.SIGTERM, before)


def speaker() -> str:
    """What a sentence about an error begins with: which rank it comes from, where that is not the first."""
    own = os.environ.get("RANK", "0")
    return f"rank {own}: " if own != "0" else ""


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
