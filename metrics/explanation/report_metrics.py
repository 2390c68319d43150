"""The per-sample metrics of a report by name, what each needs, and how it is run on one explanation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.errors import InputError, choose, unknown
from metrics.explanation.curves import removal_curves
from metrics.explanation.erasure import BEAM_LIMIT, decision_flips, erasure, normalised_aopc
from metrics.explanation.prediction import Array, Flags, Indices, shuffled
from metrics.explanation.road import road
from metrics.explanation.saco import PerSample, saco
from metrics.explanation.sensitivity import sensitivity
from metrics.explanation.soft import soft_erasure

_CURVES = ("morf", "lerf", "between", "insertion")
_BOTH = ("comprehensiveness", "sufficiency")
# metric -> name in the report -> column of the metric's own result
COLUMNS: dict[str, dict[str, str]] = {
    "saco": {"saco": "saco"},
    "removal-curves": {name: name for name in _CURVES},
    "erasure": {**{name: name for name in _BOTH}, "log-odds": "log_odds"},
    "normalised-aopc": {f"normalised-{name}": name for name in _BOTH},
    "soft-erasure": {f"soft-{name}": name for name in _BOTH},
    "decision-flips": {"flip-first": "first", "flip-fraction": "fraction"},
    "road": {f"road-{name}": name for name in _CURVES[:3]},
    "sensitivity": {"infidelity": "infidelity", "max-sensitivity": "max_sensitivity"},
}
_FUNCTIONS: dict[str, Callable[..., PerSample]] = {
    "saco": saco,
    "removal-curves": removal_curves,
    "erasure": erasure,
    "normalised-aopc": normalised_aopc,
    "soft-erasure": soft_erasure,
    "decision-flips": decision_flips,
    "road": road,
    "sensitivity": sensitivity,
}
_TAKEN = {*COLUMNS, *(name for names in COLUMNS.values() for name in names)}
DEFAULT = ("saco", "morf", "lerf", "comprehensiveness", "sufficiency", "flip-fraction")
_FAILURES = (TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Case:
    """What one explainer is judged on.

    Attributes:
        tensor: the inputs as a tensor; `inputs` are as the user gave them.
        real: `[n, element]`.
        explain: None where salience was handed in as an array.
        shared: target, replacement, real, random, batch_size, seed, confidence, resamples and quiet.
    """

    predict: Callable[[Any], Any]
    inputs: Any
    tensor: Tensor
    salience: Array
    real: Flags
    explain: Callable[[Any, Any], Any] | None
    shared: dict[str, Any]

    @property
    def sizes(self) -> Indices:
        """Elements of each sample."""
        return self.real.sum(1)


@dataclass(frozen=True)
class Metric:
    """One metric of a report.

    Attributes:
        name: under which its settings go.
        function: what computes it.
        columns: as in `COLUMNS`, those that were asked for; None: all that the function returns.
        own: settings of the user's.
    """

    name: str
    function: Callable[..., Any]
    columns: Mapping[str, str] | None
    own: Mapping[str, Any]

    def run(self, case: Case) -> PerSample:
        """Values for each sample, with the columns named as in the report."""
        chosen = {**{name: value for name, value in case.shared.items() if name in accepted(self.function)}, **self.own}
        if self.function is sensitivity:
            result = sensitivity(case.predict, case.inputs, _like_inputs(case), **chosen)
        elif self.function is soft_erasure:
            result = soft_erasure(salience=case.salience, **{**_features(case), **chosen})
        else:
            result = self.function(case.predict, case.inputs, case.salience, **chosen)
        if not isinstance(result, PerSample):
            result = self._plain(result, case, chosen)
        names = self.columns
        if names is None:
            alone = len(result.columns) == 1
            names = {self.name if alone else f"{self.name} {column}": column for column in result.columns}
        return _renamed(result, names)

    def _plain(self, values: Any, case: Case, chosen: Mapping[str, Any]) -> PerSample:
        """A metric of the user's own that gives values [n], higher being better: its baseline is made here."""
        flat, shape = case.salience.reshape(len(case.real), -1), case.salience.shape
        draws = [
            self._values(
                self.function(case.predict, case.inputs, shuffled(flat, case.real, seed).reshape(shape), **chosen), case
            )
            for seed in range(case.shared["seed"] + 1, case.shared["seed"] + 1 + case.shared["random"])
        ]
        return PerSample(
            columns={self.name: self._values(values, case)},
            better={self.name: "higher"},
            baseline={self.name: np.mean(draws, axis=0)} if draws else None,
            settings={key: case.shared[key] for key in ("confidence", "resamples", "seed")},
        )

    def _values(self, given: Any, case: Case) -> Array:
        try:
            values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, np.float64)
        except _FAILURES:
            values = np.empty(0)
        if values.shape != (len(case.tensor),):
            raise InputError(
                f"it must return a PerSample or {len(case.tensor)} values, one for each sample; got a "
                f"{type(given).__name__} of shape {list(values.shape)}"
            )
        return values

    def objection(self, case: Case) -> str | None:
        """Why the metric does not suit the inputs or the explainer, if it does not."""
        shape, few = list(case.tensor.shape), int(case.sizes.min())
        floats = case.tensor.is_floating_point()
        if self.name == "road" and case.tensor.ndim != 4:
            return f"imputes pixels of images [n, c, h, w]; inputs are {shape}"
        if self.name == "saco" and (groups := self.own.get("groups", 10)) > few:
            return f"has groups={groups}, and a sample has {few} elements; settings={{'saco': {{'groups': 2}}}}"
        if self.name == "normalised-aopc" and case.sizes.max() > BEAM_LIMIT:
            return f"is for up to {BEAM_LIMIT} elements, and a sample has {case.sizes.max()}: give salience by patches"
        if self.name == "soft-erasure" and not {"predict", "embeddings"} <= self.own.keys():
            return None if floats and case.tensor.ndim == 2 else (
                "needs embeddings: settings={'soft-erasure': {'predict': a function of embeddings, 'embeddings': "
                "floats [n, element, d]}}"
            )  # fmt: skip
        if self.name == "sensitivity" and not floats:
            return "perturbs inputs by noise, and these are token ids; call metrics.sensitivity on embeddings"
        if self.name == "sensitivity" and case.tensor.ndim == 4 and shape[1] != 1:
            return f"needs a score for each of {shape[1]} channels; call metrics.sensitivity by itself"
        if self.name == "sensitivity" and case.explain is None:
            return "explains perturbed inputs too: it needs a function (inputs, target) -> salience, not an array"
        return None


