"""Tasks: behaviours as prompts with counterfactuals. Eight are built in, and `Task` makes others.

`TASKS.register(name, function)` or an entry point `faithful_circuits.tasks` gives a task of your own a name.
`truth` makes questions with a true and a false answer in several forms, `statements` such sentences; they have no name.

>>> from interp import tasks
>>> tasks.names()
['ioi', 'greater_than', 'agreement', 'pronoun', 'capitals', 'induction', 'arithmetic', 'multiple_choice']
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from interp.plugins import Registry
from interp.tasks.builtin.agreement import ABOUT as AGREEMENT
from interp.tasks.builtin.agreement import agreement
from interp.tasks.builtin.arithmetic import ABOUT as ARITHMETIC
from interp.tasks.builtin.arithmetic import arithmetic
from interp.tasks.builtin.capitals import ABOUT as CAPITALS
from interp.tasks.builtin.capitals import capitals
from interp.tasks.builtin.greater_than import ABOUT as GREATER_THAN
from interp.tasks.builtin.greater_than import greater_than
from interp.tasks.builtin.induction import ABOUT as INDUCTION
from interp.tasks.builtin.induction import induction
from interp.tasks.builtin.ioi import ABOUT as IOI
from interp.tasks.builtin.ioi import ioi
from interp.tasks.builtin.multiple_choice import ABOUT as MULTIPLE_CHOICE
from interp.tasks.builtin.multiple_choice import multiple_choice
from interp.tasks.builtin.pronoun import ABOUT as PRONOUN
from interp.tasks.builtin.pronoun import pronoun
from interp.tasks.check import TaskCheck
from interp.tasks.facts.questions import Statement, statements, truth
from interp.tasks.generate import About
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task

__all__ = [
    "TASKS",
    "Prompts",
    "Statement",
    "Task",
    "TaskCheck",
    "agreement",
    "arithmetic",
    "capitals",
    "describe",
    "get",
    "greater_than",
    "induction",
    "ioi",
    "multiple_choice",
    "names",
    "offered",
    "pronoun",
    "statements",
    "truth",
]

TASKS: Registry[Task] = Registry("task", Task, "faithful_circuits.tasks")
_ABOUT: dict[str, About] = {}
for _about, _builder in (
    (IOI, ioi),
    (GREATER_THAN, greater_than),
    (AGREEMENT, agreement),
    (PRONOUN, pronoun),
    (CAPITALS, capitals),
    (INDUCTION, induction),
    (ARITHMETIC, arithmetic),
    (MULTIPLE_CHOICE, multiple_choice),
):
    TASKS.register(_about.name, _builder)
    _ABOUT[_about.name] = _about


def names() -> list[str]:
    """Names of the tasks: the built-in ones, and those that were registered or installed.

    >>> len(names())
    8
    """
    return TASKS.names()


def named(name: str) -> str:
    """A task's name as the registry has it: `greater-than` is as good as `greater_than`."""
    plain = str(name).replace("-", "_")
    return plain if plain in TASKS.names() else str(name)


def get(name: str, **settings: Any) -> Task:
    """The task of that name (`greater-than` is as good as `greater_than`), or of `module:function`.

    `settings` are those of its function: `n`, `seed`, `model` and what else it takes. Raises `InputError` for an
    unknown name, and for settings that it does not take.

    >>> len(get("ioi", n=4))
    4
    """
    return TASKS.make(named(name), settings)


def offered(name: str, **settings: Any) -> Task:
    """As `get`, but what the task's function does not take of `settings` is left out.

    >>> len(offered("ioi", n=4, size=3))
    4
    """
    taken = TASKS.settings(named(name))
    return get(name, **{key: value for key, value in settings.items() if taken is None or key in taken})


def describe() -> pd.DataFrame:
    """The tasks as a table with the columns name, description, objective (of others' tasks: not known).

    >>> describe().columns.tolist()
    ['name', 'description', 'objective']
    """
    return pd.DataFrame([asdict(_ABOUT[name] if name in _ABOUT else _of_others(name)) for name in names()])


def _of_others(name: str) -> About:
    """What a task of others says of itself: the first line of its documentation."""
    return About(name, (TASKS.maker(name).__doc__ or "").strip().partition("\n")[0], "")
