"""Writes docs/relevance-curves.md and .png: faithfulness curves of relevance methods beside EAP and EAP-IG.

    python docs/scripts/relevance_curves.py

Edges are scored on 32 prompts of each task and circuits measured on 32 others of the real SmolLM2-135M. The picture
needs a Chromium to draw it; without one only the page is written.
"""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go
from pictures import draw
from plotly.subplots import make_subplots

import metrics
from attribution import attribute
from interp import load_model, tasks
from interp.files import write_text
from metrics import Curve

DOCS = Path(__file__).parent.parent
TASKS = ("ioi", "greater_than", "agreement")
METHODS = ("eap", "eap-ig", "relp", "attnlrp", "cp-lrp", "gim")
COLOURS = ("#999999", "#000000", "#D55E00", "#0072B2", "#56B4E9", "#009E73")
PROMPTS = 64


def main() -> None:
    """Measure all curves, write the page and draw the picture."""
    model = load_model("smollm2-135m")
    curves: dict[str, dict[str, Curve]] = {}
    for name in TASKS:
        scoring, held_out = getattr(tasks, name)(n=PROMPTS, seed=0, model=model).split(0.5, seed=0)
        curves[name] = {
            method: metrics.faithfulness_curve(model, held_out, attribute(model, scoring, method)) for method in METHODS
        }
    write_text(DOCS / "relevance-curves.md", page(curves))
    draw(figure(curves), DOCS / "relevance-curves.png")


def page(curves: dict[str, dict[str, Curve]]) -> str:
    """The page: one table of faithfulness by size and one of areas for each task."""
    parts = [
        "# Faithfulness of circuits from relevance methods, beside EAP-IG\n",
        f"Made by `docs/scripts/relevance_curves.py`: SmolLM2-135M, {PROMPTS // 2} prompts to score the edges, "
        f"{PROMPTS // 2} others to measure circuits on, ablation by counterfactual prompts, top-n by |score|, then "
        "pruned. Faithfulness 1 is the whole model, 0 the corrupted one. CPR (area under the curve) has no upper "
        "bound, CMD (area between the curve and 1) is best at 0; both are ruled by the two largest sizes, so the last "
        "column is CMD over the logarithm of the size. Intervals are 95 % bootstrap intervals over prompts.\n",
        "![Faithfulness by share of edges, one panel a task, one line a method](relevance-curves.png)\n",
    ]
    for task, by_method in curves.items():
        fractions = next(iter(by_method.values())).fractions
        parts.append(f"## {task}\n")
        header = ["method", *(f"{p:.1%}" for p in fractions[:-1]), "CPR", "CMD", "CMD over log size"]
        lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
        for method, curve in by_method.items():
            cells = [f"{value:z.2f}" for value in curve.faithfulness[:-1]]
            areas = [str(area) for area in (curve.cpr_estimate, curve.cmd_estimate, curve.log_cmd)]
            lines.append(f"| {' | '.join([method, *cells, *areas])} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def figure(curves: dict[str, dict[str, Curve]]) -> go.Figure:
    """One panel a task, one line a method."""
    drawn = make_subplots(cols=len(curves), subplot_titles=list(curves), shared_yaxes=True, horizontal_spacing=0.03)
    for column, by_method in enumerate(curves.values(), 1):
        for (method, curve), colour in zip(by_method.items(), COLOURS, strict=True):
            drawn.add_scatter(
                x=curve.fractions,
                y=curve.faithfulness,
                name=method,
                line={"color": colour, "width": 3 if method == "eap-ig" else 2},
                mode="lines+markers",
                showlegend=column == 1,
                row=1,
                col=column,
            )
    drawn.update_xaxes(type="log", title="share of edges", tickformat=".1~%", tickvals=[0.001, 0.01, 0.1, 1])
    drawn.update_yaxes(title="faithfulness", col=1)
    drawn.add_hline(y=1, line={"dash": "dot", "color": "#666666"})
    drawn.update_layout(template="plotly_white", width=1200, height=420, margin={"t": 40, "b": 50, "l": 60, "r": 10})
    return drawn


if __name__ == "__main__":
    main()
