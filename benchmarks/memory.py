"""Peak memory of `eap`, each setting in a process of its own: flat in prompts; long prompts with checkpointing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from attribution import attribute
from benchmarks.common import random_task
from interp import load_model


def status(field: str) -> float:
    """A figure of this process from the kernel, in GB: VmRSS is resident memory now, VmHWM its peak."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1e6


def measure(n: int, length: int, checkpointed: bool | None) -> dict[str, float]:
    """Load the model, score once, and report the memory before and the peak of it (Linux)."""
    model = load_model("smollm2-135m")
    attribute(model, random_task(1, 4, 49152), "eap", quiet=True)  # warm-up: the check of the model, code paths
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before, started = status("VmRSS"), time.perf_counter()
    attribute(model, random_task(n, length, 49152), "eap", checkpointed=checkpointed, quiet=True)
    return {"before": before, "peak": status("VmHWM"), "seconds": time.perf_counter() - started}


def in_process(n: int, length: int, checkpointed: bool | None) -> dict[str, float]:
    """`measure` in a fresh process."""
    arguments = json.dumps([n, length, checkpointed])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", arguments], check=True, capture_output=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the table."""
    print("Peak memory of eap on SmolLM2-135M, random prompts, in processes of their own")
    print(f"{'prompts':>8s} {'tokens':>7s} {'checkpointed':>13s} {'loaded':>8s} {'peak':>8s} {'time':>8s}")
    settings: list[tuple[int, int, bool | None]] = [(16, 15, None), (64, 15, None), (256, 15, None)]
    settings += [(2, 1024, False), (2, 1024, True)]
    for n, length, checkpointed in settings:
        result = in_process(n, length, checkpointed)
        print(
            f"{n:8d} {length:7d} {'auto' if checkpointed is None else checkpointed!s:>13} "
            f"{result['before']:5.2f} GB {result['peak']:5.2f} GB {result['seconds']:6.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
    else:
        main()
