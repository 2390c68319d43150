"""From arguments to models and tasks; names are checked before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.cli.output import CommandError, Notes

if TYPE_CHECKING:
    from attribution.edges.method import Method
    from interp.tasks import Task

DEFAULT_PROMPTS = 64


def parse_size(option: str, text: str | None) -> int | float | None:
    """`200` is a number of edges (nodes); `0.02` and `2%` are shares of all of them."""
    if text is None:
        return None
    try:
        if text.strip().isdigit():
            return int(text)
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        what = option.removeprefix("--")
        raise CommandError(f"{option} {text!r} must be a number of {what} such as 200, or a share such as 0.02 or 2%")
    return share


def parse_positions(text: str | None) -> str | list[int] | None:
    """`all`, `spans` (those of the task, for edges), or positions separated by commas."""
    if text is None or text.strip() in ("all", "spans"):
        return text and text.strip()
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise CommandError(f"--positions {text!r} must be all, or positions such as 3,4,5") from None


def asked_of_nodes(level: str, dictionaries: Path | None, **given: Any) -> Any:
    """What was asked of nodes, which circuits of edges are not told of; dictionaries from their folder."""
    from interp.dictionaries import Dictionary

    given["dictionaries"] = None if dictionaries is None else Dictionary.load_all(dictionaries)
    asked = {name: value for name, value in given.items() if value is not None}
    return asked if level == "edge" else {"level": level, **asked}


def check_names(*, task: str | None = None, ablation: str | None = None, objective: str | None = None) -> None:
    """Refuse unknown names before any work."""
    from interp import tasks
    from interp.errors import choose
    from interp.kernels.ablation import KNOWN
    from interp.objectives import get_objective

    if task is not None:
        tasks.TASKS.maker(tasks.named(task))
    if ablation is not None:
        choose("ablation", ablation, KNOWN)
    if objective is not None:
        get_objective(objective)


def check_ablation(method: Method, ablation: str) -> None:
    """Refuse a method that has no meaning under an ablation before any work, as far as its class says so."""
    if ablation not in method.ablations:
        raise CommandError(
            f"method={method.name!r} follows a path between two prompts, which ablation={ablation!r} does not have; "
            "use ablation='patch', or a method such as 'eap', 'mask-ig' or 'exact'"
        )


def read_task(path: Path, n: int | None, objective: str | None = None) -> Task:
    """The prompts of a .csv or .json file, the first `n` of them if a number is given."""
    from interp.tasks import Task

    readers = {".csv": Task.from_csv, ".json": Task.from_json}
    if path.suffix.lower() not in readers:
        raise CommandError(f"--task-file {str(path)!r} must be a .csv or .json file")
    settings = {} if objective is None else {"objective": objective}
    task = readers[path.suffix.lower()](path, **settings)
    if n is not None and n > len(task):
        raise CommandError(f"-n {n} is more than the {len(task)} prompts that {str(path)!r} holds")
    return task if n is None else task.select(range(n))


def built_in(name: str, n: int, seed: int, model: Any, parameters: Mapping[str, Any] | None = None) -> Task:
    """A task by name, or `module:function`, with those settings that its function takes."""
    from interp import tasks

    return tasks.offered(name, **{**(parameters or {}), "n": n, "seed": seed, "model": model})


def load(source: str, device: str | None, dtype: str | None, notes: Notes) -> Any:
    """The model, with a note: reading one takes a while."""
    from interp.models import load_model

    notes(f"loading {source}")
    return load_model(source, device=device, dtype=dtype)
