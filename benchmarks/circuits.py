"""Time of running circuits over plain forward passes of the unmodified model on whole prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import metrics
from attribution import attribute
from benchmarks.common import HEADER, Plain, Row, golden_task, interleave, line, load


def rows(model: Any, plain: Plain) -> Iterator[Row]:
    """Circuits of some sizes, and a curve, beside plain forward passes."""
    task = golden_task()
    prompts = task.prompts(model).to(next(plain.module.parameters()).device)
    scores = attribute(model, task, "eap-ig", quiet=True)

    def forwards(count: int) -> None:
        for _ in range(count):
            plain.forward(prompts.clean)

    for share, aim in ((0.01, "<= 3"), (0.1, "<= 5"), (0.5, "<= 6")):
        mask = scores.mask(int(share * scores.graph.n_edges))
        ratio = interleave(lambda mask=mask: metrics.evaluate(model, task, mask, quiet=True), lambda: forwards(1))
        yield f"one circuit of {share:.0%} of the edges", ratio, aim
    ratio = interleave(lambda: metrics.faithfulness_curve(model, task, scores, quiet=True), lambda: forwards(10), 5)
    yield "ten-point curve / ten forwards", ratio, "<= 3"


def main() -> None:
    """Print the table."""
    print("Running circuits of SmolLM2-135M on 16 IOI prompts of 15 tokens")
    print(HEADER)
    for row in rows(*load()):
        line(*row)


if __name__ == "__main__":
    main()
