"""How far half precision is from float32 on SmolLM2-135M: scores of `eap`, `eap-ig` and `relp`, and circuits.

Of scores: the largest error as a share of the largest score, Spearman's correlation over all edges, and how much of the
strongest 1 % is shared. Of circuits: the faithfulness of those that the scores choose, and of the same circuits in the
other precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

import metrics
from attribution import attribute
from benchmarks.common import golden_task
from interp import load_model
from interp.setting import Setting

METHODS = ("eap", "eap-ig", "relp")
SHARES = (0.001, 0.01, 0.1)  # of all edges, that circuits hold
TOP = 0.01


@dataclass(frozen=True)
class Error:
    """How far scores are from others of the same edges."""

    largest: float
    spearman: float
    overlap: float

    def __str__(self) -> str:
        return f"largest error {self.largest:.1e}, Spearman {self.spearman:.4f}, top 1% same {self.overlap:.1%}"

    @classmethod
    def of(cls, values: Tensor, exact: Tensor) -> Error:
        """Of flat scores against those in float32."""
        top = max(1, int(TOP * len(exact)))
        strongest = [set(one.abs().topk(top).indices.tolist()) for one in (values, exact)]
        return cls(
            float((values - exact).abs().max() / exact.abs().max()),
            float(spearmanr(values.numpy(), exact.numpy()).statistic),
            len(strongest[0] & strongest[1]) / top,
        )


def scores_of(model: Any) -> dict[str, Any]:
    """The scores of every method."""
    task = golden_task()
    return {method: attribute(model, task, method, quiet=True) for method in METHODS}


def faithfulness(model: Any, scores: Any) -> list[float]:
    """Of the circuits of some shares of the edges, the mean over the prompts."""
    masks = [scores.mask(int(share * scores.graph.n_edges)) for share in SHARES]
    values = Setting(model, golden_task()).measure(torch.stack(masks))
    return [one.value for one in metrics.faithfulness(values)]


def rows(dtype: str) -> Iterator[str]:
    """The table of one dtype, line by line."""
    exact_model, model = load_model("smollm2-135m"), load_model("smollm2-135m", dtype=dtype)
    exact, rounded = scores_of(exact_model), scores_of(model)
    for method in METHODS:
        real = exact[method].graph.edge_mask
        error = Error.of(*(one[method].values[real].float().cpu() for one in (rounded, exact)))
        yield f"{dtype:9s} {method:7s} {error.largest:13.4f} {error.spearman:9.4f} {error.overlap:12.1%}"
    own, others = faithfulness(exact_model, exact["eap"]), faithfulness(model, exact["eap"])
    chosen = faithfulness(exact_model, rounded["eap"])
    for share, *found in zip(SHARES, own, others, chosen, strict=True):
        yield (
            f"{dtype:9s} eap circuit of {share:.1%} of the edges: faithfulness {found[0]:.4f} in float32, "
            f"{found[1]:.4f} run in {dtype}, {found[2]:.4f} in float32 where {dtype} scores chose it"
        )


def main() -> None:
    """Print the table."""
    print("Half precision against float32: SmolLM2-135M, 16 IOI prompts, 123,211 edges")
    print(f"{'dtype':9s} {'method':7s} {'largest error':>13s} {'Spearman':>9s} {'top 1% same':>12s}")
    for dtype in ("bfloat16", "float16"):
        for row in rows(dtype):
            print(row, flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
