"""What a number about a circuit is true under: an ablation, an objective, a kind of graph and a set of prompts.

Scores and circuits carry the setting that they were found under (`.setting`); whatever takes one judges it under that,
unless it is told otherwise, and says so in its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.objectives import Objective, ObjectiveFunction, get_objective, names

if TYPE_CHECKING:
    from interp.tasks.task import Task


@dataclass(frozen=True)
class Setting:
    """An ablation, an objective, a graph's key-value targets (`head` or `group`) and prompts; None: not known.

    `objective` is the function itself, or its name: a file holds no more of a function of your own. `task` is the
    sha256 digest of the prompts (`Task.to_dict`).
    """

    ablation: str | None = None
    objective: str | Objective | None = None
    kv: str | None = None
    task: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """As JSON holds it; of the objective, its name."""
        objective = None if self.objective is None else str(self.objective)
        return {"ablation": self.ablation, "objective": objective, "kv": self.kv, "task": self.task}

    def __str__(self) -> str:
        return f"{self.objective or 'unknown objective'} under {self.ablation or 'unknown'} ablation"


@dataclass(frozen=True)
class Judged:
    """The ablation and the objective that something is judged under."""

    ablation: str
    objective: Objective

    def on(self, task: Task, kv: str | None = None) -> Setting:
        """The whole setting, as results name it."""
        return Setting(self.ablation, self.objective.name, kv, task.to_dict()["sha256"])


def judged_under(
    circuit: Any,
    task: Task,
    ablation: str | None = None,
    objective: str | Objective | ObjectiveFunction | None = None,
) -> Judged:
    """What a circuit (or scores, or a bare mask) is judged under: what is asked for, or else its own setting.

    What knows of no setting is judged under `patch` and the task's objective. Raises `InputError` where a circuit
    was found under an objective that its file could only name, or that the task's prompts do not allow.
    """
    own = getattr(circuit, "setting", None)
    found_by = getattr(own, "objective", None)
    if ablation is None:
        ablation = getattr(own, "ablation", None) or "patch"
    if objective is None and found_by is not None:
        objective = task.with_objective(_known(found_by, task)).objective  # which refuses what its prompts do not allow
    if objective is None:
        objective = task.objective
    return Judged(ablation, get_objective(objective))


def _known(objective: str | Objective, task: Task) -> str | Objective:
    """An objective by name, where the name is of one that is built in, or the task's own."""
    if not isinstance(objective, str) or objective in names():
        return objective
    if str(task.objective) == objective:
        return task.objective
    raise InputError(
        f"the circuit was found under the objective {objective!r}, a function of which its file holds the name alone; "
        "give objective=, that function or another one, or a task with it"
    )
