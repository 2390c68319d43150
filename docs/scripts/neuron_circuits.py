"""Writes docs/neuron-circuits.md: how many neurons of the real SmolLM2-135M carry a behaviour, alone.

    python docs/scripts/neuron_circuits.py

Takes about an hour on one CPU core; what is done is kept in files until the page is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import metrics
from attribution import EAP, EAPIG, MaskIG
from attribution.edges.method import Method
from attribution.units.nodes import scores_of_nodes
from circuits.find_nodes import smallest
from circuits.judged import judged
from interp import Interval, Run, Setting, load_model, tasks
from interp.files import write_text
from interp.node_mask import NodeMask
from metrics.circuit.controls import random_controls
from metrics.circuit.node_scores import NodeScores

DOCS = Path(__file__).parent.parent
TASKS = ("agreement", "greater_than", "ioi", "capitals")
PROMPTS, GOAL, RANDOM = 64, 0.85, 2
SIZES = (30, 100, 300, 1000, 3000, 10000)
METHODS: dict[str, Method] = {
    "eap-ig": EAPIG(),
    "mask-ig": MaskIG(steps=3),
    "relp-ah": EAP(rules="relp-ah"),
    "gradient": EAP(),
}


@dataclass(frozen=True)
class Ranked:
    """Scores, and how neurons are taken from them: by signed score (`helping=1`) or by |score| (0.5)."""

    name: str
    scores: NodeScores
    helping: float = 1.0


def main() -> None:
    """Measure on every task, and write the page."""
    found: dict[str, dict[str, Any]] = {}
    model = None
    for name in TASKS:
        kept = DOCS / f".neuron-circuits-{name}.json"
        if not kept.exists():
            model = model or load_model("smollm2-135m")
            write_text(kept, json.dumps(measured(model, name)))
        found[name] = json.loads(kept.read_text(encoding="utf-8"))
    write_text(DOCS / "neuron-circuits.md", page(found))
    for name in TASKS:
        (DOCS / f".neuron-circuits-{name}.json").unlink()


def measured(model: Any, name: str) -> dict[str, Any]:
    """Circuits of one task by all scores, and faithfulness at fixed sizes."""
    task = getattr(tasks, name)(n=PROMPTS, seed=0, model=model)
    scoring, held_out = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)
    values = {label: scores_of_nodes(scoring, method, "neuron").values for label, method in METHODS.items()}
    rows, sizes = [], []
    for one in rankings(scoring, values):
        rows.append(circuit_row(scoring, held_out, one))
        if one.name in ("eap-ig by abs. score", "eap-ig", "mask-ig"):
            sizes.append(size_row(held_out, one))
        print(name, rows[-1], flush=True)
    if (spans := positions(scoring)) is not None:
        apart = scores_of_nodes(scoring, METHODS["eap-ig"], "neuron", spans).values
        rows.append(circuit_row(scoring, held_out, Ranked("eap-ig, by position", NodeScores(apart, "neuron", spans))))
        print(name, rows[-1], flush=True)
    return {"circuits": rows, "sizes": sizes, "positions": 0 if spans is None else len(spans)}


def rankings(scoring: Setting, values: dict[str, Float[Tensor, "layer d_mlp"]]) -> Iterator[Ranked]:
    """The first method by |score|, and all of them by signed score."""
    yield Ranked("eap-ig by abs. score", NodeScores(values["eap-ig"], "neuron"), 0.5)
    for label, own in values.items():
        yield Ranked(label, NodeScores(own, "neuron"))


def positions(scoring: Setting) -> tuple[int, ...] | None:
    """The positions that can matter, where all prompts are of one length."""
    prompts = scoring.task.prompts(scoring.model)
    if len(set(prompts.lengths.tolist())) > 1:
        return None
    return tuple(range(int(prompts.first_difference.min()), prompts.clean.shape[1]))


def circuit_row(scoring: Setting, held_out: Setting, ranked: Ranked) -> dict[str, Any]:
    """The smallest circuit that reaches the goal on the scoring prompts, judged on the others."""
    mask, _ = smallest(scoring, ranked.scores, ranked.helping, GOAL, Interval())
    report = judged(held_out, mask, random_controls(scoring, [mask], RANDOM, 0), Interval())
    by_prompt = report.by_prompt
    assert by_prompt is not None
    return {
        "scores": ranked.name,
        "neurons": mask.n_nodes,
        "faithfulness": estimate(report.faithfulness, report.interval),
        "without the circuit": estimate(report.complement, report.complement_interval),
        "random": estimate(report.random_faithfulness, report.random_interval),
        "within 20 %": f"{by_prompt.within.value:.0%}",
        "behaviour": f"{report.behaviour:.2f}",
    }


def size_row(held_out: Setting, ranked: Ranked) -> dict[str, Any]:
    """Faithfulness at fixed sizes on the held-out prompts."""
    masks: list[NodeMask] = [ranked.scores.top(n, ranked.helping) for n in SIZES]
    reached = metrics.faithfulness(held_out.measure(masks))
    return {"scores": ranked.name} | {f"{n:,}": f"{one.value:z.2f}" for n, one in zip(SIZES, reached, strict=True)}


def estimate(value: float | None, interval: tuple[float, float] | None) -> str:
    """A figure with its interval."""
    if value is None or interval is None:
        return ""
    return f"{value:z.2f} [{interval[0]:z.2f}, {interval[1]:z.2f}]"


def page(found: dict[str, dict[str, Any]]) -> str:
    """What was measured, and two tables for each task."""
    parts = [INTRODUCTION]
    for name, own in found.items():
        parts += [f"\n## {name}\n", markdown(own["circuits"])]
        if own["positions"]:
            parts.append(
                f"\nBy position the count is of (layer, position, neuron), out of 46,080 times {own['positions']} "
                "positions."
            )
        parts += ["\nFaithfulness on the held-out prompts by the number of neurons:\n", markdown(own["sizes"])]
    return "\n".join(parts) + "\n"


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]) for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


INTRODUCTION = f"""# How many neurons carry a behaviour?

Made by `docs/scripts/neuron_circuits.py` on SmolLM2-135M, which has 46,080 neurons; {PROMPTS // 2} prompts chose,
{PROMPTS // 2} others judge. A circuit of neurons keeps its neurons; all others take their values in the corrupted
prompt, at every position, and attention and embeddings stay live. Each row is the smallest circuit found whose
faithfulness on the prompts that chose it reaches {GOAL}. `without the circuit`: the faithfulness of all other neurons, alone, which is
low where the circuit is complete. `random`: {RANDOM} circuits of as many neurons of the same layers, nearest in norm.
`within 20 %`: the share of held-out prompts on which the circuit is that near to the model. `behaviour`: what ablating
all neurons takes of the difference between clean and corrupted prompts. Intervals: 95 %, bootstrap over prompts.

Rows: `by abs. score` takes the largest |score|, all others the largest signed score, so that neurons that harm stay
out. `eap-ig`: gradients along the embedding's path, 5 steps. `mask-ig`: gradients at the neurons' weights on the way
from none to all, 3 points. `relp-ah`: the rules of the neuron basis paper. `gradient`: the plain gradient at the clean
prompts. `by position`: `eap-ig`, each position's neurons on their own (where all prompts are of one length)."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
