"""Tasks: behaviours as prompts with counterfactuals. Eight are built in, and `Task` makes others.

>>> from interp import tasks
>>> tasks.names()
['ioi', 'greater_than', 'agreement', 'pronoun', 'capitals', 'induction', 'arithmetic', 'multiple_choice']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd

from interp.errors import unknown
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
from interp.tasks.generate import About
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task

__all__ = [
    "Prompts",
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
    "pronoun",
]

_BUILDERS: dict[str, tuple[About, Callable[..., Task]]] = {
    about.name: (about, builder)
    for about, builder in (
        (IOI, ioi),
        (GREATER_THAN, greater_than),
        (AGREEMENT, agreement),
        (PRONOUN, pronoun),
        (CAPITALS, capitals),
        (INDUCTION, induction),
        (ARITHMETIC, arithmetic),
        (MULTIPLE_CHOICE, multiple_choice),
    )
}


def names() -> list[str]:
    """Names of the built-in tasks.

    >>> len(names())
    8
    """
    return list(_BUILDERS)


def get(name: str, **settings: Any) -> Task:
    """The built-in task of that name (`greater-than` is as good as `greater_than`).

    `settings` are those of its function: `n`, `seed`, `model` and what else it takes. Raises `InputError` for an
    unknown name.

    >>> len(get("ioi", n=4))
    4
    """
    found = _BUILDERS.get(str(name).replace("-", "_"))
    if found is None:
        raise unknown("task", name, _BUILDERS)
    return found[1](**settings)


def describe() -> pd.DataFrame:
    """The built-in tasks as a table with the columns name, description, objective.

    >>> describe().columns.tolist()
    ['name', 'description', 'objective']
    """
    return pd.DataFrame([asdict(about) for about, _ in _BUILDERS.values()])
