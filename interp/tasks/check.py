"""Whether a model does a task at all: without behaviour there is nothing to explain."""

from __future__ import annotations

import html
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from scipy.special import stdtrit
from torch import Tensor

from interp import theme
from interp.errors import InputError
from interp.kernels.answers import answer_logits
from interp.objectives import get_objective
from interp.tasks.notes import notes
from interp.tasks.prompts import Prompts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Checkable(Protocol):
    """What the check asks of a task."""

    name: str
    objective: Any

    def prompts(self, model: Any) -> Prompts:
        """The tokenised prompts."""


MIN_ACCURACY = 0.6
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class TaskCheck:
    """How well a model does on a task, on clean and on corrupted prompts (against the clean answers).

    Attributes:
        task: its name.
        objective: the name of its objective.
        n: number of prompts.
        clean, corrupted: the mean objective.
        difference_low: lower end of the one-sided 95 % interval (Student's t) of the mean difference.
        accuracy_clean, accuracy_corrupted: share of prompts with the best correct logit above the best
            incorrect one.
        n_higher_clean: number of prompts whose objective is higher on the clean prompt.
        problems: why there is no behaviour to explain; empty if there is one.
        notes: what was made of answers of several tokens, of unequal lengths and of missing corrupted prompts (their
            figures are then the clean ones'). Such a task without incorrect answers is not judged by its accuracy.
        model: its name.
    """

    task: str
    objective: str
    n: int
    clean: float
    corrupted: float
    difference_low: float
    accuracy_clean: float
    accuracy_corrupted: float
    n_higher_clean: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    model: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a behaviour to explain."""
        return not self.problems

    def figure(self) -> Figure:
        """The mean objective and the accuracy on clean and on corrupted prompts, side by side."""
        from plotly.subplots import make_subplots

        picture = make_subplots(
            cols=2, subplot_titles=[theme.label(self.objective), "accuracy"], horizontal_spacing=0.15
        )
        pairs = ((self.clean, self.corrupted), (self.accuracy_clean, self.accuracy_corrupted))
        for column, values in enumerate(pairs, 1):
            picture.add_bar(
                x=["clean", "corrupted"], y=values, marker_color=[theme.OWN, theme.CONTROL], showlegend=False,
                row=1, col=column,
            )  # fmt: skip
        picture.update_yaxes(title="mean over prompts", col=1)
        picture.update_yaxes(title="share of prompts", range=[0, 1], col=2)
        told = f"{self.n_higher_clean} of {self.n} prompts higher when clean"
        picture.update_xaxes(title="prompts")
        title = theme.named(self.model, self.task, None if self.ok else "no behaviour to explain")
        return theme.styled(picture, title, told)

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self._rows()]
        return f"TaskCheck of {self.task!r} on {self.n} prompts\n  " + "\n  ".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._rows()
        )
        return f"<table><caption>Check of {html.escape(self.task)}, {self.n} prompts</caption>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        return [
            (self.objective, f"clean {self.clean:.3f}, corrupted {self.corrupted:.3f}"),
            ("accuracy", f"clean {self.accuracy_clean:.0%}, corrupted {self.accuracy_corrupted:.0%}"),
            ("higher when clean", f"{self.n_higher_clean} of {self.n} prompts"),
            ("ok", "yes" if self.ok else f"no: {'; '.join(self.problems)}"),
            *(("note", note) for note in self.notes),
        ]


def check_task(task: Checkable, model: Any) -> TaskCheck:
    """Run a model on a task's clean and corrupted prompts. Cost: two forward passes, no backward one.

    Warns (`UserWarning`) if the clean accuracy is below 0.6, or if the mean objective on clean prompts does not
    lie clearly (one-sided paired t-test at 5 %) above that on corrupted ones. Raises `InputError` if the
    objective is not a finite number.
    """
    prompts, objective, accuracy = task.prompts(model), get_objective(task.objective), get_objective("accuracy")
    with torch.no_grad():
        clean_logits = answer_logits(model, prompts)
        corrupted_logits = answer_logits(model, prompts.turned()) if prompts.paired else clean_logits
        clean = objective(clean_logits, prompts, clean_logits).double()
        corrupted = objective(corrupted_logits, prompts, clean_logits).double()
        accuracies = [float(accuracy(logits, prompts).mean()) for logits in (clean_logits, corrupted_logits)]
    for name, values in (("clean", clean), ("corrupted", corrupted)):
        if not values.isfinite().all():
            index = int((~values.isfinite()).int().argmax())
            raise InputError(
                f"the objective {objective.name!r} of the {name} prompt {index} is {float(values[index])}; it must be "
                "a finite number: check the model's weights and dtype"
            )
    low = lower_bound(clean - corrupted)
    problems = []
    judged = prompts.answers is None or bool(prompts.incorrect_mask.any())  # nobody decodes a whole passage
    if judged and accuracies[0] < MIN_ACCURACY:
        problems.append(f"only {accuracies[0]:.0%} of the clean prompts are answered correctly")
    if low <= 0 and prompts.paired:
        problems.append(
            f"the mean {objective.name} on clean prompts ({float(clean.mean()):.3f}) is not clearly above that on "
            f"corrupted ones ({float(corrupted.mean()):.3f})"
        )
    if problems:
        warnings.warn(
            f"the task {task.name!r} shows no behaviour to explain in this model: {'; '.join(problems)}",
            UserWarning,
            stacklevel=4,
        )
    return TaskCheck(
        task=task.name,
        objective=objective.name,
        n=len(prompts),
        clean=float(clean.mean()),
        corrupted=float(corrupted.mean()),
        difference_low=low,
        accuracy_clean=accuracies[0],
        accuracy_corrupted=accuracies[1],
        n_higher_clean=int((clean > corrupted).sum()),
        problems=tuple(problems),
        notes=notes(prompts),
        model=str(getattr(getattr(model, "cfg", None), "model_name", None) or ""),
    )


def lower_bound(differences: Tensor) -> float:
    """Lower end of the one-sided 95 % Student interval of the mean of `differences` [n].

    One difference has no spread to judge by: it is returned as it is.

    >>> round(lower_bound(torch.tensor([1.0, 2.0, 3.0])), 3)
    0.314
    """
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return mean
    return mean - float(stdtrit(n - 1, 1 - SIGNIFICANCE)) * float(differences.std()) / math.sqrt(n)
