"""The tables of docs/trust.md: level and power of the tests in simulations, and all of them on SmolLM2's IOI circuit.

python docs/scripts/trust.py simulate    # a minute
python docs/scripts/trust.py circuit     # some six minutes on two cores
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from circuits import find_circuit, robustness, stability
from interp import load_model, tasks
from metrics import completeness, minimality
from metrics.circuit.battery_tests import minimality_frame
from metrics.circuit.nulls import equivalence_p_value, independence_p_value, quantile_p_value
from metrics.testing import Testing

RUNS, PROMPTS, RANDOM = 2000, 32, 60


def share(rejects: Callable[[int], bool], runs: int = RUNS) -> str:
    """Share of the runs that reject, with its standard error."""
    found = np.mean([rejects(i) for i in range(runs)])
    return f"{found:.3f} (se {math.sqrt(found * (1 - found) / runs):.3f})"


def simulate() -> None:
    """Rejections at 5 % where the null holds, and where it does not."""
    rng = np.random.default_rng(0)

    def coin(chance: float) -> Callable[[int], bool]:
        def rejects(_: int) -> bool:
            circuit = np.where(rng.random(PROMPTS) < chance, 1.0, -1.0) * rng.exponential(size=PROMPTS)
            return equivalence_p_value(np.zeros(PROMPTS), circuit)[0] <= 0.05

        return rejects

    def dependent(strength: float) -> Callable[[int], bool]:
        def rejects(i: int) -> bool:
            x, noise = rng.normal(size=(2, PROMPTS))
            y = strength * x + math.sqrt(1 - strength**2) * noise
            return independence_p_value(x, y, permutations=199, seed=i)[0] <= 0.05

        return rejects

    def beats(chance: float) -> Callable[[int], bool]:
        return lambda _: quantile_p_value(int(rng.binomial(RANDOM, chance)), RANDOM) <= 0.05

    def random_circuit(_: int) -> bool:
        distances = rng.gamma(2.0, size=RANDOM + 1)
        return quantile_p_value(int((distances[0] < distances[1:]).sum()), RANDOM) <= 0.05

    def edges(idle: int) -> Callable[[int], bool]:
        def rejects(_: int) -> bool:
            changes = np.concatenate((np.full(40 - idle, -math.log(0.1)), rng.exponential(size=idle)))
            return bool(minimality_frame(changes, rng.exponential(size=RANDOM), 0.9, Testing())["superfluous"].any())

        return rejects

    for name, what, rejects, runs in (
        ("equivalence", "null: above on half of the prompts", coin(0.5), RUNS),
        ("equivalence", "edge of the null: above on 60 %", coin(0.6), RUNS),
        ("equivalence", "above on 10 %", coin(0.1), RUNS),
        ("independence", "null: independent", dependent(0.0), RUNS // 2),
        ("independence", "correlation 0.6", dependent(0.6), RUNS // 2),
        ("sufficiency, necessity", "edge of the null: beats 90 % of random circuits", beats(0.9), RUNS),
        ("sufficiency, necessity", "the circuit is itself a random one", random_circuit, RUNS),
        ("sufficiency, necessity", "beats 99 %", beats(0.99), RUNS),
        ("minimality, any of 40 edges", "edge of the null: all beat 90 % of random edges", edges(0), RUNS // 10),
        ("minimality, any of 40 edges", "one edge is a random one", edges(1), RUNS // 10),
    ):
        print(f"| {name} | {what} | {share(rejects, runs)} |", flush=True)


def circuit() -> None:
    """Everything on the IOI circuit of SmolLM2-135M."""
    model = load_model("smollm2-135m")
    task = tasks.ioi(n=64, model=model)
    scoring, held_out = task.split(0.5, 0)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        print(f"## {name}: {time.perf_counter() - started:.0f} s\n{result}\n", flush=True)
        return result

    found = timed("find_circuit", lambda: find_circuit(model, task, selection="top-n", ladder=True, quiet=True))
    print(found.report, "\n")
    timed("circuit_tests", lambda: found.test(model, held_out, quiet=True))
    timed("completeness", lambda: completeness(model, held_out, found, sets=10, quiet=True))
    timed("minimality", lambda: minimality(model, held_out, found, level="node", sample=30, sets=2, quiet=True))
    timed("robustness", lambda: robustness(model, held_out, found, n_random=1, quiet=True))
    timed("stability", lambda: stability(model, scoring, edges=0.01, quiet=True))
    steady = timed("stable", lambda: find_circuit(model, task, selection="top-n", ladder=True, stable=True, quiet=True))
    print(steady.report)


if __name__ == "__main__":
    {"simulate": simulate, "circuit": circuit}[sys.argv[1]]()
