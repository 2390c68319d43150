"""Writes docs/selection.md and .png: what edges a circuit of a given size should hold, on the real SmolLM2-135M.

    python docs/scripts/selection_study.py measure ioi FOLDER    # for each task; goes on where it was stopped
    python docs/scripts/selection_study.py write FOLDER

Of 128 prompts of each task 32 score the edges and choose the circuits, and 64 others measure them. (The 32 that are
left were looked at while the selections were made.) Scores and measurements are kept in FOLDER.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from selection_page import TASKS, write_page
from torch import Tensor

from attribution import Scores, attribute
from interp import Run, Setting, load_model, tasks
from interp.files import atomic_path
from interp.graph import ComputationalGraph
from interp.selection import average, connected, consistent, ladder, program, prune, top_n
from metrics.circuit.balance import Balanced, circuit_at

PROMPTS, PARTS = 128, 4
METHODS = ("eap-ig", "relp", "clean-corrupted", "gim")
Masks = list[Tensor]


class Study:
    """One task: its prompts, its scores, and the circuits that each selection takes."""

    def __init__(self, model: Any, name: str, folder: Path) -> None:
        self.model, self.name, self.folder = model, name, folder
        self.graph = ComputationalGraph.of(model)
        self.sizes = ladder(self.graph)[:-1]  # the last is the whole model
        task = getattr(tasks, name)(n=PROMPTS, seed=0, model=model)
        self.scoring, rest = task.split(0.25, seed=0)
        _, final = rest.split(1 / 3, seed=0)
        self.chosen_on, self.final = (Setting(model, one, run=Run(quiet=True)) for one in (self.scoring, final))

    def parts(self, method: str) -> Tensor:
        """Scores of each quarter of the scoring prompts; they were made once."""
        found = []
        size = len(self.scoring) // PARTS
        for i in range(PARTS):
            path = self.folder / f"{self.name}-{method}-{i}.safetensors"
            if not path.exists():
                part = self.scoring.select(list(range(i * size, (i + 1) * size)))
                attribute(self.model, part, method, quiet=True).save(path)
            found.append(Scores.load(path).values)
        return torch.stack(found)

    def scores(self, method: str = "eap-ig") -> Tensor:
        return self.parts(method).mean(0)

    def each(self, rule: Callable[..., Tensor], scores: Tensor, **settings: Any) -> Masks:
        return [rule(scores, self.graph, n, **settings) for n in self.sizes]

    def balanced(self) -> Masks:
        return self.balanced_at(self.sizes, self.scores())

    def balanced_at(self, sizes: Sequence[int], scores: Tensor) -> Masks:
        helping = Balanced(nearest="mean").search(self.chosen_on, scores, sizes)
        print([(n, round(weight, 2)) for n, weight in zip(sizes, helping, strict=True)], flush=True)
        return [circuit_at(weight, self.graph, n, scores) for n, weight in zip(sizes, helping, strict=True)]

    def inside(self) -> Masks:
        """From 10 % down: scored again by gradients in the circuit before, then balanced."""
        start = self.sizes.index(max(n for n in self.sizes if n <= 0.11 * self.graph.n_edges))
        masks = self.balanced_at(self.sizes[start:], self.scores())
        for n in reversed(self.sizes[:start]):
            again = attribute(self.model, self.scoring, "eap", inside=masks[0], quiet=True).values
            masks = self.balanced_at([n], again * masks[0]) + masks
        return masks

    def why(self) -> Masks:
        """The best 1 %; with the helping, with the harming edges that enter up to 5 %; the best 5 %."""
        scores, n = self.scores(), self.graph.n_edges
        small, large = (top_n(scores, self.graph, int(p * n), pruned=False) for p in (0.01, 0.05))
        masks = [small, small | (large & (scores > 0)), small | (large & (scores < 0)), large]
        return [prune(mask, self.graph) for mask in masks]

    def selections(self) -> dict[str, Callable[[], Masks]]:
        """How the circuits of each selection are chosen, the most wanted first."""
        return {
            "top-n": lambda: self.each(top_n, self.scores()),
            "balanced": self.balanced,
            "balanced inside": self.inside,
            "connected": lambda: self.each(connected, self.scores()),
            "why": self.why,
            "integer program": lambda: self.each(program, self.scores()),
            "connected, signed": lambda: self.each(connected, self.scores(), absolute=False),
            "connected, average of 4": lambda: self.each(connected, average([self.scores(m) for m in METHODS])),
            "connected, consistent": lambda: self.each(connected, consistent(self.parts("eap-ig"))),
        }

    def measure(self, only: tuple[str, ...] = ()) -> None:
        """Choose and measure what is not in the folder yet."""
        for method in METHODS:
            self.parts(method)
        for label, choose in self.selections().items():
            path = self.folder / f"{self.name}-{label}.npz"
            if path.exists() or (only and label not in only):
                continue
            started = time.perf_counter()
            masks = choose()
            seconds = time.perf_counter() - started
            own, divergence = self.final.measure_all(torch.stack(masks), (None, "kl"))
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    values=torch.cat((own.clean[None], own.empty[None], own.circuits)).numpy(),
                    kl=-torch.cat((divergence.empty[None], divergence.circuits)).numpy(),
                    edges=[int(mask.sum()) for mask in masks],
                    helping=[int((mask & (self.scores() > 0)).sum()) for mask in masks],
                    seconds=seconds,
                )
            f = (own.circuits.mean(1) - own.empty.mean()) / (own.clean.mean() - own.empty.mean())
            print(f"{self.name} {label} {seconds:.0f} s", [round(float(x), 3) for x in f], flush=True)


def main(arguments: list[str]) -> None:
    """`measure TASK FOLDER [SELECTION ...]` or `write FOLDER`."""
    if arguments[:1] == ["measure"]:
        _, name, folder, *only = arguments
        Path(folder).mkdir(parents=True, exist_ok=True)
        Study(load_model("smollm2-135m"), name, Path(folder)).measure(tuple(only))
    elif arguments[:1] == ["write"]:
        write_page(Path(arguments[1]))
    else:
        raise SystemExit(f"{__doc__}\ntasks: {', '.join(TASKS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
