"""What a number about a circuit is true under, as a record: an ablation, an objective, a kind of graph, prompts.

Scores and circuits carry the conditions that they were found under (`.setting`); whatever takes one judges it under
these, unless it is told otherwise, and says so in its result. A live `interp.setting.Setting` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from interp import theme
from interp.errors import InputError
from interp.keeping import kept
from interp.kernels.constants import FittedConstants
from interp.objectives import Objective, names
from interp.tasks.task import Task


@kept
@dataclass(frozen=True)
class Conditions:
    """An ablation, an objective, a graph's key-value targets (`head` or `group`) and prompts; None: not known.

    `objective` is the function itself, or its name: a file holds no more of a function of your own. `task` is the
    sha256 digest of the prompts (`Task.to_dict`). Of features: the digests of their dictionaries, and what becomes of
    these dictionaries' errors (`interp.dictionaries.sets`). Of `optimal` ablation: its constants, or their digest.

    `model`, `task_name` and `method` (which found what is judged) are names, for titles; what they are does not count
    where conditions are compared.
    """

    ablation: str | None = None
    objective: str | Objective | None = None
    kv: str | None = None
    task: str | None = None
    dictionaries: tuple[str, ...] | None = None
    errors: str | None = None
    constants: str | FittedConstants | None = None
    model: str = field(default="", compare=False)
    task_name: str = field(default="", compare=False)
    method: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; of the objective, its name."""
        objective = None if self.objective is None else str(self.objective)
        found = {"ablation": self.ablation, "objective": objective, "kv": self.kv, "task": self.task}
        if self.constants is not None:
            found["constants"] = self.constants if isinstance(self.constants, str) else self.constants.digest
        if self.dictionaries is None:
            return found
        return {**found, "dictionaries": self.dictionaries, "errors": self.errors}

    def in_files(self) -> dict[str, Any]:
        """`to_dict` and the names, for results that are read again."""
        return {**self.to_dict(), "model": self.model, "task_name": self.task_name, "method": self.method}

    def title(self, *what: str) -> str:
        """Model, task, method and what is shown of them, as the title of a picture."""
        return theme.named(self.model, self.task_name, self.method, *what)

    def __str__(self) -> str:
        errors = "" if self.errors is None else f", errors {self.errors}"
        return f"{self.objective or 'unknown objective'} under {self.ablation or 'unknown'} ablation{errors}"


def titled(conditions: Conditions | None, *what: str) -> str:
    """The title of a picture of what is shown under conditions that may not be known."""
    return (conditions or Conditions()).title(*what)


def conditions_of(circuit: Any) -> Conditions:
    """What a circuit or scores were found under; a bare mask knows of nothing."""
    found = getattr(circuit, "setting", None)
    return found if isinstance(found, Conditions) else Conditions()


def constants_of(circuit: Any) -> FittedConstants | None:
    """The constants that a circuit was found under, if it was found under `optimal` ablation.

    Raises `InputError` where a file holds no more than their digest.
    """
    found = conditions_of(circuit).constants
    if isinstance(found, str):
        raise InputError(
            "the circuit was found under constants of which its file holds the digest alone; give constants=, or "
            "ablation='optimal' to fit them to these prompts"
        )
    return found


def objective_of(circuit: Any, task: Task) -> str | Objective | None:
    """The objective that a circuit was found under, for a task's prompts; None: it knows of none.

    Raises `InputError` where its file could only name it, and where the prompts do not allow it.
    """
    found = conditions_of(circuit).objective
    if found is None:
        return None
    return task.with_objective(_known(found, task)).objective


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
