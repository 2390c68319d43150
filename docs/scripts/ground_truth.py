"""Writes docs/ground-truth.md: every edge method against the true circuits of the planted models.

    python docs/scripts/ground_truth.py

Takes about ten minutes on one core, two thirds of them for the masks that are learned. Goes on where it was stopped;
what is done is kept in files until the page is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import metrics
from attribution import UGS, SampledEdgePruning, attribute
from circuits import planted
from circuits.planted import Planted
from interp.files import write_text
from interp.interval import Estimate
from metrics.circuit.evaluate import faithfulness, measure
from metrics.statistics import bootstrap

DOCS = Path(__file__).parent.parent
SEEDS, PROMPTS = range(10), 64
METHODS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact"},
    "eap": {"method": "eap"},
    "eap-ig": {"method": "eap-ig"},
    "eap-ig, 20 steps, midpoint": {"method": "eap-ig", "steps": 20, "quadrature": "midpoint"},
    "eap-ig-activations": {"method": "eap-ig-activations"},
    "eap-ig-activations, own credit": {"method": "eap-ig-activations", "credit": "own"},
    "clean-corrupted": {"method": "clean-corrupted"},
    "relp": {"method": "relp"},
    "relp along the path of eap-ig": {"method": "eap-ig", "rules": "relp"},
    "gim": {"method": "gim"},
    "attnlrp": {"method": "attnlrp"},
    "cp-lrp": {"method": "cp-lrp"},
    "decompx": {"method": "decompx"},
    "mask-ig": {"method": "mask-ig"},
    "atp-star": {"method": "atp-star"},
    "cd-t": {"method": "cd-t"},
    "ensemble of eap-ig and relp": {"method": "ensemble"},
    "information-flow": {"method": "information-flow"},
    "acdc": {"method": "acdc", "tau": 0.1},
    "ugs": {"method": UGS, "penalty": 0.01, "steps": 60},
    "edge-pruning-sampled": {"method": SampledEdgePruning, "edges": 0.1, "steps": 300},
    "eap, mean-positional": {"method": "eap", "ablation": "mean-positional"},
    "eap-ig-activations, mean-positional": {"method": "eap-ig-activations", "ablation": "mean-positional"},
    "random": {},
}
FIGURES = {
    "edge AUROC": lambda s, p: metrics.auroc(s, p.mask, p.graph),
    "edge AP": lambda s, p: metrics.average_precision(s, p.mask, p.graph),
    "node AUROC": lambda s, p: metrics.auroc(s, p.mask, p.graph, level="node"),
    "node AP": lambda s, p: metrics.average_precision(s, p.mask, p.graph, level="node"),
    "signed edge AUROC": lambda s, p: metrics.auroc(s, p.mask, p.graph, absolute=False),
    "edge AUROC as MIB": lambda s, p: metrics.auroc(s, p.mask, p.graph, mib=True),
}

INTRO = f"""# Methods against circuits that are known

