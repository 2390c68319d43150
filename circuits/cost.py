"""What a piece of work takes: seconds, and memory beyond what was held when it began."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


@dataclass
class Cost:
    """Seconds by the clock; peak memory in bytes beyond the start, NaN where it cannot be measured.

    `memory_kind` says what was measured: `gpu` is the peak of torch's allocator on the device; `process` the peak of
    the process's resident memory, which the kernel keeps (Linux).
    """

    seconds: float = math.nan
    memory: float = math.nan
    memory_kind: str = ""


@contextlib.contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Time the block and find its peak memory; the figures stand in the `Cost` when the block has ended.

    What earlier work has freed is handed back first (where the C library can), so that the order of measurements
    does not decide them.
    """
    cost, on_gpu = Cost(), device.type == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = float(torch.cuda.memory_allocated(device))
    else:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        before = _resident("VmRSS") if _forget_peak() else math.nan
    started = time.perf_counter()
    yield cost
    if on_gpu:
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - started
    peak = float(torch.cuda.max_memory_allocated(device)) if on_gpu else _resident("VmHWM")
    cost.memory = max(peak - before, 0.0) if math.isfinite(peak - before) else math.nan
    cost.memory_kind = "gpu" if on_gpu else "process" if math.isfinite(cost.memory) else ""


def _forget_peak() -> bool:
    """Let the kernel take the peak of resident memory anew; whether it could."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident() -> float:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    held = _resident("VmRSS")
    return held if math.isfinite(held) else 0.0


def _resident(field: str) -> float:
    """Bytes of a field of the process's status: `VmRSS` is resident memory now, `VmHWM` its peak."""
    try:
        rows = (PROCESS / "status").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(row.split()[1]) * 1024.0 for row in rows if row.startswith(field)), math.nan)
