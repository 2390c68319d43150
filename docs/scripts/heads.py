"""Prints the tables of docs/heads.md and writes docs/heads.png: why a head of SmolLM2 looks where it looks.

    python docs/scripts/heads.py

Takes about a minute on one core, and a Chromium for the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import draw

from attribution import attention_edges, attention_scores
from interp import load_model, tasks
from interp.tables import markdown_table
from metrics.statistics import bootstrap

DOCS = Path(__file__).parent.parent
PROMPT, TARGET = "When Mary and John went to the store, John gave a drink to", (" Mary", " John")
HEAD, WRITER = "a24.h4", "a23.h3"
PROMPTS, SEED = 16, 0


def main() -> None:
    """One prompt's tables and picture, what crosses positions, and a prediction held against the model."""
    model = load_model("smollm2-135m")
    for head in (WRITER, HEAD):
        scores = attention_scores(model, PROMPT, head, target=TARGET)
        print(repr(scores))
        for table in (scores.keys().nlargest(4, "pattern"), scores.top(6, by="effect"), scores.written(3)):
            print(markdown_table(table), "\n")
        if head == HEAD:
            draw(scores.figure(n=8), DOCS / "heads.png")
    task = tasks.ioi(n=PROMPTS, seed=SEED, model=model)
    print(markdown_table(attention_edges(model, task, quiet=True).top(6)), "\n")
    compared = np.array([without_writer(model, *row) for row in rows(task, model)])
    for name, estimate in zip(("predicted", "measured"), bootstrap(compared.T, lambda m: m, seed=SEED), strict=True):
        print(f"{name}: {estimate}")
    print(f"Pearson over {len(compared)} prompts: {np.corrcoef(compared.T)[0, 1]:.2f}")


def rows(task: Any, model: Any) -> list[tuple[torch.Tensor, int, int]]:
    """Of each prompt its ids, and where the name that is the answer and the last mention of the other one stand."""
    prompts = task.prompts(model)
    found = []
    for ids, length, right, wrong in zip(
        prompts.clean, prompts.lengths.tolist(), prompts.correct[:, 0], prompts.incorrect[:, 0], strict=True
    ):
        ids = ids[:length]
        found.append((ids, int((ids == right).nonzero()[-1]), int((ids == wrong).nonzero()[-1])))
    return found


def without_writer(model: Any, ids: torch.Tensor, right: int, wrong: int) -> tuple[float, float]:
    """What `WRITER` as a source of the query gives `HEAD`'s score at one name over the other; and what is really lost.

    Really: the head's output at the last position is set to zero, and the log of the two weights' ratio is read.
    """
    scores = attention_scores(model, ids, HEAD, keys=[right, wrong])
    by_query = scores.parts.sum(1)[scores.sources.index(WRITER)]
    layer, head = (int(part[1:]) for part in WRITER.split("."))
    d_head = model.cfg.d_head

    def silence(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z = z.clone()
        z.view(*z.shape[:2], -1)[:, -1, head * d_head : (head + 1) * d_head] = 0
        return z

    def ratio(hooks: list[Any]) -> float:
        kept: list[torch.Tensor] = []

        def keep(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
            kept.append(pattern)
            return pattern

        where, number = (int(part[1:]) for part in HEAD.split("."))
        with torch.no_grad():
            model.run_with_hooks(ids[None], fwd_hooks=[*hooks, (f"blocks.{where}.attn.hook_pattern", keep)])
        row = kept[0][0, number, -1]
        return float((row[right] / row[wrong]).log())

    return float(by_query[0] - by_query[1]), ratio([]) - ratio([(f"blocks.{layer}.attn.o.hook_in", silence)])


if __name__ == "__main__":
    main()
