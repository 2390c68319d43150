"""The metrics that a report is asked for: by name, as objects, or functions of the user's own."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from interp.arrays import copied
from interp.errors import InputError
from interp.renamed import NEW_WAY
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.named import EXPLANATION_METRICS, explanation_columns, family_of
from metrics.explanation.prediction import Array, shuffled
from metrics.explanation.samples import PerSample

DEFAULT = ("saco", "morf", "lerf", "comprehensiveness", "sufficiency", "flip-fraction")
_FAILURES = (TypeError, ValueError, RuntimeError)
_DATA = {"predict", "inputs", "attributions", "salience", "explain"}  # handed over by place


@dataclass(frozen=True)
class FunctionMetric(ExplanationMetric):
    """A function called as `metrics.saco` is; it returns a `PerSample`, or values [n] of which higher is better."""

    name: str
    function: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def objection(self, case: Case) -> str | None:
        known = {*shared(case), *self.settings}
        needed = [name for name in required(self.function) if name not in known]
        if not needed:
            return None
        return f"is a function that needs {', '.join(needed)}" + "".join(
            f"; {name}: {NEW_WAY[name]}" for name in needed if name in NEW_WAY
        )

    def run(self, case: Case) -> PerSample:
        taken = accepted(self.function)
        given = {name: value for name, value in shared(case).items() if name in taken} | dict(self.settings)
        result = self._called(case, case.attributions, given)
        return result if isinstance(result, PerSample) else self._plain(result, case, given)

    def _called(self, case: Case, attributions: Array, given: Mapping[str, Any]) -> Any:
        return self.function(case.predict, copied(case.inputs), attributions, **given)

    def _plain(self, values: Any, case: Case, given: Mapping[str, Any]) -> PerSample:
        """Values [n], higher being better: those of scores dealt out at random are made here."""
        own, grid = case.subject, case.subject.grid
        first = case.interval.seed + 1
        draws = [
            _real(
                self._called(case, shuffled(own.attributions, own.real, seed).reshape(-1, *grid), given), case
            )
            for seed in range(first, first + case.n_random)
        ]  # fmt: skip
        return PerSample(
            columns={self.name: _real(values, case)},
            better={self.name: "higher"},
            random_columns={self.name: np.mean(draws, axis=0)} if draws else None,
            interval=case.interval,
        )


def _real(given: Any, case: Case) -> Array:
    """What somebody's own metric returned, as real numbers [n]."""
    try:
        values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
        values = values if np.iscomplexobj(values) else values.astype(np.float64)
    except _FAILURES:
        values = np.empty(0)
    if values.shape != (len(case.tensor),) or np.iscomplexobj(values):
        kind = "complex " if np.iscomplexobj(values) else ""
        raise InputError(
            f"it must return a PerSample or {len(case.tensor)} real values, one for each sample; got a "
            f"{kind}{type(given).__name__} of shape {list(values.shape)}"
        )
    return values


@dataclass(frozen=True)
class Asked:
    """A metric, what it is called, and which columns are wanted (None: all): name in the report -> its own name."""

    name: str
    metric: ExplanationMetric
    columns: Mapping[str, str] | None = None

    def run(self, case: Case) -> PerSample:
        """Values for each sample, with the columns named as in the report."""
        # a copy: the metrics that come after it get the same inputs
        result, name = self.metric.run(replace(case, inputs=copied(case.inputs))), self.name
        if not isinstance(result, PerSample):
            raise InputError(f"its run must return a PerSample; got a {type(result).__name__}")
        result = replace(result, columns={key: _real(values, case) for key, values in result.columns.items()})
        names = self.columns
        if names is None:
            alone = len(result.columns) == 1
            names = {name if alone else f"{name} {column}": column for column in result.columns}
        return _renamed(result, names)


