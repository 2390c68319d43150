"""How good a circuit is, in the lines of a card: what its report says of prompts that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from circuits.found import Found
from circuits.report import Report, with_interval
from circuits.viewer.measuring import found_on
from interp.tasks.task import Task

Line = tuple[str, str, str]  # what, its value, and what it means


def quality(circuit: Found) -> dict[str, Any]:
    """The card's lines, the held-out point of the curve, and the sentence on the unit of scores."""
    report = circuit.report
    return {
        "lines": list(_lines(report)),
        "held": _held(report),
        "unit": _unit(report.objective or str(circuit.setting.objective or "objective"), report.level),
    }


def other_prompts(circuit: Found, task: Task | None) -> str:
    """What a page says where its prompts are not those that the circuit was found on; else nothing."""
    if task is None or found_on(circuit, task):
        return ""
    own = circuit.provenance["task"]
    name = own.get("name") if isinstance(own, dict) else own
    if name in (None, task.name):
        return f"The prompts shown here are others of the task {task.name!r} than those that the circuit was found on."
    return f"The prompts shown here are of the task {task.name!r}; the circuit was found on {name!r}."


def _unit(objective: str, level: str) -> str:
    noun = "edge" if level == "edge" else level
    return (
        f"A score is about how far the objective ({objective}) falls when the {noun} alone is ablated: "
        "positive ones help, negative ones hurt."
    )


def _held(report: Report) -> dict[str, Any] | None:
    """The header's figure as a point of the curve, and the random circuits of the same size."""
    if report.faithfulness is None:
        return None
    return {
        "edges": report.edges,
        "value": report.faithfulness,
        "interval": report.interval,
        "prompts": report.n_held_out,
        "random": report.random_faithfulness,
        "randomInterval": report.random_interval,
    }


def _lines(report: Report) -> Iterator[Line]:
    prompts = "held-out prompts" if report.n_held_out is None else f"{report.n_held_out:,} held-out prompts"
    if report.faithfulness is not None:
        yield (
            "Faithfulness",
            with_interval(report.faithfulness, report.interval),
            f"share of what the model does beyond the empty circuit that the circuit does alone, on {prompts}",
        )
        if report.faithfulness > 1:
            yield (
                "Overshoot",
                f"{report.faithfulness - 1:.3f} above the model",
                "above 1 the circuit does more than the whole model: what it leaves out holds the model back",
            )
    if report.output:
        own = report.output[0]
        yield "Same top token", f"{own['same_argmax']:.0%} of prompts", "how often the circuit says what the model says"
        yield "KL from the model", f"{own['kl']:.3f} nats", "how far its whole output distribution is from the model's"
    if (by_prompt := report.by_prompt) is not None:
        near = f"{by_prompt.within.value:.0%} of prompts"
        yield (
            f"Within {by_prompt.margin:.0%} of the model",
            near,
            "prompt by prompt: a mean of 1 can be made of 0 and 2",
        )
    if report.random_faithfulness is not None:
        random = with_interval(report.random_faithfulness, report.random_interval)
        yield (
            "Random circuits",
            random,
            "faithfulness of as many edges drawn at random: what any circuit of this size gets",
        )
    if report.ablation is not None:
        yield "Ablation", report.ablation, "what edges outside of the circuit carry"
    if report.edges is not None:
        share = "" if report.fraction is None else f" ({report.fraction:.2%} of the graph)"
        yield "Edges", f"{report.edges:,}{share}", "the smaller, the more it says"
    for test in report.tests:
        decision = {True: "passed", False: "failed"}.get(test["passed"], "not made")
        yield f"Test of {test['test']}", decision, str(test["meaning"])
