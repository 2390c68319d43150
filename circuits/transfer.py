"""How faithful a circuit is where it was not found: other ablations, wordings, objectives and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from circuits.judged import beside
from interp import numbers, theme
from interp.conditions import Conditions, conditions_of
from interp.errors import InputError, choose
from interp.interval import Estimate, Interval
from interp.kernels.ablation import ABLATIONS, KNOWN
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.objectives import Objective, get_objective
from interp.objectives import names as objective_names
from interp.result import Result
from interp.running import door
from interp.tasks.resampled import resampled
from interp.tasks.task import Task
from interp.tasks.templates import by_template
from metrics.circuit.controls import random_controls
from metrics.circuit.evaluate import GrainKeywords, JudgeKeywords, faithfulness_in, judging, together

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

RESAMPLED = "resampled"
OBJECTIVES = ("logit-difference", "probability-difference", "log-probability", "kl")
_LEAST_PROMPTS = 4  # of a template that gets a row
_ENDS = ("faithfulness", "low", "high"), ("random", "random_low", "random_high")


@dataclass(frozen=True, repr=False)
class Robustness(Result):
    """Faithfulness of one circuit under other conditions, one varied at a time.

    `frame` has the columns varied (`as found`, `ablation`, `template`, `objective`, `prompts`), setting, n,
    faithfulness, low, high, random, random_low, random_high, model, empty, circuit (mean objectives). `setting` is the
    base condition.
    """

    frame: pd.DataFrame
    setting: Conditions

    def to_frame(self) -> pd.DataFrame:
        return self.frame.copy()

    def fits(self) -> None:
        super().fits()
        _ = self._points

    @property
    def _points(self) -> list[list[Estimate]]:
        """Of the circuit, and of random ones, by condition."""
        return [[Estimate(*row) for row in self.frame[list(columns)].to_numpy(float).tolist()] for columns in _ENDS]

    def headline(self) -> str:
        base, values = self.frame.iloc[0], self.frame["faithfulness"]
        return (
            f"faithfulness {base['faithfulness']:z.3f} as found ({self.setting}), from {values.min():z.3f} to "
            f"{values.max():z.3f} under {len(values) - 1} other conditions"
        )

    def figure(self) -> Figure:
        """Faithfulness with intervals by condition, beside random circuits and the model's 1."""
        import plotly.graph_objects as go

        figure, frame = go.Figure(), self.frame
        names = [theme.label(f"{row.varied}: {row.setting}") for row in frame.itertuples()]
        for name, points, colour in zip(
            ("circuit", "random circuits"), self._points, (theme.OWN, theme.CONTROL), strict=True
        ):
            figure.add_scatter(
                x=[one.value for one in points],
                y=names,
                mode="markers",
                name=name,
                marker={"color": colour},
                error_x=theme.error_bars(points),
            )
        theme.target_line(figure, vertical=True)
        figure.update_xaxes(title="faithfulness")
        figure.update_yaxes(autorange="reversed", title="condition")
        return theme.styled(
            figure, self.setting.title("faithfulness under other conditions"), f"as found: {self.setting}"
        )


class RobustnessKeywords(GrainKeywords, JudgeKeywords, total=False):
    """The keywords of `robustness`."""


