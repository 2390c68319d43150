"""The erasure curve of a faithfulness-measurable model: ROAR's curve without retraining."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp import numbers, theme
from interp.arrays import as_tensor
from interp.errors import InputError, choose
from interp.interval import Estimate, Interval
from interp.keywords import check_keywords
from interp.progress import Bar
from interp.result import Result
from interp.run import Run
from interp.running import door
from interp.tables import html_table
from metrics.explanation.prediction import Array, SampleKeywords
from metrics.explanation.roar_data import SPLITS, Remove, Split, mask_top, removed_inputs, remover, splits_of
from metrics.explanation.roar_plan import RANDOM, Masking, MaskingKeywords, explainers
from metrics.explanation.roar_run import call_model, checked_scores, constant, derived_seed, scores_of
from metrics.statistics import bootstrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BATCH = 512  # inputs per call of predict, where nobody says otherwise
PERFORMANCES = ("accuracy", "probability")


@dataclass(frozen=True, repr=False)
class ErasureCurve(Result):
    """Performance of one model over what is masked, with intervals over samples.

    Attributes:
        ratios: from 0 (nothing masked).
        values: measure -> performance of each sample [ratio, n]; `random` is the mean over the random draws.
        racu: measure -> relative area below random masking, see `metrics.explanation.racu`.
        points: measure -> mean performance at each ratio.
    """

    matching: ClassVar = (("values", "points"),)

    ratios: tuple[float, ...]
    values: dict[str, Array]
    racu: dict[str, Estimate]
    points: dict[str, list[Estimate]]
    performance: str

    def to_frame(self) -> pd.DataFrame:
        """RACU: measure, racu, low, high, and whether the interval lies above 0."""
        rows = [(measure, one.value, one.low, one.high, one.low > 0) for measure, one in self.racu.items()]
        return pd.DataFrame(rows, columns=["measure", "racu", "low", "high", "faithful"])

    def summary(self) -> pd.DataFrame:
        """Mean performance: measure, ratio, performance, low, high."""
        rows = [
            (measure, ratio, one.value, one.low, one.high)
            for measure, points in self.points.items()
            for ratio, one in zip(self.ratios, points, strict=True)
        ]
        return pd.DataFrame(rows, columns=["measure", "ratio", "performance", "low", "high"])

    def fits(self) -> None:
        super().fits()
        if self.points.keys() != {RANDOM, *self.racu}:
            raise InputError("points and racu must be of the same measures")

    def headline(self) -> str:
        return ", ".join([self.performance, *(f"{name}: RACU {one}" for name, one in self.racu.items())])

    def _repr_html_(self) -> str:
        wide = self.summary().pivot_table(index="measure", columns="ratio", values="performance", sort=False)
        return f"<p>{html.escape(repr(self))}</p>{html_table(self.to_frame())}{html_table(wide.reset_index())}"

    def figure(self) -> Figure:
        """Performance over what is masked, mean and interval for each measure."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for i, (measure, points) in enumerate(self.points.items()):
            name = theme.label(measure)
            figure.add_scatter(
                x=self.ratios,
                y=[p.value for p in points],
                error_y=theme.error_bars(points),
                name=name if measure == RANDOM else f"{name}<br>RACU {self.racu[measure]}",
                mode="lines+markers",
                line={"color": theme.CONTROL if measure == RANDOM else theme.SERIES[(i - 1) % len(theme.SERIES)]},
            )
        figure.update_xaxes(title="share of elements masked")
        figure.update_yaxes(title=self.performance)
        return theme.styled(figure, f"Erasure without retraining: {', '.join(self.racu)}")


class ErasureCurveKeywords(MaskingKeywords, SampleKeywords, total=False):
    """The keywords of `erasure_curve`."""


