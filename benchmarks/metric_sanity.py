"""Do the metrics themselves work? True, random and inverted explanations of models whose true importances are known.

    python -m benchmarks.metric_sanity [--samples 100] [--parts text images] [--markdown]

`true` is what the model reads, `random` scores that know nothing, `inverted` the true ones with the sign turned. An
order holds where true is better than random and random better than inverted, by paired sign-flip tests with Holm's
correction over the metrics of a model (below 5 %), or by intervals that do not meet where there are no samples to pair.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

import metrics
from benchmarks import known
from benchmarks.known_circuit import tiny_circuit
from interp import ComputationalGraph
from interp.interval import Estimate
from metrics.explanation.named import explanation_columns

METRICS: dict[str, Any] = {name: name for columns in explanation_columns().values() for name in columns}
METRICS |= {"saco, ties zero": functools.partial(metrics.saco, ties="zero")}
NOT_FOR = {
    "features": {"road", "sensitivity"},  # sensitivity has a table of its own
    "text": {"road", "sensitivity"},
    "images": {"soft-erasure", "sensitivity"},
}
PARTS = [*known.MODELS, "sensitivity", "retrained", "masked", "circuits"]
NAMES = ("true", "random", "inverted")


def row(model: str, metric: str, better: str, cells: list[str], order: bool, as_random: str) -> dict[str, str]:
    """A row of the table."""
    return {
        "model": model, "metric": metric, "better": better, **dict(zip(NAMES, cells, strict=True)),
        "true > random > inverted": "holds" if order else "FAILS", "random as dealt out": as_random,
    }  # fmt: skip


def per_sample(name: str, n: int, seed: int) -> list[dict[str, str]]:
    """All metrics of single samples on one model, by one report."""
    model = known.MODELS[name](n, seed)
    noise = torch.rand(model.truth.shape, generator=torch.Generator().manual_seed(seed + 1))
    columns = explanation_columns()
    chosen = {
        key: metric for key, metric in METRICS.items() if not any(key in columns[family] for family in NOT_FOR[name])
    }
    settings: dict[str, Any] = {"normalised-aopc": {"exact": 10 if name == "features" else 0, "beam": 1}}
    if name == "text":
        settings |= {"soft-erasure": model.soft}
    report = metrics.compare_explanations(
        model.predict, model.inputs, dict(zip(NAMES, (model.truth, noise, -model.truth), strict=True)), chosen,
        settings=settings, seed=seed, n_random=3, batch_size=4096, **model.settings,
    )  # fmt: skip
    return [_read(report, name, metric) for metric in report.better]


def sensitivities(n: int, seed: int) -> list[dict[str, str]]:
    """Infidelity and max-sensitivity of the true gradient, of its values at other features, and of its opposite."""
    model = known.features(n, seed)
    order = torch.randperm(model.inputs.shape[1], generator=torch.Generator().manual_seed(seed))
    assert model.slope is not None
    slope = model.slope
    report = metrics.compare_explanations(
        model.predict, model.inputs,
        {"true": slope, "random": lambda x, y: slope(x, y)[:, order], "inverted": lambda x, y: -slope(x, y)},
        ["infidelity", "max-sensitivity"], seed=seed, batch_size=4096, **model.settings,
    )  # fmt: skip
    return [_read(report, "features", metric) for metric in report.better]


def _read(report: metrics.ExplanationReport, name: str, metric: str) -> dict[str, str]:
    frame = report.frame[report.frame["metric"] == metric].set_index("explainer")
    tests = report.tests[report.tests["metric"] == metric].set_index(["first", "second"])["favours"]
    cells = [str(Estimate(*frame.loc[one, ["value", "low", "high"]])) for one in NAMES]
    order = tests["true", "random"] == "true" and tests["random", "inverted"] == "random"
    as_random = "n/a"
    if "random" in frame and np.isfinite(frame.loc["random", "random"]):
        own = frame.loc["random"]
        difference = Estimate(*own[["difference", "difference low", "difference high"]])
        as_random = f"{'yes' if own['p_adjusted'] > 0.05 else 'NO'}: {difference}"
    return row(name, metric, report.better[metric], cells, order, as_random)


def _areas(model: str, metric: str, areas: list[Estimate]) -> dict[str, str]:
    """A row for areas against random masking, for which 0 is chance."""
    true, random, inverted = areas
    as_random = "yes" if random.low <= 0 <= random.high else "NO"
    order = true.low > random.high and random.low > inverted.high
    return row(model, metric, "higher", [str(one) for one in areas], order, f"{as_random}: 0 is chance")


def retrained(seeds: int) -> list[dict[str, str]]:
    """RACU of Recursive ROAR and ROAR, over seeds; the last row's explanations give labels away by their masks."""
    sizes = {"train": 800, "validation": 50, "test": 800}
    data = {split: known.labelled(n, i) for i, (split, n) in enumerate(sizes.items())}
    rows = []
    for name, true, recursive in (
        ("Recursive ROAR, RACU", known.true_weights, True),
        ("ROAR, RACU", known.true_weights, False),
        ("Recursive ROAR, RACU: contributions to class 1", known.class_contributions, True),
    ):
        explain = {"true": true, "scores": known.chance, "inverted": known.inverted(true)}
        found = metrics.recursive_roar(known.least_squares, data, explain, seeds=seeds, recursive=recursive, quiet=True)
        rows.append(_areas("labelled features", name, list(found.racu.values())))
    return rows