@numbers.checked(n_random=numbers.FROM_ZERO)
@door
def robustness(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    ablations: Sequence[str] = (*ABLATIONS, RESAMPLED),
    objectives: Sequence[str] = OBJECTIVES,
    others: Mapping[str, Task] | None = None,
    n_random: int = 3,
    **keywords: Unpack[RobustnessKeywords],
) -> Robustness:
    """Faithfulness of a circuit under other ablations, wordings, objectives and prompts.

    One condition is changed at a time. Faithfulness is measured against the empty circuit under the same condition, and
    random circuits (paths from input to logits of as many edges, or nodes of the same layers) stand beside it. Wordings
    and objectives come from the runs of the base condition; each further ablation and task costs 1 + `n_random`
    circuits.

    Args:
        model: what `interp.load_model` returns.
        task: prompts; use others than the circuit was chosen on. Built-in tasks are also split by template
            (those with at least 4 prompts): the circuit was chosen on a mixture of them all.
        circuit: a `Circuit`, a bool mask `[source, target]`, or nodes as in `metrics.evaluate`.
        ablations: `patch`, `zero`, `mean`, `mean-positional`; `resampled` is `patch` with the corrupted prompts
            exchanged among prompts of equal length (`interp.tasks.resampled`).
        objectives: names; those that the task's prompts do not allow are left out.
        others: further tasks by name, such as prompts of other wordings or lengths.
        n_random: number of random circuits; 0 for none.
        ablation, objective: of the base condition; None: the circuit's own, or for a mask `patch` and the task's; the
            task's objective too where its prompts do not allow the circuit's.
        level, spans, dictionaries, errors: of a bare tensor of nodes, as in `metrics.evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws random circuits.
        batch_size, memory, quiet: as in `metrics.evaluate`.

    Returns:
        `Robustness`: `to_frame()`, `figure()`, `save(path)`.

    Raises:
        InputError: unknown names, a mask of another shape, a negative `n_random`.
    """
    check_keywords("robustness", keywords, RobustnessKeywords)
    if hasattr(circuit, "prompts") and not hasattr(task, "prompts"):
        raise InputError(
            "robustness(model, circuit, task) is called in the order robustness(model, task, circuit) now: the task "
            "comes before the circuit everywhere"
        )
    for name in ablations:
        choose("ablations", name, (*KNOWN, RESAMPLED))
    goal = keywords.get("objective")
    setting, mask = judging(
        model, task, circuit, {**keywords, "objective": _instead(circuit, task) if goal is None else goal}
    )
    interval, own = Interval.of(keywords), setting.goal
    seed = interval.seed
    masks = together([mask, *random_controls(setting, [mask], n_random, seed)])
    wanted = [one for one in map(get_objective, objectives) if one.name != own.name and _allowed(task, one)]

    def rows() -> Iterator[dict[str, Any]]:
        first, *further = setting.measure_all(masks, (own, *wanted))
        yield _row("as found", f"{setting.ablation}, {own.name}", first, interval)
        for name in ablations:
            if name == RESAMPLED:
                exchanged = setting.under(ablation="patch").on(resampled(task, model, seed))
                yield _row("ablation", name, exchanged.measure(masks), interval)
            elif name != setting.ablation:
                yield _row("ablation", name, setting.under(ablation=name).measure(masks), interval)
        for template, places in by_template(task).items():
            if len(places) >= _LEAST_PROMPTS:
                yield _row("template", template, _of_prompts(first, places), interval)
        for objective, values in zip(wanted, further, strict=True):
            yield _row("objective", objective.name, values, interval)
        for name, prompts in (others or {}).items():
            yield _row("prompts", name, setting.on(prompts).measure(masks), interval)

    return Robustness(pd.DataFrame(list(rows())), setting.conditions)


def _instead(circuit: Any, task: Task) -> Any:
    """The task's objective where its prompts do not allow the one that a circuit was found under."""
    found_by: Any = conditions_of(circuit).objective
    built_in = isinstance(found_by, Objective) or found_by in objective_names()
    return task.objective if built_in and not _allowed(task, get_objective(found_by)) else None


def _allowed(task: Task, objective: Any) -> bool:
    return not objective.needs_incorrect or all(example.incorrect for example in task.examples)


def _of_prompts(values: CircuitValues, numbers: Sequence[int]) -> CircuitValues:
    chosen = list(numbers)
    return CircuitValues(values.clean[chosen], values.empty[chosen], values.circuits[:, chosen])


def _row(varied: str, setting: str, values: CircuitValues, interval: Interval) -> dict[str, Any]:
    own, *random = faithfulness_in(beside(values), interval)
    unknown = Estimate(np.nan, np.nan, np.nan)
    return {
        "varied": varied,
        "setting": setting,
        "n": len(values.clean),
        **dict(zip(_ENDS[0], (own.value, own.low, own.high), strict=True)),
        **(random[0] if random else unknown).columns("random"),
        "model": float(values.clean.mean()),
        "empty": float(values.empty.mean()),
        "circuit": float(values.circuits[0].mean()),
    }
