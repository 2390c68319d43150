"""Rows of an attribution graph over their floor, and a whole trace: SmolLM2-135M, a prompt of 15 tokens, 500 neurons.

The floor is the arithmetic of the frozen, attention-only backward pass of every row through the layers below it, at the
speed of matrix products of the model's width that are timed in between, pair by pair.
"""

from __future__ import annotations

import time

import torch

from attribution.tracing.effects import Tracer
from attribution.tracing.held import Held, hold
from attribution.tracing.logits import Explained, logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.totals import largest
from attribution.tracing.units import Targets, reads_of
from benchmarks.common import HEADER, golden_task, interleave, line
from circuits import trace
from circuits.tracing.cost import row_operations
from interp import load_model
from interp.inspection import anatomy_of

NODES = 500


def passes(held: Held, targets: Targets) -> int:
    """Attention layers that the gradients of all targets pass: a target behind a layer's attention passes that, too."""
    return sum(min(layer + 1, held.n_layers) for layer in targets.layers.tolist())


def main() -> None:
    """Print the table."""
    model = load_model("smollm2-135m")
    tokens = golden_task().prompts(model).clean[0]
    held = hold(anatomy_of(model), tokens)
    units, likely = Neurons(held), Explained.likely(held)
    logits, _ = logit_targets(held, likely.sides, centred=False)
    chosen = largest(held, units, logits, likely.weights, NODES, ()).places
    targets = Targets.joined([reads_of(units, chosen), logits])
    tracer, wide = Tracer(held, units, chosen), Tracer(held, units, chosen, batch_size=len(targets))
    operations = row_operations(held) * passes(held, targets)
    width = held.anatomy.d_model
    a, b = torch.randn(held.n_positions * 64, width), torch.randn(width, width)
    repeats = round(operations / (2 * a.numel() * width))

    def floor() -> None:
        for _ in range(repeats):
            a @ b

    print(f"Attribution graph: {held.n_positions} tokens, {len(targets)} rows, {passes(held, targets):,} attentions")
    print(HEADER)
    line("adjacency", interleave(lambda: tracer.effects(targets), floor, 5), "3")
    line("adjacency, all rows at once", interleave(lambda: wide.effects(targets), floor, 5), "")
    line("and sums over all neurons", interleave(lambda: tracer.effects(targets, magnitudes=True), floor, 5), "")
    started = time.perf_counter()
    graph = trace(model, tokens, top=NODES, quiet=True)
    print(f"a whole trace of {NODES} neurons: {time.perf_counter() - started:.1f} s; {graph.headline()}")


if __name__ == "__main__":
    main()
