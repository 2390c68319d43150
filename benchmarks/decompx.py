"""Time and peak memory of DecompX over a plain forward pass of the same input, by length, each in a process of its own.

The floor is about one forward pass per source token; decoders do half of that, since tokens see only what is before
them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attribution import decompose
from benchmarks.memory import status
from interp import load_model
from interp.encoders import load_encoder

LENGTHS = (16, 64, 128, 256)
MODELS = ("minilm-l6", "smollm2-135m")


def load(name: str) -> tuple[Any, Callable[[torch.Tensor], Any]]:
    """The model, and its plain forward pass."""
    if name == "minilm-l6":
        model, _ = load_encoder(name, labels=2)
        return model, lambda ids: model(input_ids=ids)
    model = load_model(name)
    module = model.original_model
    return model, lambda ids: module(input_ids=ids, logits_to_keep=1, use_cache=False)


def seconds(call: Callable[[], Any], times: int) -> float:
    """The median of some runs, after one that does not count."""
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


@torch.no_grad()
def measure(name: str, length: int, matrices: bool) -> dict[str, float]:
    """Load the model, decompose random tokens, and report times and memory (Linux)."""
    model, forward = load(name)
    ids = torch.randint(1000, 20000, (1, length), generator=torch.Generator().manual_seed(0))
    plain = seconds(lambda: forward(ids), 9)
    decompose(model, ids[:, :8], matrices=matrices, quiet=True)  # warm-up
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    taken = seconds(lambda: decompose(model, ids, matrices=matrices, quiet=True), 3)
    return {"plain": plain, "seconds": taken, "memory": status("VmHWM") - before}


def in_process(*settings: Any) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.decompx", json.dumps(settings)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the table."""
    print("DecompX of one input of random tokens, over a plain forward pass of it")
    print(f"{'model':14s} tokens matrices {'ours':>9s} {'plain':>10s} {'ratio':>7s}  a token  peak")
    for name in MODELS:
        for length in LENGTHS:
            for matrices in (True, False):
                found = in_process(name, length, matrices)
                ratio = found["seconds"] / found["plain"]
                print(
                    f"{name:14s} {length:6d} {matrices!s:>8s} {found['seconds']:7.3f} s {found['plain']:8.4f} s "
                    f"{ratio:7.1f} {ratio / length:8.2f}  {found['memory'] * 1000:.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
    else:
        main()
