"""`compare_explanations`: explanations of one model judged by several metrics, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.progress import Bar, progress
from interp.running import evaluated
from metrics.explanation.prediction import Array, Flags, Predictor, as_inputs, as_salience, targets
from metrics.explanation.replacement import Replacement, filler
from metrics.explanation.report_metrics import DEFAULT, Case, Metric, chosen_metrics
from metrics.explanation.report_result import ExplanationReport
from metrics.explanation.saco import PerSample, interval_settings
from metrics.testing import CORRECTIONS


@numbers.checked(permutations=numbers.COUNT)
@torch.inference_mode(False)
def compare_explanations(
    predict: Callable[[Any], Any],
    inputs: Any,
    explainers: Mapping[str, Any],
    metrics: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]] | str = DEFAULT,
    *,
    target: Any = None,
    replacement: Replacement | None = None,
    real: Any = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    random: int = 3,
    correction: str = "holm",
    permutations: int = 9999,
    batch_size: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> ExplanationReport:
    """Judge several explanations of one model by several metrics, on the same samples.

    Gives a value with its interval for each explainer and metric, the same explanation's scores dealt out at random
    as a baseline, paired tests of each against that baseline and of all pairs of explainers, corrected for their
    number, mean ranks, a figure and a page. Metrics by name: `saco`; `removal-curves` (`morf`, `lerf`, `between`,
    `insertion`); `erasure` (`comprehensiveness`, `sufficiency`, `log-odds`); `normalised-aopc`
    (`normalised-comprehensiveness`, `normalised-sufficiency`); `soft-erasure` (`soft-comprehensiveness`,
    `soft-sufficiency`); `decision-flips` (`flip-first`, `flip-fraction`); `road` (`road-morf`, `road-lerf`,
    `road-between`); `sensitivity` (`infidelity`, `max-sensitivity`: no baseline). Those in brackets may be asked for
    one by one. Metrics that stand on the same model runs say much the same: a mean rank over them is no vote of
    independent witnesses. Costs what each metric costs, times 1 + `random`, for each explainer.

    Args:
        predict: inputs -> probabilities [n, class].
        inputs: images [n, c, h, w], features [n, d] or token ids [n, pos].
        explainers: by name, a function (inputs, target [n]) -> salience, called in batches of `batch_size` with
            gradients enabled, or salience that is there already: an array or anything with such `.values`, as
            `attribution.tokens` gives. Shapes as in `saco`. Arrays must explain `target`.
        metrics: names, functions, or functions by name. A function is called as `metrics.saco` is,
            (predict, inputs, salience, **those of the other arguments that it takes), and returns a `PerSample`, or
            values [n] of which higher is better. `functools.partial(metrics.saco, ...)` is one.
        target: a class, one for each sample, or None for the predicted ones. Decision flips are those of the
            predicted class in any case.
        replacement: as in `saco`; needed for token ids. ROAD has its own.
        real: as in `saco`: False at padding and special tokens.
        settings: by metric, its own settings, for instance `{"saco": {"groups": 5}}`. `soft-erasure` on token ids
            needs `predict` (from embeddings) and `embeddings` there.
        random: so many saliences dealt out at random, as a baseline; 0 for none.
        correction: of all p-values of a table together: `holm`, `bh` or `none`.
        permutations: of the two-sided sign-flip tests; the smallest p-value is 2 / (permutations + 1).
        batch_size, seed, confidence, resamples, quiet: as in `saco`.

    Returns:
        `ExplanationReport`: `to_frame()`, `tests`, `ranks`, `figure()`, `to_html(path)`.

    Raises:
        InputError: an explainer whose salience is NaN or of another shape, a metric that does not suit the inputs
            (both by name, before any metric has run), unknown names, and what `saco` refuses.

    Scores of captum for images, and of `attribution.tokens` for a text classifier (masked tokens at the price of
    text unlike what the model was trained on)::

        gradients = captum.attr.IntegratedGradients(logits)
        report = compare_explanations(predict, images, {
            "integrated gradients": lambda x, y: gradients.attribute(x, target=y).sum(1),
            "random": np.random.default_rng(0).random((len(images), 224, 224)),
        })

        found = {m: attribution.tokens(classifier, texts, target=labels, method=m, tokenizer=tokenizer)
                 for m in ("occlusion", "integrated-gradients")}
        ids = found["occlusion"].ids
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        report = compare_explanations(predict, ids, found, target=labels, real=~special,
                                      replacement=tokenizer.mask_token_id, settings={"saco": {"groups": 5}})

    >>> import torch
    >>> inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    >>> weights = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    >>> def predict(x):
    ...     p = (x @ weights).sigmoid()
    ...     return torch.stack((1 - p, p), 1)
    >>> report = compare_explanations(
    ...     predict, inputs, {"true": inputs * weights, "inverted": -inputs * weights}, ["morf", "lerf"],
    ...     target=1, replacement="zero",
    ... )
    >>> report.ranks[["explainer", "mean rank"]].values.tolist()
    [['true', 1.0], ['inverted', 2.0]]
    """
    intervals = interval_settings(confidence, resamples, seed)
    choose("correction", correction, CORRECTIONS)
    if not isinstance(explainers, Mapping) or not explainers or not all(isinstance(name, str) for name in explainers):
        raise InputError("explainers must be functions or arrays by name, as {'gradient': function}, at least one")
    asked = chosen_metrics(metrics, settings)
    numpy = isinstance(inputs, np.ndarray)
    predictor, tensor = Predictor(predict, batch_size, numpy), as_inputs(inputs)
    filler(replacement, tensor, seed, numpy)  # refuses in time what is none
    chosen = targets(target, predictor.all(tensor))
    shared = {
        "target": chosen, "replacement": replacement, "real": real, "random": random, "batch_size": batch_size,
        "quiet": quiet, **intervals,
    }  # fmt: skip
    cases: dict[str, Case] = {}
    results: dict[str, PerSample] = {}
    with progress("comparing explanations", len(explainers) * (1 + len(asked)), quiet) as bar:
        for name, one in explainers.items():
            with evaluated(predict):
                salience, flags = _salience(name, one, tensor, chosen, real, batch_size, numpy)
            explain = one if callable(one) else None
            cases[name] = Case(predict, inputs, tensor, salience, flags, explain, shared)
            bar.advance()
        for metric in asked:
            for name, case in cases.items():
                if problem := metric.objection(case):
                    raise InputError(f"metric {metric.name!r} on explainers[{name!r}]: {problem}")
        for name, case in cases.items():
            results[name] = _merged([_run(metric, name, case, bar) for metric in asked])
    return ExplanationReport(
        results=results, correction=correction, permutations=permutations, settings=intervals, random=random
    )


def _run(metric: Metric, name: str, case: Case, bar: Bar) -> PerSample:
    try:
        result = metric.run(case)
    except InputError as error:
        raise InputError(f"metric {metric.name!r} on explainers[{name!r}]: {error}") from error
    bar.advance()
    return result


def _merged(parts: list[PerSample]) -> PerSample:
    """Columns of several metrics side by side; a metric without a baseline has one of NaN beside others."""
    columns = {name: values for part in parts for name, values in part.columns.items()}
    baseline = {name: values for part in parts for name, values in (part.baseline or {}).items()}
    return PerSample(
        columns=columns,
        better={name: better for part in parts for name, better in part.better.items()},
        baseline={name: baseline.get(name, np.full_like(values, np.nan)) for name, values in columns.items()}
        if baseline
        else None,
        settings=parts[0].settings,
        note=" ".join(dict.fromkeys(part.note for part in parts if part.note)),
    )


def _salience(
    name: str, explainer: Any, inputs: Tensor, target: Tensor, real: Any, batch_size: int, numpy: bool
) -> tuple[Array, Flags]:
    """Salience in its own shape, and which elements are real `[n, element]`; errors name the explainer."""
    try:
        given = _explained(explainer, inputs, target, batch_size, numpy) if callable(explainer) else _values(explainer)
        flat, flags, grid = as_salience(given, real, inputs)
    except InputError as error:
        raise InputError(f"explainers[{name!r}]: {error}") from error
    return flat.reshape(len(flat), *grid), flags


def _explained(explain: Callable[[Any, Any], Any], inputs: Tensor, target: Tensor, batch_size: int, numpy: bool) -> Any:
    parts = []
    for x, y in zip(inputs.split(batch_size), target.to(inputs.device).split(batch_size), strict=True):
        given = (x.cpu().numpy(), y.cpu().numpy()) if numpy else (x.clone(), y)
        with torch.enable_grad():
            values = _values(explain(*given))
        if values.ndim < 2 or len(values) != len(x):
            raise InputError(
                f"it must return salience [{len(x)}, ...] for {len(x)} inputs; got shape {list(values.shape)}"
            )
        parts.append(values)
    shapes = {values.shape[1:] for values in parts}
    if len(shapes) > 1:
        raise InputError(f"it returned salience of different shapes for different batches: {sorted(shapes)}")
    return np.concatenate(parts)


def _values(given: Any) -> Array:
    values = given if isinstance(given, Tensor | np.ndarray) else getattr(given, "values", given)
    try:
        return np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"salience must be an array of numbers, a function that returns one, or have such .values; got a "
            f"{type(given).__name__}"
        ) from None
