"""What `circuits.plan` says that scoring takes, beside the measured peak of a process that does it (SmolLM2-135M)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from attribution import attribute
from benchmarks.memory import status
from circuits import plan
from interp import load_model, tasks

NAME, TASK, AIM = "smollm2-135m", "ioi", 0.25
CASES = (("eap", 16), ("eap", 64), ("relp", 16), ("eap-ig", 16))


def measure(method: str, n: int) -> float:
    """GB at the peak of this process while it scores (Linux); loading is over by then."""
    model = load_model(NAME)
    task = tasks.get(TASK, n=n, seed=0, model=model)
    attribute(model, task.select([0]), "eap", quiet=True)  # the check of the model
    Path("/proc/self/clear_refs").write_text("5")
    attribute(model, task, method, quiet=True)
    return status("VmHWM")


def main() -> None:
    """Print the table."""
    print(f"{'method':8s} {'prompts':>7s} {'planned':>10s} {'measured':>10s} {'off by':>8s}   aim {AIM:.0%}")
    for method, n in CASES:
        arguments = [sys.executable, "-m", "benchmarks.planned", json.dumps([method, n])]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        found = float(done.stdout.splitlines()[-1])
        # the plan counts this process's libraries as those of the one that scores
        said = plan(NAME, TASK, n=n, method=method).peak / 1e9
        print(f"{method:8s} {n:7d} {said:7.2f} GB {found:7.2f} GB {said / found - 1:+8.0%}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(*json.loads(sys.argv[1])))
    else:
        main()
