"""What stands above a picture: model, task and method, size and faithfulness."""

from __future__ import annotations

from circuits.circuit import Circuit


def title(circuit: Circuit) -> str:
    """Model, task and method, as plain text."""
    task = circuit.provenance["task"]
    name = task.get("name") if isinstance(task, dict) else task
    parts = [circuit.provenance["model"], name, circuit.provenance["method"]]
    return " · ".join(str(part) for part in parts if part) or "Circuit"


def facts(circuit: Circuit) -> list[str]:
    """Size and faithfulness, as plain text."""
    parts = [f"{circuit.n_edges:,} of {circuit.graph.n_edges:,} edges", f"{circuit.n_nodes:,} nodes"]
    report = circuit.report
    if report.faithfulness is not None:
        text = f"faithfulness {report.faithfulness:.2f}"
        if report.interval is not None:
            text += f" (95 % interval {report.interval[0]:.2f} to {report.interval[1]:.2f})"
        parts.append(text)
    return parts
