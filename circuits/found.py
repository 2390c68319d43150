"""What circuits of edges and circuits of nodes have in common: scores, a report, and where they came from."""

from __future__ import annotations

import datetime
import html
import os
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from attribution.scores import Scores
from circuits.reach import reach
from circuits.report import Report, with_interval
from interp.conditions import Conditions
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.headers import json_copy
from interp.plugins import fields_of
from interp.running import door
from interp.selection import Selection
from interp.setting import Setting

if TYPE_CHECKING:
    from interp.tasks.task import Task
    from metrics.circuit.battery_result import CircuitTests


def provenance_of(
    setting: Setting, scores: Scores, selection: Selection, name: str, scoring_share: float, seed: int
) -> dict[str, Any]:
    """Where a circuit of scores comes from, as files keep it; `name` is what the selection was asked for by."""
    told = fields_of(selection)
    return {
        "task": setting.task.to_dict(),
        "seed": seed,
        "scoring_share": scoring_share,
        "selection": name,
        "selection_settings": {
            field: value
            for field, value in told.items()
            if value is None or isinstance(value, bool | int | float | str)
        },
        "settings": scores.settings,
        "d_model": setting.anatomy.d_model,
    }


class Found(ABC):
    """A frozen dataclass with these fields; `_settle` fills in what is not given of the last two.

    Attributes:
        scores: of everything that could have been chosen.
        report: how faithful the circuit is.
        provenance: where it came from; model, task, method, seed, versions and the time of creation are taken from
            `scores` and the clock where they are not given.
        setting: what it was found under (ablation, objective, key-value targets, digest of the task), by default that
            of `scores`: whatever takes a circuit judges it under its setting unless told otherwise.
    """

    scores: Scores
    report: Report
    provenance: dict[str, Any]
    setting: Conditions
    called: ClassVar[str] = "Circuit"

    def _settle(self) -> None:
        known = {
            "model": self.scores.model,
            "task": self.scores.task,
            "method": self.scores.method,
            "seed": self.scores.seed,
            "versions": self.scores.versions,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        object.__setattr__(self, "provenance", json_copy({**known, **self.provenance}, "provenance"))
        if self.setting is None:
            task = self.provenance["task"]
            digest = task.get("sha256") if isinstance(task, dict) else None
            object.__setattr__(self, "setting", replace(self.scores.setting, task=digest))
        if isinstance(self.setting.constants, str):  # a file says their digest, and keeps them with the scores
            if getattr(self.scores.constants, "digest", None) != self.setting.constants:
                raise InputError("the constants that the circuit was found under are not those of its scores")
            object.__setattr__(self, "setting", replace(self.setting, constants=self.scores.constants))
        own = self.scores.setting  # no file of a circuit repeats its names
        named = replace(self.setting, model=own.model, task_name=own.task_name, method=own.method)
        object.__setattr__(self, "setting", named)

    @property
    def graph(self) -> ComputationalGraph:
        """The computational graph that this is a part of."""
        return self.scores.graph

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """What the circuit holds, by |score| descending."""

    @abstractmethod
    def sizes(self) -> list[str]:
        """How large it is, in words."""

    @door
    def test(self, model: Any, task: Task, **settings: Any) -> CircuitTests:
        """Hypothesis tests of the circuit: `metrics.circuit_tests` under the setting that it was found under.

        Give prompts that the circuit was not chosen on. `settings` are those of `circuit_tests`.
        """
        found: CircuitTests = reach("circuit_tests")(model, task, self, **settings)
        return found

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the circuit as JSON (`.json` is added to a bare name) and a safetensors file beside it.

        Returns the path of the JSON file. A kill or a full disk leaves the circuit that was there before.
        """
        return Path(reach("save")(self, path))

    def summary(self) -> str:
        """One line: size, model, task, method and faithfulness with its interval."""
        parts = self.sizes()
        task = self.provenance["task"]
        name = task.get("name") if isinstance(task, dict) else task
        parts += [str(part) for part in (self.provenance["model"], name, self.provenance["method"]) if part]
        if self.report.faithfulness is not None:
            text = with_interval(self.report.faithfulness, self.report.interval)
            parts.append(f"faithfulness {text}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def _repr_html_(self) -> str:
        table = self.to_frame().head(10)
        shown = table.to_html(index=False, float_format=lambda value: f"{value:+.4g}", border=0)
        title = f"<p><b>{self.called}</b>: {html.escape(self.summary())}</p>"
        return title + str(reach("small_picture")(self)) + self.report._repr_html_() + shown