@numbers.checked(n_random=numbers.COUNT)
@door
def erasure_curve(
    model: Any,
    data: Sequence[Any],
    explain: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    *,
    mask: Any,
    performance: str = "accuracy",
    predict: Callable[[Any, Any], Any] = call_model,
    n_random: int = 5,
    **keywords: Unpack[ErasureCurveKeywords],
) -> ErasureCurve:
    """ROAR's curve without retraining (Madsen et al., ICML 2024), of a model that knows masked inputs.

    Valid where masking is in distribution: fine-tune with `masked_finetune`, and test by `MaSF.in_distribution`.

    Args:
        model: one model, run in evaluation mode. Its intervals are over samples; call again for each seed's model.
        data: (inputs, labels) or (inputs, labels, maskable), as in `recursive_roar`.
        explain: `explain(model, inputs, labels, seed) -> scores`, or several by name, as in `recursive_roar`.
        mask: the id of the mask token, or another way to mask, as in `recursive_roar`.
        performance: `accuracy`, or `probability` of the label (a softmax over what `predict` gives).
        predict: `predict(model, inputs) -> logits [n, class]`.
        n_random: how many random orders the curve of random masking is the mean of.
        ratios, recursive, clip, least: see `metrics.explanation.roar_plan.Masking`.
        batch_size, quiet: inputs per call of `predict` (512); no bar.
        confidence, resamples, seed: of the bootstrap over samples; the seed is also that of ties, random orders and
            explainers.

    Returns:
        `ErasureCurve`: `racu` (measure -> `Estimate`), `points`, `to_frame()`, `summary()`, `figure()`.

    Raises:
        InputError: what does not fit, scores that are NaN, constant or of another shape.
    """
    check_keywords("erasure_curve", keywords, ErasureCurveKeywords)
    run, interval, masking = Run.of(keywords), Interval.of(keywords), Masking.of(keywords)
    choose("performance", performance, PERFORMANCES)
    split = splits_of(dict.fromkeys(SPLITS, data))["test"]
    named = explainers(explain)
    eraser = _Eraser(
        model, predict, performance, split, remover(mask, split), masking, run.batch_size or BATCH, interval.seed
    )  # fmt: skip
    with run.progress("erasure", (len(named) + n_random) * len(masking.ratios)) as bar:
        draws = [eraser.random(i, bar) for i in range(n_random)]
        values = {RANDOM: np.asarray(np.mean(draws, axis=0))}
        values |= {name: eraser.curve(name, eraser.scores(name, one), bar) for name, one in named.items()}
    everything = eraser.measured(split.maskable)
    areas = {}
    for name in named:
        rows = np.concatenate((values[name], values[RANDOM], everything[None]))

        def area(means: Array) -> Array:
            own, chance, last = np.split(means, [len(masking.places), 2 * len(masking.places)], axis=1)
            return masking.racu(own, chance, last[:, 0])[:, None]

        (areas[name],) = bootstrapped(rows, area, interval, masking.possible)
    points = {name: bootstrapped(rows, lambda means: means, interval, (0.0, 1.0)) for name, rows in values.items()}
    return ErasureCurve(masking.places, values, areas, points, performance)


@dataclass(frozen=True)
class _Eraser:
    """One model on one split, whose performance is measured while more and more is masked."""

    model: Any
    predict: Callable[[Any, Any], Any]
    performance: str
    split: Split
    remove: Remove
    masking: Masking
    batch_size: int
    seed: int

    def random(self, draw: int, bar: Bar) -> Array:
        """The curve [ratio, n] of one random order."""
        constant = torch.zeros_like(self.split.maskable)  # the order is that of the ties
        tie_seed = derived_seed(self.seed, RANDOM, draw)
        return self._curve(lambda inputs, i: constant, tie_seed, False, bar)

    def curve(self, name: str, scores: Callable[[Tensor, int], Tensor], bar: Bar) -> Array:
        """The curve [ratio, n] of a measure's scores of inputs."""
        return self._curve(scores, derived_seed(self.seed, name, "ties"), self.masking.recursive, bar)

    def _curve(self, scores: Callable[[Tensor, int], Tensor], tie_seed: int, recursive: bool, bar: Bar) -> Array:
        removed = torch.zeros_like(self.split.maskable)
        found, order = [self.clean], None
        for i, ratio in enumerate(self.masking.ratios):
            if order is None or recursive:
                order = scores(removed_inputs(self.remove, self.split.inputs, removed), i)
            removed = mask_top(order, self.split.maskable, removed, ratio, tie_seed)
            found.append(self.measured(removed))
            bar.advance()
        return np.stack(found)

    def scores(self, name: str, explain: Callable[..., Any]) -> Callable[[Tensor, int], Tensor]:
        """An explainer as a function of inputs and the number of the ratio; what it returns is checked."""

        def scored(inputs: Tensor, i: int) -> Tensor:
            with torch.enable_grad():
                given = explain(self.model, inputs.clone(), self.split.labels.clone(), derived_seed(self.seed, name, i))
            found = checked_scores(as_tensor(given).detach().cpu(), self.split, f"explain[{name!r}]")
            if not i and constant(found, self.split.maskable):
                raise InputError(f"explain[{name!r}] gives every element of an input the same score: there is no order")
            return found

        return scored

    @functools.cached_property
    def clean(self) -> Array:
        """Performance with nothing masked [n]."""
        return self.measured(torch.zeros_like(self.split.maskable))

    def measured(self, removed: Tensor) -> Array:
        """Performance of each sample [n] with some elements masked."""
        inputs = removed_inputs(self.remove, self.split.inputs, removed)
        return _performance(self.model, self.predict, inputs, self.split, self.performance, self.batch_size)


@torch.no_grad()
def _performance(
    model: Any, predict: Callable[[Any, Any], Any], inputs: Tensor, split: Split, performance: str, batch_size: int
) -> Array:
    """Performance of each sample [n]."""
    found = []
    for part in inputs.split(batch_size):
        logits = scores_of(predict(model, part)).detach().cpu().double()
        if logits.ndim != 2 or len(logits) != len(part) or not logits.isfinite().all():
            raise InputError(
                f"the model must give finite logits [{len(part)}, class] for {len(part)} inputs; got "
                f"{list(logits.shape)}. Use predict= to say how it is asked"
            )
        found.append(logits)
    logits, labels = torch.cat(found), split.labels.cpu().long()
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise InputError(f"labels must be classes 0 to {logits.shape[1] - 1}, as the model gives them")
    if performance == "accuracy":
        return np.asarray((logits.argmax(1) == labels).double())
    return np.asarray(logits.softmax(1).gather(1, labels[:, None])[:, 0])
