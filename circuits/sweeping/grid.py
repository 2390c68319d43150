"""What a sweep is asked to do: its file, read and checked before any model is loaded."""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from attribution.engines import ScoringKeywords, method_keywords
from circuits.find import FindKeywords
from circuits.levels import Asked
from interp import numbers, tasks
from interp.errors import InputError, choose
from interp.files import existing
from interp.keywords import chosen, names_of
from interp.models import check_dtype
from metrics.circuit import balance  # noqa: F401  (registers `balanced`)

# of `find_circuit`, beside its keywords; what the grid itself says, and what no file can hold, is left out
_SETTINGS = {
    "edges",
    "faithfulness",
    "selection",
    "stable",
    "tests",
    "scoring_share",
    "n_random",
    *names_of(FindKeywords),
}
SETTINGS = sorted(_SETTINGS - {"seed", "quiet", "dictionaries", "constants"})
SUFFIXES = (".csv", ".json")  # of files of prompts


@dataclass(frozen=True)
class Cell:
    """One circuit that is to be found.

    Attributes:
        model: as `interp.load_model` takes it by name.
        task: what the table calls the task; `prompts` says what it is: `task` or `file`, `n`, settings.
        method: what the table calls the method; `settings` are those of `find_circuit`, its `method` among them.
        seed: of prompts, split, bootstrap and random circuits.
        dtype, device: of the model.
    """

    model: str
    task: str
    method: str
    seed: int
    prompts: Mapping[str, Any]
    settings: Mapping[str, Any]
    dtype: str | None
    device: str | None

    def __str__(self) -> str:
        return f"{self.method} on {self.task} in {self.model}, seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """Models x tasks x methods x seeds.

    Attributes:
        models: names, as `interp.load_model` takes them.
        tasks: by the name that the table uses: `task` (a name, or `module:function`) or `file` (.csv or .json), `n`,
            and settings of the task's function.
        methods: by the name that the table uses: `method`, and settings of `find_circuit` for this method alone.
        seeds: of prompts, split, bootstrap and random circuits.
        n: prompts of tasks that do not say themselves; files: all.
        find: settings of `find_circuit` for all.
        dtype, device: of the models.

    Raises `InputError` for what is unknown, empty or said twice.
    """

    models: tuple[str, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0,)
    n: int = 64
    find: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        numbers.whole("n", self.n, numbers.Limits(4))
        check_dtype(self.dtype)
        for name in ("models", "tasks", "methods", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name} of a sweep names nothing; give at least one")
        for seed in self.seeds:
            numbers.whole("seeds", seed, numbers.SEED)
        for name, prompts in self.tasks.items():
            _check_task(name, prompts)
        for label in self.methods:
            self._check_method(label)

    @classmethod
    def of(cls, given: Grid | Mapping[str, Any] | str | os.PathLike[str]) -> Grid:
        """A grid from a file (.yaml, .json, .toml) or what one holds. Raises `InputError` for what is no grid."""
        if isinstance(given, Grid):
            return given
        where = "grid" if isinstance(given, Mapping) else f"the sweep {os.fspath(given)!r}"
        content = given if isinstance(given, Mapping) else _read(given)
        if not isinstance(content, Mapping):
            raise InputError(f"{where} must say models, tasks and methods; it holds a {type(content).__name__}")
        for name in content:
            choose(f"entry of {where}", str(name), [one.name for one in fields(cls)])
        for name in ("models", "tasks", "methods"):
            if name not in content:
                raise InputError(f"{where} says no {name}; give models, tasks and methods")
        return cls(**{
            **content,
            "models": _unique("models", [str(one) for one in _listed(content["models"])]),
            "tasks": _labelled("tasks", content["tasks"], ("task", "file")),
            "methods": _labelled("methods", content["methods"], ("method",)),
            "seeds": _unique("seeds", _listed(content.get("seeds", (0,)))),
            "find": _mapping("find", content.get("find") or {}),
        })  # fmt: skip

    def cells(self) -> Iterator[Cell]:
        """Every circuit; those of one model and task follow on each other."""
        for model, (task, prompts), seed, label in itertools.product(
            self.models, self.tasks.items(), self.seeds, self.methods
        ):
            own = {"n": self.n, **prompts} if "task" in prompts else prompts
            yield Cell(model, task, label, seed, own, self._settings(label), self.dtype, self.device)

    def _settings(self, label: str) -> dict[str, Any]:
        return {**self.find, "method": label, **self.methods[label]}

    def _check_method(self, label: str) -> None:
        """Refuse what `find_circuit` would refuse of a method and its settings, as far as that needs no model."""
        settings = self._settings(label)
        method = settings.pop("method")
        own = method_keywords("find_circuit", method, {k: v for k, v in settings.items() if k not in SETTINGS})
        asked = Asked.of(settings, {"edges": settings.get("edges")})
        asked.method(method, {**chosen(settings, ScoringKeywords), **own})
        asked.selection(settings.get("selection", "balanced"))


def _check_task(name: str, prompts: Mapping[str, Any]) -> None:
    if ("task" in prompts) == ("file" in prompts):
        raise InputError(f"tasks[{name!r}] must say either task (a name) or file (prompts in .csv or .json)")
    if "n" in prompts:
        numbers.whole(f"n of tasks[{name!r}]", prompts["n"], numbers.Limits(4))
    if "task" in prompts:
        tasks.TASKS.maker(tasks.named(prompts["task"]))
        return
    for key in prompts:
        choose(f"entry of tasks[{name!r}]", key, ("file", "n"))
    path, where = existing(prompts["file"], "file of prompts")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{where} must be a .csv or .json file")


def _read(path: str | os.PathLike[str]) -> Any:
    file, where = existing(path, "sweep")
    text = file.read_text(encoding="utf-8-sig")
    readers = {".yaml": yaml.safe_load, ".yml": yaml.safe_load, ".json": json.loads, ".toml": tomllib.loads}
    reader = readers[choose("ending of a sweep's file", Path(file).suffix.lower(), readers)]
    try:
        return reader(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{where} cannot be read: {' '.join(str(error).split())}") from None


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _unique(what: str, given: list[Any]) -> tuple[Any, ...]:
    for one in given:
        if given.count(one) > 1:
            raise InputError(f"{what} names {one!r} twice")
    return tuple(given)


def _mapping(what: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{what} must be names with values; got {given!r}")
    return given


def _labelled(what: str, given: Any, named_by: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """A list of names and of settings, or settings by label, as settings by label."""
    if isinstance(given, Mapping) and not any(name in given for name in named_by):
        return {
            str(label): _named(str(label), _mapping(f"{what}[{label!r}]", own or {}), named_by)
            for label, own in given.items()
        }
    found = [{named_by[0]: one} if isinstance(one, str) else dict(_mapping(what, one)) for one in _listed(given)]
    labels = _unique(what, [_label(one, named_by) for one in found])
    return dict(zip(labels, found, strict=True))


def _named(label: str, settings: Mapping[str, Any], named_by: tuple[str, ...]) -> dict[str, Any]:
    """Settings under a label of the user's own, which is the name itself where they say none."""
    return dict(settings) if any(name in settings for name in named_by) else {named_by[0]: label, **settings}


def _label(settings: Mapping[str, Any], named_by: tuple[str, ...]) -> str:
    """What a table calls it: `eap-ig, steps=20`."""
    name = next((str(settings[key]) for key in named_by if key in settings), "")
    return ", ".join([name, *(f"{key}={value}" for key, value in settings.items() if key not in (*named_by, "n"))])
