"""Writes docs/mechanisms.md: one circuit or several, for tasks of SmolLM2-135M and for two of them mixed.

python docs/scripts/mechanisms.py [--prompts 32] [--edges 300] [--draws 199]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tables import markdown

from circuits import Mechanisms, mechanisms
from interp import Task, load_model, tasks

PAGE = Path(__file__).parents[1] / "mechanisms.md"
ALONE = ("ioi", "greater_than", "agreement", "pronoun", "capitals")
MIXED = (("ioi", "greater_than"), ("agreement", "pronoun"))
INTRODUCTION = """# One circuit, or several?

A circuit is found for a task as a whole. Where half of its prompts run through other edges than the rest, its
scores are a mean of two, and its circuit is neither. `circuits.mechanisms` looks:

```python
from circuits import mechanisms

found = mechanisms(model, task)
found.to_frame()      # a row for each cluster of prompts: its circuit's size and held-out faithfulness
found.faithfulness    # each circuit on each cluster's prompts
found.pairs           # are two clusters farther apart than one that was cut in two?
found.figure()
```

1. Each prompt $i$ is scored alone (`eap` by default), and its scores $s_i$ over all edges divided by their length:
   the inner product of two prompts is the cosine of their scores.
2. They are clustered in $k = 2, 3, 4$ (k-means from Ward's tree). Each random half of the prompts is clustered by
   itself and also given to the clusters of the other half; the adjusted Rand index of the two says how well the
   clusters are found again. The $k$ that is found again best counts, if its index is at least 0.8; else there is
   one cluster.
3. Each cluster gets a circuit by `find_circuit`, judged on the prompts of its own cluster that did not choose it,
   and on those of every other cluster.
4. Two clusters are always farther apart than random halves of the same prompts: they were made so. `distance /
   halves` (distances of mean scores, one minus the cosine) is therefore held against prompts that were drawn from
   one normal cloud with the same mean and covariance and cut in two in the same way (the idea of SigClust, Liu et
   al. 2008): `p` is the share of them that come out as far apart. It is careful: on simulated clouds of 24 and 32
   prompts with one kind it rejected nothing in 12, and two kinds whose difference was as large as the noise gave p
   between .01 and .08.

That prompts of one task may have circuits of their own is the subject of arXiv:2605.09129. Scores by prompt need an
ablation that a prompt has alone: `patch` or `zero`. `level=` and `nodes=` do the same for circuits of nodes.
"""


def rows_of(name: str, found: Mechanisms) -> list[dict[str, Any]]:
    """A row for each cluster."""
    p = {0: "", **{int(row["second"]): f"{row['p_corrected']:.3f}" for _, row in found.pairs.iterrows()}}
    rows = []
    for row in found.to_frame().to_dict("records"):
        others = found.faithfulness[
            (found.faithfulness["circuit"] == row["cluster"]) & (found.faithfulness["prompts_of"] != row["cluster"])
        ]
        best = found.counts.loc[found.counts["found_again"].idxmax()]
        rows.append(
            {
                "task": name,
                "found again": f"{best['found_again']:.2f} (k = {best['clusters']:.0f})",
                "cluster": row["cluster"],
                "prompts": row["prompts"],
                "faithfulness, held out": f"{row['faithfulness']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                "on other clusters": ", ".join(f"{one:.2f}" for one in others["faithfulness"]),
                "p": p[row["cluster"]],
                "for example": f"`{row['example'][-48:]}`".replace("\n", " "),
            }
        )
    return rows


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32, help="of each task")
    parser.add_argument("--edges", type=int, default=300, help="of each circuit")
    parser.add_argument("--draws", type=int, default=199, help="of the test")
    parser.add_argument("--tasks", nargs="*", default=ALONE)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    model = load_model("smollm2-135m")
    made = {
        name: getattr(tasks, name)(n=asked.prompts, seed=0, model=model)
        for name in {*asked.tasks, *(one for pair in MIXED for one in pair)}
    }
    mixed = {
        f"{a} and {b}": Task(f"{a} and {b}", [*made[a].examples, *made[b].examples]) for a, b in MIXED
    }  # fmt: skip
    rows = []
    for name, task in {**{name: made[name] for name in asked.tasks}, **mixed}.items():
        rows += rows_of(name, mechanisms(model, task, edges=asked.edges, draws=asked.draws))
        print(rows[-1], flush=True)
    lines = [
        INTRODUCTION,
        "## On SmolLM2-135M\n",
        f"Made by `docs/scripts/mechanisms.py`: {asked.prompts} prompts of each task, circuits of {asked.edges} edges, "
        f"{asked.draws} draws of the test.\n",
        markdown(rows),
    ]
    asked.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