def asked_metrics(metrics: Any, settings: Mapping[str, Mapping[str, Any]] | None) -> list[Asked]:
    """The metrics that are asked for: by name (of a metric, or of one of its columns), objects, functions."""
    if isinstance(metrics, str | ExplanationMetric) or (callable(metrics) and not isinstance(metrics, Mapping)):
        metrics = [metrics]
    named = metrics.items() if isinstance(metrics, Mapping) else [(_name_of(one), one) for one in metrics]
    given: dict[str, Any] = {}
    columns: dict[str, dict[str, str] | None] = {}
    taken = {name for family, own in explanation_columns().items() for name in (family, *own)}
    for name, one in named:
        if isinstance(one, str):
            family = family_of("metric", one)
            if family in given and given[family] != family:
                raise InputError(f"metrics: {one!r} is asked for by name, and {family!r} is there as an object already")
            own = dict(explanation_columns().get(family, {}))
            wanted = own if one == family else {one: own[one]}
            given[family], columns[family] = family, {**(columns.get(family) or {}), **wanted}
        elif isinstance(one, ExplanationMetric) and name not in given:
            given[name], columns[name] = one, dict(one.columns) if name == one.name else None
        elif callable(one) and not isinstance(one, type) and name not in given and name not in taken:
            given[name], columns[name] = one, None
        else:
            raise InputError(
                f"metrics: {name!r} must be a name, an ExplanationMetric, or a function, each under a name of its "
                f"own; got {one!r}"
            )
    if not given:
        raise InputError(f"metrics is empty; name some, such as {', '.join(DEFAULT)}")
    told = _settings(given, settings)
    return [Asked(name, _made(name, one, told[name]), columns[name] or None) for name, one in given.items()]


def _made(name: str, given: Any, settings: Mapping[str, Any]) -> ExplanationMetric:
    if not isinstance(given, str | ExplanationMetric):
        return FunctionMetric(name, given, settings)
    try:
        return EXPLANATION_METRICS.make(given, settings)
    except InputError as error:
        raise InputError(f"settings of {name!r}: {error}" if settings else str(error)) from error


def _settings(given: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Settings for each metric; refuses those of metrics that are not asked for."""
    result: dict[str, dict[str, Any]] = {name: {} for name in given}
    for name, own in (settings or {}).items():
        family = name if name in given else family_of("settings", name)
        if family not in given:
            raise InputError(f"settings names {name!r}, which is not among the metrics {', '.join(given)}")
        result[family] |= own
    return result


def shared(case: Case) -> dict[str, Any]:
    """What a function may take besides predict, inputs and scores, as it is called by users."""
    run, interval = case.subject.run, case.interval
    return {
        "target": case.target, "baseline": case.baseline, "real": case.real, "n_random": case.n_random,
        "batch_size": case.subject.predictor.batch_size, "quiet": run.quiet, "confidence": interval.confidence,
        "resamples": interval.resamples, "seed": interval.seed,
    }  # fmt: skip


def accepted(function: Callable[..., Any]) -> set[str]:
    """Keywords of a function that `shared` may hold; all of them where it takes any."""
    names: set[str] = set()
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.VAR_KEYWORD:
            names |= _unpacked(function, one.name)
        else:
            names.add(one.name)
    # what a partial has fixed stays as it is
    return names - _DATA - set(getattr(function, "keywords", ()))


def required(function: Callable[..., Any]) -> list[str]:
    """Keywords that a function cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]


def _unpacked(function: Callable[..., Any], name: str) -> set[str]:
    """The keywords of `**name`: those of its TypedDict, or whatever `shared` has."""
    plain = inspect.unwrap(getattr(function, "func", function))
    try:
        (group,) = typing.get_args(typing.get_type_hints(plain)[name])
    except (KeyError, NameError, TypeError, ValueError, AttributeError):
        return {"target", "baseline", "real", "n_random", "batch_size", "quiet", "confidence", "resamples", "seed"}
    return set(getattr(group, "__annotations__", {}))


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    if isinstance(metric, ExplanationMetric):
        return metric.name
    function = getattr(metric, "func", metric)  # of a partial
    return str(getattr(function, "__name__", type(function).__name__))


def _renamed(result: PerSample, names: Mapping[str, str]) -> PerSample:
    """A plain `PerSample` with some of the columns under other names."""
    random = result.random_columns
    return PerSample(
        columns={name: result.columns[column] for name, column in names.items()},
        better={name: result.better[column] for name, column in names.items()},
        random_columns=None if random is None else {name: random[column] for name, column in names.items()},
        interval=result.interval,
        note=result.note,
    )
