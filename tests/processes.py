"""Other processes for tests: forks, since a fresh interpreter takes seconds to import torch."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import IO

import torch


def fork(work: Callable[[], object], stdout: IO[str] | None = None) -> int:
    """Do `work` in a copy of this process and end there: 0, or 1 after an error. Returns the process's id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about those threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)  # the others were not copied
        if stdout is not None:
            os.dup2(stdout.fileno(), 1)
            sys.stdout = os.fdopen(1, "w", closefd=False)
        work()
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Its exit status once it has ended; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