def masked(n: int) -> list[dict[str, str]]:
    """RACU of the erasure curve of a masked-fine-tuned classifier, over samples."""
    model = known.TokenSum()
    metrics.masked_finetune(
        model, known.stories(300, 0), known.stories(100, 1), mask_id=0, epochs=6,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    )  # fmt: skip
    explain = {"true": known.true_tokens, "scores": known.chance, "inverted": known.inverted(known.true_tokens)}
    found = metrics.erasure_curve(model, known.stories(n, 2), explain, mask=0, performance="probability", quiet=True)
    return [_areas("eight tokens", "erasure curve, RACU", list(found.racu.values()))]


def circuits(prompts: int) -> list[dict[str, str]]:
    """SaCo and the recursive curve of a tiny random GPT-2, whose edges are all patched exactly."""
    model, task = tiny_circuit(prompts)
    exact = metrics.removal_scores(model, task, quiet=True)
    graph = ComputationalGraph.of(model).edge_mask
    truth = exact(graph)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * graph
    scores = (truth, noise, -truth)
    found = [metrics.circuit_saco(model, task, one, 10, n_random=20, quiet=True) for one in scores]
    order = found[0].pooled.low > found[1].pooled.high and found[1].pooled.low > found[2].pooled.high
    low, high = np.quantile(found[1].draws, [0.025, 0.975])
    inside = f"{'yes' if low <= found[1].mean.value <= high else 'NO'}: 20 deals lie in [{low:z.3f}, {high:z.3f}]"
    cells = [str(one.pooled) for one in found]
    rows = [row("tiny GPT-2", "circuit SaCo, pooled", "higher", cells, order, inside)]
    shares = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
    curves = [
        metrics.recursive_curve(model, task, one, shares, n_random=20, quiet=True)
        for one in (exact, noise, lambda left: -exact(left))
    ]
    return [*rows, _areas("tiny GPT-2", "recursive curve, area", [one.area for one in curves])]


def markdown(rows: list[dict[str, str]]) -> str:
    """The table in GitHub's Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(one.values()) for one in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5, help="of retrained models")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--markdown", action="store_true")
    chosen = parser.parse_args()
    started = time.perf_counter()
    run: dict[str, Callable[[], list[dict[str, str]]]] = {
        **{name: functools.partial(per_sample, name, chosen.samples, chosen.seed) for name in known.MODELS},
        "sensitivity": lambda: sensitivities(chosen.samples, chosen.seed),
        "retrained": lambda: retrained(chosen.seeds),
        "masked": lambda: masked(chosen.samples),
        "circuits": lambda: circuits(chosen.prompts),
    }
    rows = [one for name in chosen.parts for one in run[name]()]
    print(markdown(rows) if chosen.markdown else pd.DataFrame(rows).to_string(index=False))
    print(f"{chosen.samples} samples, seed {chosen.seed}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
