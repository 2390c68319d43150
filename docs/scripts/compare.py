"""Writes docs/compare-smollm2.md and .png: `compare_methods` on three tasks of the real SmolLM2-135M.

    python docs/scripts/compare.py

Takes about eight minutes a task on one CPU core. What was measured is kept in a file a task until all tasks are: an
interrupted run goes on. With names of tasks only those are measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import plotly.graph_objects as go
from pictures import draw
from plotly.subplots import make_subplots

from circuits import MethodComparison, compare_methods
from interp import load_model, tasks
from interp.files import write_text

DOCS = Path(__file__).parent.parent
TASKS = ("ioi", "greater_than", "agreement")
METHODS = (
    *("eap", "eap-ig", "relp", "gim", "attnlrp", "clean-corrupted"),
    *("mask-ig", "atp-star", "information-flow", "ensemble"),
)
PROMPTS, EXACT = 64, 200


def main() -> None:
    """Measure what is not measured yet, and write page and picture of all that is."""
    model = None
    for name in sys.argv[1:] or TASKS:
        if not kept(name).exists():
            model = model or load_model("smollm2-135m")
            task = getattr(tasks, name)(n=PROMPTS, seed=0, model=model)
            compare_methods(model, task, METHODS, exact=EXACT, inverted=True).save(kept(name))
    tables = {name: MethodComparison.load(kept(name)) for name in TASKS if kept(name).exists()}
    write_text(DOCS / "compare-smollm2.md", page(tables))
    draw(figure(tables), DOCS / "compare-smollm2.png")
    if len(tables) == len(TASKS):
        for name in TASKS:
            kept(name).unlink()


def kept(name: str) -> Path:
    """Where a task's measurements are kept."""
    return DOCS / f".compare-{name}.json"


def page(tables: dict[str, MethodComparison]) -> str:
    """The page: what was compared, then for each task the table and the differences that stand."""
    first = next(iter(tables.values())).about
    parts = [
        "# Methods compared on SmolLM2-135M\n",
        f"Made by `docs/scripts/compare.py` with `compare_methods` (what the columns mean: [compare.md](compare.md)): "
        f"edges scored on {first['n_scoring']} prompts, circuits judged on {first['n_judging']} others, ablation by "
        f"counterfactual prompts, top-n by |score| and pruned, {first['edges']:,} edges. Brackets are 95 % bootstrap "
        f"intervals over the judging prompts (for correlations with exact patching: over {first['exact']} edges). "
        "`random`: random paths from the input to the logits, of the same sizes, the mean of "
        f"{first['n_random']} draws. `inverted eap`: the ranking of `eap` upside down. Seconds and memory are of "
        "scoring alone, on one core of a busy machine: compare them with one another only.\n",
        "![Faithfulness by share of edges, one panel a task, one line a method](compare-smollm2.png)\n",
    ]
    for name, table in tables.items():
        parts += [f"## {name}\n", table.markdown() + "\n", differences(table) + "\n"]
    return "\n".join(parts)


def differences(table: MethodComparison) -> str:
    """Which methods differ, two by two, controls left out."""
    alone = table.pairs[table.pairs["first"].isin(METHODS) & table.pairs["second"].isin(METHODS)]
    lines = []
    for area, name, low_is_good in (("cmd", "CMD", True), ("log_cmd", "CMD over log size", True)):
        part = alone[alone["area"] == area]
        sure = part[part["p_adjusted"] < 0.05]
        shown = []
        for row in sure.to_dict("records"):
            won = (row["difference"] < 0) == low_is_good
            better, worse = (row["first"], row["second"]) if won else (row["second"], row["first"])
            shown.append(f"{better} < {worse} (by {abs(row['difference']):.3f}, p = {row['p_adjusted']:.3f})")
        listed = "; ".join(shown) or "none"
        lines.append(
            f"{name}, differences with a corrected p below 0.05, {len(sure)} of {len(part)} pairs (smaller is better): "
            f"{listed}.\n"
        )
    return "\n".join(lines)


def figure(tables: dict[str, MethodComparison]) -> go.Figure:
    """The curves, one panel a task."""
    drawn = make_subplots(cols=len(tables), subplot_titles=list(tables), shared_yaxes=True, horizontal_spacing=0.03)
    for column, table in enumerate(tables.values(), 1):
        shown: set[str] = set()
        for trace in sorted(table.curves().data, key=lambda trace: str(trace.name)):
            trace.showlegend = column == 1 and trace.name is not None and trace.name not in shown
            shown.add(str(trace.name))
            drawn.add_trace(trace, row=1, col=column)
    drawn.update_xaxes(type="log", title="share of edges", tickformat=".1~%", tickvals=[0.001, 0.01, 0.1, 1])
    drawn.update_yaxes(title="faithfulness", col=1)
    drawn.update_yaxes(range=[-0.3, 1.4])
    drawn.add_hline(y=1, line={"dash": "dot", "color": "#666666"})
    drawn.update_layout(template="plotly_white", width=1200, height=420, margin={"t": 40, "b": 50, "l": 60, "r": 10})
    return drawn


if __name__ == "__main__":
    main()
