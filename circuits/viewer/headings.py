"""What stands above a picture: model, task and method, size and faithfulness."""

from __future__ import annotations

from circuits.found import Found


def title(circuit: Found) -> str:
    """Model, task and method, as plain text."""
    task = circuit.provenance["task"]
    name = task.get("name") if isinstance(task, dict) else task
    parts = [circuit.provenance["model"], name, circuit.provenance["method"]]
    return " · ".join(str(part) for part in parts if part) or circuit.called


def facts(circuit: Found) -> list[str]:
    """Size and faithfulness, as plain text."""
    parts = circuit.sizes()
    report = circuit.report
    if report.faithfulness is not None:
        text = f"faithfulness {report.faithfulness:.2f}"
        if report.interval is not None:
            text += f" (95 % interval {report.interval[0]:.2f} to {report.interval[1]:.2f})"
        parts.append(text)
    if (flattened := circuit.provenance.get("flattened")) is not None:
        parts.append(f"drawn at any position, of {flattened}")
    return parts
