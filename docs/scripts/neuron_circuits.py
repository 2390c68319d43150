"""Writes docs/neuron-circuits.md: how many neurons of the real SmolLM2-135M carry a behaviour, alone.

    python docs/scripts/neuron_circuits.py
    python docs/scripts/neuron_circuits.py --tasks agreement --prompts 8 --folder trial   # writes elsewhere

Takes about half an hour on one CPU core; what is done is kept in files until the page is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tables import markdown

import metrics
from attribution import EAP, EAPIG, MaskIG
from attribution.edges.method import Method
from attribution.units.nodes import scores_of_nodes
from circuits.goals import ONE_ERROR, Goal
from circuits.judged import judged
from circuits.search import CLOSE
from circuits.smallest import Sizes, smallest
from interp import Interval, Run, Setting, Task, load_model, tasks
from interp.files import write_text
from interp.node_mask import NodeMask
from metrics.circuit.balance import Balanced, node_rules
from metrics.circuit.controls import random_controls
from metrics.circuit.elements import NodeElements
from metrics.circuit.node_scores import NodeScores

DOCS = Path(__file__).parent.parent
TASKS = ("agreement", "greater_than", "ioi", "capitals")
PROMPTS, GOAL, RANDOM = 64, 0.85, 1
DRAWN = 4  # times as many prompts are drawn as are taken of one length
SIZES = (50, 150, 1500, 5000)
RIVALS: dict[str, Method] = {
    "mask-ig": MaskIG(steps=3),
    "relp-ah": EAP(rules="relp-ah"),
    "gradient": EAP(),
}


def main(chosen: list[str], prompts: int, folder: Path) -> None:
    """Measure on every task, and write the page anew after each."""
    found: dict[str, dict[str, Any]] = {}
    model = None
    for name in chosen:
        for part, measure in (("circuits", measured), ("positions", by_position)):
            kept = folder / f".neuron-{part}-{name}.json"
            if not kept.exists():
                model = model or load_model("smollm2-135m")
                write_text(kept, json.dumps(measure(model, name, prompts)))
            found.setdefault(name, {}).update(json.loads(kept.read_text(encoding="utf-8")))
        write_text(folder / "neuron-circuits.md", page(found, prompts))
    for name in chosen:
        for part in ("circuits", "positions"):
            (folder / f".neuron-{part}-{name}.json").unlink()


def measured(model: Any, name: str, prompts: int) -> dict[str, Any]:
    """The smallest circuits by |score| and by signed score, then other scores at the size of the latter."""
    task = getattr(tasks, name)(n=prompts, seed=0, model=model)
    scoring, held_out = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)
    own = NodeScores(scores_of_nodes(scoring, EAPIG(), "neuron").values, "neuron")
    rows = []
    for label, helping in (("eap-ig by abs. score", 0.5), ("eap-ig", 1.0)):
        mask = smallest_of(scoring, own, helping)
        rows.append(circuit_row(scoring, held_out, label, mask))
        print(name, rows[-1], flush=True)
    sizes = [by_size(held_out, label, masks) for label, masks in of_sizes(scoring, own).items()]
    print(name, sizes, flush=True)
    for label, method in RIVALS.items():
        rival = NodeScores(scores_of_nodes(scoring, method, "neuron").values, "neuron")
        rows.append(circuit_row(scoring, held_out, label, rival.top(mask.n_nodes, 1.0)))
        print(name, rows[-1], flush=True)
    return {"circuits": rows, "sizes": sizes}


def of_sizes(scoring: Setting, scores: NodeScores) -> dict[str, list[NodeMask]]:
    """Circuits of each size, and of twice that by |score|."""
    rules = node_rules(scoring, scores, Balanced(), SIZES)
    return {
        "abs. score, twice as many": [scores.top(2 * n) for n in SIZES],
        "balanced": [NodeMask(rule(scores.values), "neuron") for rule in rules],
        "signed": [scores.top(n, 1.0) for n in SIZES],
    }


def by_size(held_out: Setting, label: str, masks: list[NodeMask]) -> dict[str, str]:
    """A row: faithfulness on the prompts that judge."""
    reached = metrics.faithfulness(held_out.measure(masks))
    cells = {f"{n:,}": estimate(one.value, (one.low, one.high)) for n, one in zip(SIZES, reached, strict=True)}
    return {"chosen by": label, **cells}


def by_position(model: Any, name: str, prompts: int) -> dict[str, Any]:
    """The smallest circuits on prompts of one length: neurons at all positions at once, and at each on its own."""
    task = of_one_length(model, getattr(tasks, name)(n=DRAWN * prompts, seed=0, model=model), prompts)
    scoring, held_out = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)
    apart = positions(scoring)
    rows = []
    for label, spans in (("all positions at once", None), ("by position", apart)):
        scores = NodeScores(scores_of_nodes(scoring, EAPIG(), "neuron", spans).values, "neuron", spans)
        rows.append(circuit_row(scoring, held_out, label, smallest_of(scoring, scores, 1.0)))
        print(name, rows[-1], flush=True)
    length = int(scoring.prompts.lengths[0])
    return {"positions": rows, "apart": len(apart), "length": length, "prompts": len(task)}


def of_one_length(model: Any, task: Task, most: int) -> Task:
    """The first `most` prompts of those of the commonest length."""
    lengths = task.prompts(model).lengths
    return task.select((lengths == lengths.mode().values).nonzero()[:most, 0])


def smallest_of(scoring: Setting, scores: NodeScores, helping: float) -> NodeMask:
    """The smallest circuit found that reaches the goal, of the best nodes under a weight of helping."""
    elements = NodeElements(scoring, scores.level, scores.spans)
    sizes = Sizes(elements, lambda n: scores.top(n, helping).mask, Goal(GOAL, spare=ONE_ERROR))
    return scores.top(smallest([sizes], CLOSE[elements.noun])[1], helping)


def positions(scoring: Setting) -> tuple[int, ...]:
    """The positions that can matter, of prompts of one length."""
    prompts = scoring.prompts
    return tuple(range(int(prompts.first_difference.min()), prompts.clean.shape[1]))


def circuit_row(scoring: Setting, held_out: Setting, label: str, mask: NodeMask) -> dict[str, Any]:
    """A circuit that the scoring prompts chose, judged on the others."""
    report = judged(held_out, mask, random_controls(scoring, [mask], RANDOM, 0), Interval())
    by_prompt = report.by_prompt
    assert by_prompt is not None
    return {
        "scores": label,
        "neurons": f"{mask.n_nodes:,}",
        "faithfulness": estimate(report.faithfulness, report.interval),
        "without the circuit": estimate(report.complement, report.complement_interval),
        "random": estimate(report.random_faithfulness, report.random_interval),
        "within 20 %": f"{by_prompt.within.value:.0%}",
        "behaviour": f"{report.behaviour:.2f}",
    }


def estimate(value: float | None, interval: tuple[float, float] | None) -> str:
    """A figure with its interval."""
    if value is None or interval is None:
        return ""
    return f"{value:z.2f} [{interval[0]:z.2f}, {interval[1]:z.2f}]"


def page(found: dict[str, dict[str, Any]], prompts: int) -> str:
    """What was measured, and three tables for each task."""
    counts = {"HALF": prompts // 2, "DRAWN": DRAWN * prompts, "ALL": prompts}
    introduction = INTRODUCTION
    for word, count in counts.items():
        introduction = introduction.replace(word, str(count))
    parts = [introduction]
    for name, own in found.items():
        parts += [f"\n## {name}\n", markdown(own["circuits"])]
        parts += [
            "\nFaithfulness by the number of neurons, scores of `eap-ig`:\n",
            markdown(own["sizes"]),
            f"\n{own['prompts']} prompts of {own['length']} tokens, `eap-ig`; by position the count is of (layer, "
            f"position,\nneuron), out of 46,080 at each of {own['apart']} positions:\n",
            markdown(own["positions"]),
        ]
    return "\n".join(parts) + "\n"


INTRODUCTION = f"""# How many neurons carry a behaviour?

