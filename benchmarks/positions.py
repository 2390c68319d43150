"""Scores by position over scores summed over positions: time, memory of what is found, and a circuit of either."""

from __future__ import annotations

import functools
import resource

import metrics
from attribution import attribute
from benchmarks.common import HEADER, golden_task, interleave, line, load
from interp.span_mask import SpanMask

SHARE = 0.05  # of all edges that the circuits hold


def main() -> None:
    """Print the table."""
    model, _ = load()
    task = golden_task()

    def score(method: str, positions: object = None) -> None:
        attribute(model, task, method, positions=positions, quiet=True)

    print("Scores of SmolLM2-135M by position, on 16 IOI prompts of 15 tokens, over the same scores summed")
    print(HEADER)
    before = _peak()
    for method in ("eap", "eap-ig", "relp"):
        summed = functools.partial(score, method)
        line(f"{method}, all positions", interleave(functools.partial(score, method, "all"), summed), "<= 1.3")
    line(
        "eap, two positions and the rest",
        interleave(functools.partial(score, "eap", [9, 14]), functools.partial(score, "eap")),
        "<= 1.3",
    )
    found = attribute(model, task, "eap", positions="all", quiet=True)
    plain = attribute(model, task, "eap", quiet=True).mask(int(SHARE * found.graph.n_edges), selection="connected")
    spread = SpanMask(plain.repeat(len(found.spans), 1, 1), found.spans)

    def run(mask: object) -> None:
        metrics.evaluate(model, task, mask, quiet=True)

    line(
        "a circuit, all positions", interleave(functools.partial(run, spread), functools.partial(run, plain)), "<= 1.5"
    )
    size = found.values.nelement() * found.values.element_size() / 2**20
    grown = _peak() - before
    print(f"\n{len(found.spans or ())} positions: scores of {size:.0f} MiB; peak memory grew by {grown:.0f} MiB")


def _peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