Made by `docs/scripts/ground_truth.py`. `circuits.planted` ships four small models with known circuits, made by `python
-m benchmarks.planted`: two whose every weight is written by hand, two trained under strict interchange interventions
(Gupta et al. 2024, [arXiv:2407.14494](https://arxiv.org/abs/2407.14494)). `planted.load("induction")` gives the model,
a task, the mask of true edges, and `draw(n, seed)` for other prompts.

**The truth.** In the written models the edges follow from the weights: an edge is true if it carries what the answer
depends on and what differs between a prompt and its counterfactual. Heads that look at fixed positions have no true q
and k for that reason. In the trained models the program's variables are planted in nodes, and links between nodes
follow; of a head's q, k and v those are true through which exact patching of the link (256 prompts) costs more than
5 % of the largest effect. `exact` therefore starts with an advantage on the ports of the trained models; its agreement
with the truth is in the table of each model, beside the largest effect of an edge that is not true.

**The figures.** AUROC and average precision (AP) over all real edges, and over heads and MLPs by the largest |score|
of the edges out of them (`metrics.auroc`, `metrics.average_precision`). A random order gets an AUROC of 0.5 and an AP
of about the share of true edges. Each figure is the mean over {len(SEEDS)} draws of {PROMPTS} prompts, with a 95 %
bootstrap interval over draws; weights and truth stay the same, so that intervals say nothing about other models.
Ablation is by counterfactual unless the name says otherwise; the truth is that of counterfactuals in every row.

**What to read from it.** Four small models are few: they show how a method can fail, not how often it does.

- `cp-lrp` and `decompx` hold attention patterns, so that edges into q and k get exactly 0. Four of the nine true edges
  of `induction` are such edges and a fifth acts only through them; in `sum` it is one.
- `eap` and `clean-corrupted` take gradients where the model is sure of itself. In `induction` the patterns are
  saturated there, and a softmax at p has a slope of p (1 - p); in the trained models the decision is. Signed scores
  suffer more: a gradient beyond the top of a hill has the wrong sign. The path of `eap-ig` crosses the slope between.
- `boolean` contains a steep valley in a bit that does not matter. Methods that look at one or two points, where the
  valley is steep, rank the two edges that carry this bit among the true ones. Along the path of `eap-ig` its two sides
  cancel only in part, because the other bits move with it, and xor is not monotone on the way: signed scores of
  `eap-ig` are wrong there. Along the activations of one source at a time (own credit) they cancel.
- `atp-star` sees what a saturated pattern hides from `eap` (`induction`) and nothing else: where gradients mislead
  behind attention, in the trained models, its signed scores are as wrong as those of `eap`.
- `cd-t` has no gradient to saturate. In `boolean` it is worse than every gradient: xor is not a sum of two parts.
  The two methods of the ensemble have opposite signs on a true edge of `boolean`, which cancel.
- `information-flow` ranks what every prompt needs. `acdc` (tau 0.1) finds every circuit: it runs them.
- Learned masks draw their gates anew with each draw of prompts. `ugs` (penalty 0.01, 60 steps) is near the best of the
  others. `edge-pruning-sampled` (a tenth of the edges, 300 steps where the paper has 3,000) does not converge:
  see [its page](methods/edge-pruning-sampled.md). Do not read scores that say so.
- Nodes are easier than edges in the trained models, where other nodes hardly write anything, and not in the written
  ones, where they do. The trained models leave some of the answer to edges that are not planted: see the faithfulness
  of the true circuit alone. Interchange of whole nodes does not forbid such edges.
"""


def scored(model: Planted, method: str, seed: int) -> Tensor:
    """Scores of every edge on prompts drawn with `seed`, with which learned masks draw, too; for `random` noise."""
    if method == "random":
        return torch.randn(model.graph.shape, generator=torch.Generator().manual_seed(seed))
    told = dict(METHODS[method])
    if isinstance(told["method"], type):  # whose own draws have to be others each time
        told = {"method": told.pop("method")(seed=seed, **told)}
    return attribute(model.model, model.draw(PROMPTS, seed), quiet=True, **told).values


def figures(model: Planted, method: str) -> list[Estimate]:
    """Each of `FIGURES`, as a mean over seeds of the prompts with its bootstrap interval."""
    values = np.array([[f(s, model) for f in FIGURES.values()] for s in (scored(model, method, i) for i in SEEDS)])
    return bootstrap(values.T, lambda means: means)


def main() -> None:
    """Score what is not scored yet, and write the page."""
    models = [planted.load(name) for name in planted.names()]
    tables = {model.name: table_of(model) for model in models}
    parts = [INTRO, "## All models together\n", _overview(tables) + "\n"]
    for model in models:
        parts += [f"## {model.name}\n", _about(model) + "\n", _table(tables[model.name]) + "\n"]
    write_text(DOCS / "ground-truth.md", "\n".join(parts))
    for model in models:
        kept(model).unlink()


def kept(model: Planted) -> Path:
    """Where a model's figures are kept."""
    return DOCS / f".ground-truth-{model.name}.json"


def table_of(model: Planted) -> dict[str, list[Estimate]]:
    """The figures of every method, those that are kept and others."""
    path = kept(model)
    done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for method in METHODS:
        if method not in done:
            done[method] = [one.to_dict() for one in figures(model, method)]
            write_text(path, json.dumps(done))
            print(model.name, method, flush=True)
    return {method: [Estimate(**one) for one in done[method]] for method in METHODS}


def _overview(tables: dict[str, dict[str, list[Estimate]]]) -> str:
    rows = ([method, *(f"{table[method][0].value:.3f}" for table in tables.values())] for method in METHODS)
    return _markdown([["edge AUROC", *tables], *rows])


def _table(table: dict[str, list[Estimate]]) -> str:
    return _markdown([["method", *FIGURES], *([name, *map(str, found)] for name, found in table.items())])


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def _about(model: Planted) -> str:
    """What the model is, its edges with their exact effects, and what its circuit does alone."""
    graph, task = model.graph, model.draw(256, seed=100)
    exact = attribute(model.model, task, "exact", quiet=True).values
    others = graph.edge_mask & ~model.mask
    true = ", ".join(f"`{graph.edge_name(i, j)}` {exact[i, j]:.2f}" for i, j in model.mask.nonzero().tolist())
    worst = (exact.abs() * others).argmax().item()
    name = graph.edge_name(*divmod(int(worst), graph.shape[1]))
    alone = faithfulness(measure(model.model, task, torch.stack((model.mask, others)), quiet=True))
    accuracy = task.check(model.model).accuracy_clean
    measured = "".join(
        f" {key.capitalize()} {value:.3f}." for key, value in model.measured.items() if key != "accuracy"
    )
    return (
        f"{model.description} ({'Written by hand' if model.made == 'written' else 'Trained'}; {len(model.edges)} of "
        f"{graph.n_edges} edges, {len(model.nodes)} of {len(graph.sources) - 1} heads and MLPs; accuracy "
        f"{accuracy:.3f}.{measured})\n\n"
        f"Exact patching, 256 prompts: {true}; of the other edges at most {float((exact.abs() * others).max()):.2f} "
        f"(`{name}`), median {float(exact[others].abs().median()):.4f}. Faithfulness of the true circuit alone "
        f"{alone[0]}, of everything else {alone[1]}."
    )


if __name__ == "__main__":
    main()