Made by `docs/scripts/neuron_circuits.py` on SmolLM2-135M, which has 46,080 neurons; HALF prompts chose,
HALF others judge. A circuit of neurons keeps its neurons; all others take their values in the corrupted
prompt, at every position, and attention and embeddings stay live.

Rows of `eap-ig` (gradients along the embedding's path, 5 steps) are the smallest circuit found whose faithfulness on
the prompts that chose it reaches {GOAL} with a standard error to spare, as `find_circuit` asks: of the largest |score|
(`by abs. score`), or of the largest signed score, so that neurons that harm stay out. The other rows are the neurons of
largest signed score by other methods, as many as `eap-ig` needs: `mask-ig` (gradients at the neurons' weights on the
way from none to all, 3 points), `relp-ah` (the rules of the neuron basis paper) and the plain `gradient`.

All figures are of the prompts that judge. `without the circuit`: the faithfulness of all other neurons, alone, which is
low where the circuit is complete. `random`: as many neurons of the same layers, nearest in norm. `within 20 %`: the
share of prompts on which the circuit is that near to the model. `behaviour`: what ablating all neurons takes of the
difference between clean and corrupted prompts. Intervals: 95 %, bootstrap over prompts.

About a hundred neurons, as the neuron basis paper found? The second table of each task tells it, on the prompts that
judge. Its first row has the largest |score| of twice as many neurons as its head says; `balanced` sets the share that
helps so that a circuit is as faithful as the model on the prompts that chose it; `signed` takes the largest signed
score. Agreement takes 25 neurons, greater-than some 280, IOI between 700 and 1,500, capitals between 2,000 and 5,000:
of agreement it holds, of the others it does not.

Read faithfulness at a size, not the size alone. A circuit that just reaches {GOAL} on the prompts that chose it can
fall short of it on others, small signed ones the most, and it is near to the model on fewer single prompts than a
larger one by |score|. Large signed circuits do better than the model: they lack what works against the answer.

The last table tells positions apart, which wants prompts of one length: of DRAWN prompts the commonest length was
taken, at most ALL prompts, half of which chose and half judge. Both of its rows are of these prompts. Counting each
position on its own makes circuits about as large, on capitals larger. It can gain where a neuron is wanted at one
position and harms at another; but a position is the same place in prompts of one length, and not the same word."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), dest="chosen")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--folder", type=Path, default=DOCS)
    torch.set_num_threads(1)
    main(**vars(parser.parse_args()))