def chosen_metrics(metrics: Any, settings: Mapping[str, Mapping[str, Any]] | None) -> list[Metric]:
    """The metrics that are asked for: by name (of a metric, or of one of its columns), functions, or both."""
    if isinstance(metrics, str) or (callable(metrics) and not isinstance(metrics, Mapping)):
        metrics = [metrics]
    named = metrics.items() if isinstance(metrics, Mapping) else [(_name_of(one), one) for one in metrics]
    wanted: dict[str, dict[str, str] | None] = {}
    functions: dict[str, Callable[..., Any]] = {}
    for name, one in named:
        if isinstance(one, str):
            family = family_of("metric", one)
            columns = COLUMNS[family] if one in COLUMNS else {one: COLUMNS[family][one]}
            wanted[family] = {**(wanted.get(family) or {}), **columns}
            functions[family] = _FUNCTIONS[family]
        elif callable(one) and name not in functions and name not in _TAKEN:
            wanted[name], functions[name] = None, one
        else:
            raise InputError(f"metrics: {name!r} must be a name, or a function under a name of its own; got {one!r}")
    if not functions:
        raise InputError(f"metrics is empty; name some, such as {', '.join(DEFAULT)}")
    return [Metric(name, functions[name], wanted[name], own) for name, own in _settings(functions, settings).items()]


def _settings(
    functions: Mapping[str, Callable[..., Any]], settings: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Mapping[str, Any]]:
    """Settings for each metric; refuses those of others, and unknown ones."""
    result: dict[str, Mapping[str, Any]] = {name: {} for name in functions}
    for given, own in (settings or {}).items():
        name = given if given in functions else family_of("settings", given)
        if name not in functions:
            raise InputError(f"settings names {given!r}, which is not among the metrics {', '.join(functions)}")
        for key in own if name in COLUMNS else ():
            choose(f"setting of {name}", key, sorted(accepted(functions[name])))
        result[name] = {**result[name], **own}
    return result


def family_of(argument: str, name: str) -> str:
    """The metric that a name, or the name of a column, belongs to."""
    for family, columns in COLUMNS.items():
        if name == family or name in columns:
            return family
    raise unknown(argument, name, sorted(_TAKEN))


def accepted(function: Callable[..., Any]) -> set[str]:
    """Names of the settings that a metric takes."""
    if getattr(function, "func", function) is road:  # hands its settings on
        names = accepted(removal_curves) - {"replacement"} | {"noise"}
    else:
        parameters = inspect.signature(function).parameters.values()
        names = {one.name for one in parameters} - {"inputs", "salience", "explain"}
        if any(one.kind is one.VAR_KEYWORD for one in parameters):
            names |= {*accepted(removal_curves)}
    # what a partial has fixed stays as it is
    names -= set(getattr(function, "keywords", ()))
    return names if function is soft_erasure else names - {"predict"}


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    function = getattr(metric, "func", metric)  # of a partial
    return str(getattr(function, "__name__", type(function).__name__))


def _renamed(result: PerSample, names: Mapping[str, str]) -> PerSample:
    """A plain `PerSample` with some of the columns under other names."""
    baseline = result.baseline
    return PerSample(
        columns={name: result.columns[column] for name, column in names.items()},
        better={name: result.better[column] for name, column in names.items()},
        baseline=None if baseline is None else {name: baseline[column] for name, column in names.items()},
        settings=result.settings,
        note=result.note,
    )


def _like_inputs(case: Case) -> Callable[[Tensor, Tensor], Any]:
    """The explainer on tensors, with attributions of the inputs' shape: an image's single channel is added."""
    explain, images, numpy = case.explain, case.tensor.ndim == 4, isinstance(case.inputs, np.ndarray)
    assert explain is not None  # `objection` has seen to it

    def like(inputs: Tensor, target: Tensor) -> Any:
        given = explain(*((v.cpu().numpy() for v in (inputs, target)) if numpy else (inputs, target)))
        values = given if isinstance(given, Tensor | np.ndarray) else getattr(given, "values", given)
        return values[:, None] if images and getattr(values, "ndim", 0) == 3 else values

    return like


def _features(case: Case) -> dict[str, Any]:
    """Features as embeddings of one dimension; other inputs have theirs in the settings."""
    if case.tensor.ndim == 2 and case.tensor.is_floating_point():
        return {"predict": lambda x: case.predict(x[..., 0]), "embeddings": case.inputs[..., None]}
    return {}
