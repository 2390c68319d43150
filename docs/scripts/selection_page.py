"""The page and picture of the selection study, from its measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from relevance_curves import draw

from interp.files import write_text
from interp.selection import LADDER_FRACTIONS
from metrics import cmd, cpr
from metrics.circuit.evaluate import faithfulness_of_means
from metrics.statistics import bootstrap

DOCS = Path(__file__).parent.parent
TASKS = ("ioi", "greater_than", "agreement")
GRAPH = 123_211
BASE, DRAWN = "top-n", ("top-n", "connected", "balanced", "balanced inside")
COLOURS = {"top-n": "#000000", "connected": "#0072B2", "balanced": "#D55E00", "balanced inside": "#009E73"}
ORDER = (
    "top-n", "connected", "integer program", "connected, signed", "connected, consistent", "connected, average of 4",
    "balanced", "balanced inside",
)  # fmt: skip
FIGURES = ("CPR", "CMD", "CMD over log size", "edges for .85", "edges for .95")
Array = NDArray[np.float64]
Measured = dict[str, Array]


def load(folder: Path, task: str, label: str) -> Measured | None:
    """What was measured of one selection; None if it was not."""
    path = folder / f"{task}-{label}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def edges_for(goal: float, f: Array, edges: Array) -> Array:
    """The fewest edges that reach the goal, log-linear between sizes; at the smallest size what it has."""
    f = np.concatenate((f, np.ones((len(f), 1))), 1)
    sizes = np.log(np.append(edges, GRAPH))
    at = np.argmax(f >= goal, 1)
    rows = np.arange(len(f))
    low, high = f[rows, np.maximum(at - 1, 0)], f[rows, at]
    part = np.where(at > 0, (goal - low) / np.where(high > low, high - low, 1), 1)
    return np.asarray(np.exp(sizes[np.maximum(at - 1, 0)] * (1 - part) + sizes[at] * part))


def figures(edges: Array) -> Callable[[Array], Array]:
    """Mean objectives -> the figures of `FIGURES`."""
    p = np.array(LADDER_FRACTIONS)

    def statistic(means: Array) -> Array:
        f = faithfulness_of_means(means)
        whole = np.concatenate((f, np.ones((len(f), 1))), 1)  # the last circuit is the model
        log = cmd(np.log(p), whole) / np.log(p[-1] / p[0])
        return np.stack((cpr(p, whole), cmd(p, whole), log, edges_for(0.85, f, edges), edges_for(0.95, f, edges)), 1)

    return statistic


def compared(base: Measured, other: Measured) -> Callable[[Array], Array]:
    """Mean objectives of both, stacked -> ratio of every figure, other over base, on the same resamples."""

    def statistic(means: Array) -> Array:
        half = means.shape[1] // 2
        return figures(other["edges"])(means[:, half:]) / figures(base["edges"])(means[:, :half])

    return statistic


def table(by_label: dict[str, Measured]) -> list[str]:
    """Two tables of a task: the curve, and its figures with intervals and ratios to top-n."""
    curve = [f"| selection | {' | '.join(f'{p:.1%}' for p in LADDER_FRACTIONS[:-1])} | seconds |", "|" + " --- |" * 11]
    area = [
        f"| selection | {' | '.join(FIGURES)} | CMD over log size / top-n's | edges for .85 / top-n's |",
        "|" + " --- |" * 8,
    ]
    base = by_label[BASE]
    for label, data in by_label.items():
        f = faithfulness_of_means(data["values"].mean(1)[None].astype(float))[0]
        cells = [f"{value:z.2f} ({edges})" for value, edges in zip(f, data["edges"], strict=True)]
        curve.append(f"| {label} | {' | '.join(cells)} | {float(data['seconds']):.0f} |")
        own = bootstrap(data["values"], figures(data["edges"]))
        ratio = bootstrap(np.concatenate((base["values"], data["values"])), compared(base, data))
        texts = [str(one) for one in own[:3]]
        texts += [f"{one.value:.0f} [{one.low:.0f}, {one.high:.0f}]" for one in own[3:]]
        against = (
            ["", ""] if label == BASE else [f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in (ratio[2], ratio[3])]
        )
        area.append(f"| {label} | {' | '.join([*texts, *against])} |")
    return ["\n".join(curve), "\n".join(area), spread(by_label)]


def spread(by_label: dict[str, Measured]) -> str:
    """What a mean hides: distance prompt by prompt, and of the output distribution."""
    rows = ["| selection | what | " + " | ".join(f"{p:.1%}" for p in LADDER_FRACTIONS[:-1]) + " |", "|" + " --- |" * 11]
    for label in ("top-n", "connected", "balanced", "balanced inside"):
        if label not in by_label:
            continue
        data = by_label[label]
        clean, empty, circuits = data["values"][0], data["values"][1], data["values"][2:]
        off = np.abs(circuits - clean).mean(1) / (clean - empty).mean()
        kl = data["kl"][1:].mean(1) / data["kl"][0].mean()
        share = data["helping"] / np.maximum(data["edges"], 1)
        for what, values in (("distance by prompt", off), ("KL", kl), ("share that helps", share)):
            rows.append(f"| {label} | {what} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(rows)


def why(folder: Path) -> str:
    """The dip taken apart: what enters between 1 % and 5 % helps and harms, added one kind at a time."""
    rows = ["| task | best 1 % | + those that help | + those that harm | + both (best 5 %) |", "|" + " --- |" * 5]
    for task in TASKS:
        data = load(folder, task, "why")
        if data is None:
            continue
        found = bootstrap(data["values"], faithfulness_of_means)
        cells = [f"{one} ({edges:,} edges)" for one, edges in zip(found, data["edges"], strict=True)]
        rows.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(rows)


def write_page(folder: Path) -> None:
    """Write docs/selection.md around the figures, and the picture."""
    text = (DOCS / "scripts" / "selection.md.in").read_text()
    parts = []
    curves: dict[str, dict[str, Measured]] = {}
    for task in TASKS:
        found = {label: load(folder, task, label) for label in ORDER}
        curves[task] = {label: data for label, data in found.items() if data is not None}
        if BASE in curves[task]:
            parts += [f"## {task}", *table(curves[task])]
    write_text(DOCS / "selection.md", text.replace("@WHY@", why(folder)).replace("@TABLES@", "\n\n".join(parts)))
    draw(figure(curves), DOCS / "selection.png")


def figure(curves: dict[str, dict[str, Measured]]) -> go.Figure:
    """Faithfulness by the edges that are left, one panel a task."""
    drawn = make_subplots(cols=len(curves), subplot_titles=list(curves), shared_yaxes=True, horizontal_spacing=0.03)
    shown: set[str] = set()
    for column, by_label in enumerate(curves.values(), 1):
        for label in DRAWN:
            if label not in by_label:
                continue
            data = by_label[label]
            points = bootstrap(data["values"], faithfulness_of_means)
            drawn.add_scatter(
                x=data["edges"], y=[p.value for p in points], name=label, mode="lines+markers",
                error_y={
                    "type": "data", "symmetric": False, "thickness": 1,
                    "array": [p.high - p.value for p in points], "arrayminus": [p.value - p.low for p in points],
                },
                line={"color": COLOURS[label]}, showlegend=label not in shown, row=1, col=column,
            )  # fmt: skip
            shown.add(label)
    drawn.update_xaxes(type="log", title="edges left after pruning")
    drawn.update_yaxes(title="faithfulness", col=1, range=[0, 1.3])
    drawn.add_hline(y=1, line={"dash": "dot", "color": "#666666"})
    drawn.update_layout(template="plotly_white", width=1200, height=420, margin={"t": 40, "b": 50, "l": 60, "r": 10})
    return drawn
