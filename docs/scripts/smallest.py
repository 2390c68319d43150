"""Writes docs/smallest.md: how small a faithful circuit is on the real SmolLM2-135M, and by what a size is best chosen.

    python docs/scripts/smallest.py                            # a quarter of an hour on one CPU core
    python docs/scripts/smallest.py --tasks agreement --seeds 1 --prompts 16 --folder trial

Goes on where it was stopped; what is done is kept in files until the page is written.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tables import markdown
from torch import Tensor

from attribution import Scores
from attribution.edges.method import Method
from circuits import find_circuit
from circuits.judged import measured
from interp import Interval, Run, Setting, load_model, tasks
from interp.files import write_text
from interp.selection import Connected, Selection
from metrics.circuit.balance import DISTANCES, Balanced

DOCS = Path(__file__).parent.parent
PROMPTS, GOAL = 64, 0.85
SHARES = (0.005, 0.02)


def main(names: Sequence[str], seeds: int, prompts: int, folder: Path) -> None:
    """Measure what is not measured yet, and write the page."""
    model = None
    found: dict[str, list[dict[str, Any]]] = {"sizes": [], "choice": [], "seeds": []}
    jobs = [("seeds", "ioi", seed) for seed in range(seeds)] + [("sizes", name, 0) for name in names]
    for kind, name, seed in jobs:
        kept = folder / f".smallest-{kind}-{name}-{seed}.json"
        if not kept.exists():
            model = model or load_model("smollm2-135m")
            task = getattr(tasks, name)(n=prompts, seed=seed, model=model)
            made = of_task(model, task, name) if kind == "sizes" else {"seeds": [of_seed(model, task, seed)]}
            write_text(kept, json.dumps(made))
            print(name, seed, made, flush=True)
        for part, rows in json.loads(kept.read_text(encoding="utf-8")).items():
            found[part] += rows
    write_text(folder / "smallest.md", page(found, prompts))
    for kind, name, seed in jobs:
        (folder / f".smallest-{kind}-{name}-{seed}.json").unlink()


def of_task(model: Any, task: Any, name: str) -> dict[str, list[dict[str, Any]]]:
    """The smallest circuits of a task, by default and by |score|; and circuits of two sizes by what is near."""
    if not task.check(model).ok:
        return {"sizes": [{"task": name, "circuit": "the model does not do it", **dict.fromkeys(COLUMNS, "")}]}
    sizes, began = [], time.perf_counter()
    usual = find_circuit(model, task, quiet=True)
    took = (time.perf_counter() - began) / usual.scores.seconds
    sizes.append(row(name, "default", usual, f"{took:.1f}"))
    known = Known(usual.scores)
    sizes.append(row(name, "top-n", find_circuit(model, task, method=known, selection="top-n", quiet=True)))
    by_ladder = find_circuit(model, task, method=known, ladder=True, quiet=True)
    sizes.append(row(name, "balanced, on the ladder", by_ladder))
    scoring, held_out = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)
    choice = []
    for share in SHARES:
        n = int(share * usual.graph.n_edges)
        rivals: dict[str, Selection] = {"top": Connected(), **{by: Balanced(nearest=by) for by in DISTANCES}}
        for by, selection in rivals.items():
            (rule,) = selection.rules(scoring, usual.scores.values, [n])
            one = measured(held_out, rule(usual.scores.values), [], Interval())
            choice.append(
                {
                    "task": name, "share": f"{share:.1%}", "nearest by": by, "faithfulness": str(one.own),
                    "KL": str(one.output.kl), "same top token": f"{one.output.same.value:.0%}",
                }
            )  # fmt: skip
    return {"sizes": sizes, "choice": choice}


@dataclass(frozen=True)
class Known(Method):
    """A method that gives scores that are there."""

    known: Scores

    name = "eap-ig"

    def values(self, setting: Setting) -> Tensor:
        """The scores, whatever the prompts."""
        return self.known.values


def row(task: str, label: str, circuit: Any, took: str = "") -> dict[str, Any]:
    """A circuit on the prompts that judge."""
    report, output = circuit.report, circuit.report.output[0]
    low, high = report.interval
    values = (
        f"{report.edges:,}", f"{report.faithfulness:.2f} [{low:.2f}, {high:.2f}]", f"{output['kl']:.2f}",
        f"{output['same_argmax']:.0%}", f"{report.by_prompt.within.value:.0%}", took,
    )  # fmt: skip
    return {"task": task, "circuit": label, **dict(zip(COLUMNS, values, strict=True))}


COLUMNS = ("edges", "faithfulness", "KL", "same top token", "within 20 %", "times scoring")


def of_seed(model: Any, task: Any, seed: int) -> dict[str, Any]:
    """The default circuit of other prompts and another split."""
    report = find_circuit(model, task, seed=seed, n_random=0, quiet=True).report
    return {"seed": seed, "edges": report.edges, "faithfulness": round(report.faithfulness, 3)}


def page(found: dict[str, list[dict[str, Any]]], prompts: int) -> str:
    """The tables, and what they say."""
    parts = [
        INTRODUCTION.format(half=prompts // 2),
        markdown(found["sizes"]),
        READING,
        CHOICE,
        markdown(found["choice"]),
    ]
    if found["seeds"]:
        values = np.array([one["faithfulness"] for one in found["seeds"]])
        short = np.maximum(GOAL - values, 0).mean()
        parts.append(SEEDS.format(n=len(values), good=int((values >= 0.8).sum()), short=short, mean=values.mean()))
        parts.append(markdown(found["seeds"]))
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# How small is a faithful circuit?

Made by `docs/scripts/smallest.py` on SmolLM2-135M (123,211 edges), scores by `eap-ig`; {half} prompts chose, {half}
others judge. `default`: what `find_circuit(model, task)` returns, the smallest circuit found that reaches .85 on the
prompts that chose it, with a standard error to spare. `top-n`: the smallest such of the largest |score|. `balanced, on
the ladder`: `ladder=True`, what 0.1 returned, by the mean. Faithfulness has its 95 % interval; KL(model || circuit) is
in nats; `within 20 %` is the share of prompts on which the circuit is that near to the model; `times scoring`: all that
`find_circuit` took over what its scores did."""

READING = """On each of these tasks the default needs at most half of the edges that top-n needs for the same goal. The
price is the output: it keeps what helps the answer and little of what works against it, so that its KL is larger;
and on the prompts that judge it may fall short of .85, as everything may that was chosen on others. Where the output
matters too, ask for it: `find_circuit(model, task, faithfulness=0.85, kl=0.2)`."""

CHOICE = """## Which circuit of a size

All connected; `top` by |score|, the others by the weight of edges that help, set on the prompts that choose
(`Balanced(nearest=)`): so that the mean of the objective, the objective by prompt, the output (KL), or mean and output
together are nearest to the model's. `both`, the default of `Balanced`, is nowhere clearly farther from
the output than `top`, and on induction nearer than `mean`, which it was before."""

SEEDS = """## Other prompts

`find_circuit` on IOI with {n} seeds, each with prompts and a split of its own. Held out, {good} of {n} are at least .80
faithful; the mean is {mean:.3f}, and they fall short of .85 by {short:.3f} on average."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", default=tasks.names())
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--folder", type=Path, default=DOCS)
    told = parser.parse_args()
    main(told.tasks, told.seeds, told.prompts, told.folder)
