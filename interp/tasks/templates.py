"""Which wording of a built-in task a prompt has, so that wordings can be looked at one by one."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from interp.tasks.builtin import agreement, capitals, greater_than, ioi, pronoun
from interp.tasks.task import Task

_TEMPLATES: dict[str, Sequence[str]] = {
    "ioi": ioi.TEMPLATES,
    "greater_than": greater_than.TEMPLATES,
    "agreement": [f"{opening} {{rest}}" for opening in agreement.OPENINGS],
    "pronoun": pronoun.TEMPLATES,
    "capitals": capitals.TEMPLATES,
}


def by_template(task: Task) -> dict[str, list[int]]:
    """Numbers of the prompts that have each template, in the order of the templates.

    Knows the built-in tasks that have templates, and those that `ioi` was given; empty for other tasks. A prompt that
    fits none (of a task of your own with such a name) is in no group.

    >>> from interp import tasks
    >>> groups = by_template(tasks.ioi(n=40))
    >>> sorted(number for group in groups.values() for number in group) == list(range(40))
    True
    """
    templates = task.parameters.get("templates") or _TEMPLATES.get(task.name, ())
    patterns = {template: re.compile(_pattern(template)) for template in templates}
    groups: dict[str, list[int]] = {}
    for number, example in enumerate(task.examples):
        if isinstance(example.clean, str):
            fits = (template for template, pattern in patterns.items() if pattern.fullmatch(example.clean))
            if (template := next(fits, None)) is not None:
                groups.setdefault(template, []).append(number)
    return {template: groups[template] for template in patterns if template in groups}


def _pattern(template: str) -> str:
    """A regular expression with something for each field."""
    parts = string.Formatter().parse(template)
    return "".join(re.escape(text) + ("" if field is None else ".+") for text, field, _, _ in parts)
