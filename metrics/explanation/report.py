"""`compare_explanations`: explanations of one model judged by several metrics, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.progress import Bar
from interp.run import Run
from interp.running import evaluated
from metrics.explanation.baselines import Baseline, filler
from metrics.explanation.metric import Case, ExplanationMetric
from metrics.explanation.prediction import Array, Predictor, SampleKeywords, as_attributions, as_inputs, targets
from metrics.explanation.report_metrics import DEFAULT, Asked, asked_metrics
from metrics.explanation.report_result import ExplanationReport
from metrics.explanation.samples import PerSample
from metrics.testing import Testing, TestingKeywords

Metric = str | ExplanationMetric | Callable[..., Any]


class ReportKeywords(SampleKeywords, TestingKeywords, total=False):
    """The keywords of `compare_explanations`."""


@numbers.checked()
@torch.inference_mode(False)
def compare_explanations(
    predict: Callable[[Any], Any],
    inputs: Any,
    explainers: Mapping[str, Any],
    metrics: Metric | Sequence[Metric] | Mapping[str, Metric] = DEFAULT,
    *,
    target: Any = None,
    baseline: Baseline | None = None,
    real: Any = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    n_random: int = 3,
    **keywords: Unpack[ReportKeywords],
) -> ExplanationReport:
    """Judge several explanations of one model by several metrics, on the same samples.

    Gives a value with its interval for each explainer and metric, the same explanation's scores dealt out at random
    beside it, paired tests of each against those and of all pairs of explainers, corrected for their
    number, mean ranks, a figure and a page. Metrics by name: `saco`; `removal-curves` (`morf`, `lerf`, `between`,
    `insertion`); `erasure` (`comprehensiveness`, `sufficiency`, `log-odds`); `normalised-aopc`
    (`normalised-comprehensiveness`, `normalised-sufficiency`); `soft-erasure` (`soft-comprehensiveness`,
    `soft-sufficiency`); `decision-flips` (`flip-first`, `flip-fraction`); `road` (`road-morf`, `road-lerf`,
    `road-between`); `sensitivity` (`infidelity`, `max-sensitivity`: without random scores). Those in brackets may be
    asked for one by one. Metrics that stand on the same model runs say much the same: a mean rank over them is no vote
    of independent witnesses. Costs what each metric costs, times 1 + `n_random`, for each explainer.

    Args:
        predict: inputs -> probabilities [n, class].
        inputs: images [n, c, h, w], features [n, d] or token ids [n, pos].
        explainers: by name, a function (inputs, target [n]) -> attributions, called in batches of `batch_size` with
            gradients enabled, or attributions that are there already: an array or anything with such `.values`, as
            `attribution.tokens` gives. Shapes as in `saco`. Arrays must explain `target`.
        metrics: names, `ExplanationMetric`s such as `SaCoMetric(groups=5)`, functions, or either by a name of yours. A
            function is called as `metrics.saco` is, (predict, inputs, attributions, **those of the other arguments
            that it takes), and returns a `PerSample`, or values [n] of which higher is better.
            `functools.partial(metrics.saco, ...)` is one.
        target: a class, one for each sample, or None for the predicted ones. Decision flips are those of the
            predicted class in any case.
        baseline: what a removed element becomes, as in `saco`; needed for token ids. ROAD has its own.
        real: as in `saco`: False at padding and special tokens.
        settings: of metrics that are named, for instance `{"saco": {"groups": 5}}`. `soft-erasure` on token ids needs
            `predict` (from embeddings) and `embeddings` there.
        n_random: deal each explanation's scores out at random so many times, for comparison; 0 for none.
        batch_size, quiet, confidence, resamples, seed: as in `saco`.
        correction: of all p-values of a table together: `holm`, `bh` or `none`.
        alpha: level of the tests; 1 - `confidence` unless given.
        permutations: of the two-sided sign-flip tests; the smallest p-value is 2 / (permutations + 1).

    Returns:
        `ExplanationReport`: `to_frame()`, `tests`, `ranks`, `figure()`, `to_html(path)`.

    Raises:
        InputError: an explainer whose attributions are NaN or of another shape, a metric that does not suit the inputs
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
                                      baseline=tokenizer.mask_token_id, settings={"saco": {"groups": 5}})

    >>> import torch
    >>> inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    >>> weights = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    >>> def predict(x):
    ...     p = (x @ weights).sigmoid()
    ...     return torch.stack((1 - p, p), 1)
    >>> report = compare_explanations(
    ...     predict, inputs, {"true": inputs * weights, "inverted": -inputs * weights}, ["morf", "lerf"],
    ...     target=1, baseline="zero",
    ... )
    >>> report.ranks[["explainer", "mean_rank"]].values.tolist()
    [['true', 1.0], ['inverted', 2.0]]
    """
    check_keywords("compare_explanations", keywords, ReportKeywords)
    run, interval = Run.of(keywords), Interval.of(keywords)
    testing = Testing.of({"alpha": 1 - interval.confidence, **keywords})
    if not isinstance(explainers, Mapping) or not explainers or not all(isinstance(name, str) for name in explainers):
        raise InputError("explainers must be functions or arrays by name, as {'gradient': function}, at least one")
    asked = asked_metrics(metrics, settings)
    predictor, tensor = Predictor.of(predict, inputs, run), as_inputs(inputs)
    filler(baseline, tensor, interval.seed, predictor.numpy)  # refuses in time what is none
    chosen = targets(target, predictor.all(tensor))
    cases: dict[str, Case] = {}
    with run.progress("comparing explanations", len(explainers) * (1 + len(asked))) as bar:
        for name, one in explainers.items():
            with evaluated(predict):
                attributions = _attributions(name, one, predictor, tensor, chosen, real)
            cases[name] = Case.of(
                predict, inputs, attributions, keywords, target=chosen, baseline=baseline, real=real,
                n_random=n_random, explain=one if callable(one) else None,
            )  # fmt: skip
            bar.advance()
        for each in asked:
            for name, case in cases.items():
                if problem := each.metric.objection(case):
                    raise InputError(f"metric {each.name!r} on explainers[{name!r}]: {problem}")
        results = {name: _merged([_run(each, name, case, bar) for each in asked]) for name, case in cases.items()}
    return ExplanationReport(results=results, testing=testing, interval=interval, n_random=n_random)


def _run(asked: Asked, name: str, case: Case, bar: Bar) -> PerSample:
    try:
        result = asked.run(case)
    except InputError as error:
        raise InputError(f"metric {asked.name!r} on explainers[{name!r}]: {error}") from error
    bar.advance()
    return result


def _merged(parts: list[PerSample]) -> PerSample:
    """Columns of several metrics side by side; NaN for random scores where one has none and others do."""
    columns: dict[str, Array] = {}
    for part in parts:
        if twice := columns.keys() & part.columns.keys():
            raise InputError(f"metrics: two of them give {', '.join(sorted(twice))}; give one another name")
        columns |= part.columns
    random = {name: values for part in parts for name, values in (part.random_columns or {}).items()}
    filled = {name: random.get(name, np.full_like(values, np.nan)) for name, values in columns.items()}
    return PerSample(
        columns=columns,
        better={name: better for part in parts for name, better in part.better.items()},
        random_columns=filled if random else None,
        interval=parts[0].interval,
        note=" ".join(dict.fromkeys(part.note for part in parts if part.note)),
    )


def _attributions(name: str, explainer: Any, predictor: Predictor, inputs: Tensor, target: Tensor, real: Any) -> Array:
    """Scores in their own shape; errors name the explainer."""
    try:
        given = _explained(explainer, predictor, inputs, target) if callable(explainer) else _values(explainer)
        flat, _, grid = as_attributions(given, real, inputs)
    except InputError as error:
        raise InputError(f"explainers[{name!r}]: {error}") from error
    return flat.reshape(len(flat), *grid)


def _explained(explain: Callable[[Any, Any], Any], predictor: Predictor, inputs: Tensor, target: Tensor) -> Array:
    parts, size = [], predictor.batch_size
    for x, y in zip(inputs.split(size), target.to(inputs.device).split(size), strict=True):
        given = (x.cpu().numpy(), y.cpu().numpy()) if predictor.numpy else (x.clone(), y)
        with torch.enable_grad():
            values = _values(explain(*given))
        if values.ndim < 2 or len(values) != len(x):
            raise InputError(
                f"it must return attributions [{len(x)}, ...] for {len(x)} inputs; got shape {list(values.shape)}"
            )
        parts.append(values)
    shapes = {values.shape[1:] for values in parts}
    if len(shapes) > 1:
        raise InputError(f"it returned attributions of different shapes for different batches: {sorted(shapes)}")
    return np.concatenate(parts)


def _values(given: Any) -> Array:
    values = given if isinstance(given, Tensor | np.ndarray) else getattr(given, "values", given)
    try:
        return np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"attributions must be an array of numbers, a function that returns one, or have such .values; got a "
            f"{type(given).__name__}"
        ) from None
