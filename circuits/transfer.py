"""How faithful a circuit is where it was not found: other ablations, wordings, objectives and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from interp import numbers
from interp.errors import choose
from interp.kernels.ablation import ABLATIONS, KNOWN
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective, get_objective
from interp.objectives import names as objective_names
from interp.running import door
from interp.setting import judged_under
from interp.tasks.resampled import resampled
from interp.tasks.task import Task
from interp.tasks.templates import by_template
from metrics.circuit.evaluate import checked_circuit, faithfulness, measure_all
from metrics.circuit.samples import random_circuit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

RESAMPLED = "resampled"
OBJECTIVES = ("logit-difference", "probability-difference", "log-probability", "kl")
_LEAST_PROMPTS = 4  # of a template that gets a row


@dataclass(frozen=True, repr=False)
class Robustness:
    """Faithfulness of one circuit under other conditions, one varied at a time.

    `frame` has the columns varied (`as found`, `ablation`, `template`, `objective`, `prompts`), setting, n,
    faithfulness, low, high, random, random_low, random_high, model, empty, circuit (mean objectives).
    """

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def __repr__(self) -> str:
        return f"Robustness\n{self.frame.to_string(index=False, float_format=lambda v: f'{v:.3f}')}"

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(index=False, border=0, float_format="{:.3f}".format))

    def figure(self) -> Figure:
        """Faithfulness with intervals by condition, beside random circuits and the model's 1."""
        import plotly.graph_objects as go

        figure, frame = go.Figure(), self.frame
        names = [f"{row.varied}: {row.setting}" for row in frame.itertuples()]
        for name, value, low, high, colour in (
            ("circuit", "faithfulness", "low", "high", "#0072B2"),
            ("random circuits", "random", "random_low", "random_high", "#999999"),
        ):
            figure.add_scatter(
                x=frame[value],
                y=names,
                mode="markers",
                name=name,
                marker={"color": colour},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": frame[high] - frame[value],
                    "arrayminus": frame[value] - frame[low],
                },
            )
        figure.add_vline(x=1, line={"dash": "dot", "color": "#666666"})
        figure.update_xaxes(title="faithfulness")
        figure.update_yaxes(autorange="reversed")
        figure.update_layout(template="plotly_white")
        return figure


@numbers.checked()
@door
def robustness(
    model: Any,
    circuit: Any,
    task: Task,
    *,
    ablations: Sequence[str] = (*ABLATIONS, RESAMPLED),
    objectives: Sequence[str] = OBJECTIVES,
    others: Mapping[str, Task] | None = None,
    random: int = 3,
    ablation: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> Robustness:
    """Faithfulness of a circuit under other ablations, wordings, objectives and prompts.

    One condition is changed at a time. Faithfulness is measured against the empty circuit under the same condition, and
    random circuits of as many edges (paths from input to logits) stand beside it. Wordings and objectives come from the
    runs of the base condition; each further ablation and task costs 1 + `random` circuits.

    Args:
        model: what `interp.load_model` returns.
        circuit: a `Circuit`, or a bool mask `[source, target]`.
        task: prompts; use others than the circuit was chosen on. Built-in tasks are also split by template
            (those with at least 4 prompts): the circuit was chosen on a mixture of them all.
        ablations: `patch`, `zero`, `mean`, `mean-positional`; `resampled` is `patch` with the corrupted prompts
            exchanged among prompts of equal length (`interp.tasks.resampled`).
        objectives: names; those that the task's prompts do not allow are left out.
        others: further tasks by name, such as prompts of other wordings or lengths.
        random: number of random circuits; 0 for none.
        ablation: of the base condition; None: the circuit's own, or `patch` for a mask. The objective of the base
            condition is the circuit's own, or the task's for a mask and where its prompts do not allow the circuit's.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws random circuits.
        batch_size, memory, quiet: as in `metrics.evaluate`.

    Returns:
        `Robustness`: `frame`, `figure()`.

    Raises:
        InputError: unknown names, a mask of another shape, a negative `random`.
    """
    for name in ablations:
        choose("ablations", name, (*KNOWN, RESAMPLED))
    graph, mask = checked_circuit(model, circuit)
    judged = judged_under(circuit, task, ablation, _instead(circuit, task))
    base, own = judged.ablation, judged.objective
    masks = torch.stack([mask, *(random_circuit(graph, int(mask.sum()), seed + i) for i in range(random))])
    wanted = [one for one in map(get_objective, objectives) if one.name != own.name and _allowed(task, one)]
    estimated: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}

    def run(prompts: Task, under: str, goals: Sequence[Any] = (own,)) -> list[CircuitValues]:
        return measure_all(
            model, prompts, masks, under, objectives=goals, batch_size=batch_size, memory=memory, quiet=quiet
        )

    def rows() -> Iterator[dict[str, Any]]:
        first, *further = run(task, base, (own, *wanted))
        yield _row("as found", f"{base}, {own.name}", first, estimated)
        for name in ablations:
            if name == RESAMPLED:
                yield _row("ablation", name, run(resampled(task, model, seed), "patch")[0], estimated)
            elif name != base:
                yield _row("ablation", name, run(task, name)[0], estimated)
        for template, places in by_template(task).items():
            if len(places) >= _LEAST_PROMPTS:
                yield _row("template", template, _of_prompts(first, places), estimated)
        for objective, values in zip(wanted, further, strict=True):
            yield _row("objective", objective.name, values, estimated)
        for name, prompts in (others or {}).items():
            yield _row("prompts", name, run(prompts, base)[0], estimated)

    return Robustness(pd.DataFrame(list(rows())))


def _instead(circuit: Any, task: Task) -> Any:
    """The task's objective where its prompts do not allow the one that a circuit was found under."""
    found_by: Any = getattr(getattr(circuit, "setting", None), "objective", None)
    built_in = isinstance(found_by, Objective) or found_by in objective_names()
    return task.objective if built_in and not _allowed(task, get_objective(found_by)) else None


def _allowed(task: Task, objective: Any) -> bool:
    return not objective.needs_incorrect or all(example.incorrect for example in task.examples)


def _of_prompts(values: CircuitValues, numbers: Sequence[int]) -> CircuitValues:
    chosen = list(numbers)
    return CircuitValues(values.clean[chosen], values.empty[chosen], values.circuits[:, chosen])


def _row(varied: str, setting: str, values: CircuitValues, estimated: dict[str, Any]) -> dict[str, Any]:
    circuits = values.circuits[:1]
    if len(values.circuits) > 1:
        # the mean of the random circuits' objectives stands for them all: faithfulness is linear in it
        circuits = torch.cat((circuits, values.circuits[1:].mean(0, keepdim=True)))
    own, *random = faithfulness(CircuitValues(values.clean, values.empty, circuits), **estimated)
    beside = random[0] if random else None
    return {
        "varied": varied,
        "setting": setting,
        "n": len(values.clean),
        "faithfulness": own.value,
        "low": own.low,
        "high": own.high,
        "random": beside.value if beside else np.nan,
        "random_low": beside.low if beside else np.nan,
        "random_high": beside.high if beside else np.nan,
        "model": float(values.clean.mean()),
        "empty": float(values.empty.mean()),
        "circuit": float(values.circuits[0].mean()),
    }
