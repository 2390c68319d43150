"""Two ranks of one thread against one rank of one thread: `eap-ig` of 64 IOI prompts on SmolLM2-135M.

`python -m benchmarks ranks [REPEATS]` starts each with torchrun, in turn: a drift of the machine's speed cancels.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from attribution import attribute
from interp import load_model, ranks, tasks

AIM, REPEATS = 1.8, 3


def measure() -> None:
    """In each rank: load, score once for all that is done once, and time the second scoring; the first rank prints."""
    ranks.join()
    model = load_model("smollm2-135m")
    task = tasks.ioi(n=64, model=model)
    attribute(model, task.select(range(4)), "eap-ig", quiet=True)
    ranks.agree("places", "all are here")
    started, processor = time.perf_counter(), time.process_time()
    attribute(model, task, "eap-ig", quiet=True)
    taken = time.perf_counter() - started, max(ranks.gathered(time.process_time() - processor))
    if ranks.first():
        print(*taken, flush=True)
    ranks.leave()


def seconds(count: int) -> tuple[float, float]:
    """Of so many ranks of one thread: by the clock, and of the processor that worked longest."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--master-port=0"]
    done = subprocess.run(
        [*command, "-m", "benchmarks.ranks", "--measure"],
        check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    clock, processor = done.stdout.split()[-2:]
    return float(clock), float(processor)


def main(arguments: list[str] | None = None) -> None:
    """Print both, and how much faster two are."""
    repeats = int(arguments[0]) if arguments else REPEATS
    print(f"eap-ig, 64 IOI prompts, ranks of one thread; load of the machine {os.getloadavg()[0]:.1f}", flush=True)
    gains = []
    for _ in range(repeats):
        (one, own), (two, shared) = seconds(1), seconds(2)
        gains.append(one / two)
        print(
            f"one rank {one:6.1f} s (processor {own:.1f} s), two ranks {two:6.1f} s (the slower processor "
            f"{shared:.1f} s): {one / two:.2f} times as fast, {own / shared:.2f} by processor time",
            flush=True,
        )
    print(f"median {statistics.median(gains):.2f} (aim {AIM})")


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        measure()
    else:
        main(sys.argv[1:])
