"""The erasure curve of a faithfulness-measurable model: ROAR's curve without retraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp import numbers
from interp.arrays import as_tensor
from interp.errors import InputError, choose
from interp.progress import progress
from interp.running import door
from metrics.explanation.prediction import Array
from metrics.explanation.racu import racu
from metrics.explanation.roar_data import SPLITS, Split, mask_top, removed_inputs, remover, splits_of
from metrics.explanation.roar_plan import RANDOM, RATIOS, explainers, roar_plan
from metrics.explanation.roar_run import call_model, checked_scores, constant, derived_seed, scores_of
from metrics.explanation.saco import interval_settings
from metrics.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PERFORMANCES = ("accuracy", "probability")


@dataclass(frozen=True, repr=False)
class ErasureCurve:
    """Performance of one model over what is masked, with intervals over samples.

    Attributes:
        ratios: from 0 (nothing masked).
        values: measure -> performance of each sample [ratio, n]; `random` is the mean over the random draws.
        racu: measure -> relative area below random masking, see `metrics.explanation.racu`.
        points: measure -> mean performance at each ratio.
    """

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

    def __repr__(self) -> str:
        lines = [f"ErasureCurve, {self.performance}", *(f"  {name}: RACU {one}" for name, one in self.racu.items())]
        wide = self.summary().pivot_table(index="measure", columns="ratio", values="performance", sort=False)
        return "\n".join([*lines, wide.to_string(float_format=lambda v: f"{v:.3f}")])

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, border=0, float_format="{:.3f}".format))

    def figure(self) -> Figure:
        """Performance over what is masked, mean and interval for each measure."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for measure, points in self.points.items():
            error = [[p.high - p.value for p in points], [p.value - p.low for p in points]]
            figure.add_scatter(
                x=self.ratios,
                y=[p.value for p in points],
                error_y={"type": "data", "symmetric": False, "array": error[0], "arrayminus": error[1]},
                name=measure if measure == RANDOM else f"{measure}<br>RACU {self.racu[measure]}",
                mode="lines+markers",
                line={"color": "#999999"} if measure == RANDOM else None,
            )
        figure.update_xaxes(title="masked")
        figure.update_yaxes(title=self.performance)
        figure.update_layout(template="plotly_white", title="Erasure without retraining")
        return figure


@numbers.checked(random=numbers.COUNT, least=numbers.FROM_ZERO)
@door
def erasure_curve(
    model: Any,
    data: Sequence[Any],
    explain: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    *,
    mask: Any,
    ratios: Sequence[int | float] = RATIOS,
    recursive: bool = True,
    performance: str = "accuracy",
    predict: Callable[[Any, Any], Any] = call_model,
    random: int = 5,
    batch_size: int = 512,
    seed: int = 0,
    clip: bool = False,
    least: float = 0.01,
    confidence: float = 0.95,
    resamples: int = 2000,
    quiet: bool = False,
) -> ErasureCurve:
    """ROAR's curve without retraining (Madsen et al., ICML 2024), of a model that knows masked inputs.

    Valid where masking is in distribution: fine-tune with `masked_finetune`, and test by `MaSF.in_distribution`.

    Args:
        model: one model, run in evaluation mode. Its intervals are over samples; call again for each seed's model.
        data: (inputs, labels) or (inputs, labels, maskable), as in `recursive_roar`.
        explain: `explain(model, inputs, labels, seed) -> scores`, or several by name, as in `recursive_roar`.
        mask: the id of the mask token, or another way to mask, as in `recursive_roar`.
        ratios: shares of the elements of each input, or how many of them.
        recursive: explain anew at each ratio, from the inputs as masked so far; False: once.
        performance: `accuracy`, or `probability` of the label (a softmax over what `predict` gives).
        predict: `predict(model, inputs) -> logits [n, class]`.
        random: how many random orders the baseline is the mean of.
        batch_size, seed, quiet: of `predict`; of ties, random orders and explainers; no bar.
        clip, least: of RACU. confidence, resamples: of the bootstrap over samples.

    Returns:
        `ErasureCurve`: `racu` (measure -> `Estimate`), `points`, `to_frame()`, `summary()`, `figure()`.

    Raises:
        InputError: what does not fit, scores that are NaN, constant or of another shape.
    """
    settings = interval_settings(confidence, resamples, seed)
    choose("performance", performance, PERFORMANCES)
    steps = roar_plan(explain, ratios, 1).ratios
    split = splits_of(dict.fromkeys(SPLITS, data))["test"]
    remove = remover(mask, split)
    named = explainers(explain)

    def measured(removed: Tensor) -> Array:
        return _performance(
            model, predict, removed_inputs(remove, split.inputs, removed), split, performance, batch_size
        )

    nothing = torch.zeros_like(split.maskable)
    clean = measured(nothing)
    values: dict[str, Array] = {}
    with progress("erasure", (len(named) + random) * len(steps), quiet) as bar:

        def curve(name: str, scores: Callable[[Tensor, int], Tensor], tie_seed: int) -> Array:
            removed, found, order = nothing, [clean], None
            for i, step in enumerate(steps):
                if order is None or (recursive and name != RANDOM):
                    order = scores(removed_inputs(remove, split.inputs, removed), i)
                removed = mask_top(order, split.maskable, removed, step, tie_seed)
                found.append(measured(removed))
                bar.advance()
            return np.stack(found)

        # constant scores: the order is that of the ties
        draws = [
            curve(RANDOM, lambda inputs, i: torch.zeros_like(split.maskable), derived_seed(seed, RANDOM, k))
            for k in range(random)
        ]
        values[RANDOM] = np.mean(draws, axis=0)
        for name, one in named.items():

            def scores(inputs: Tensor, i: int, name: str = name, one: Callable[..., Any] = one) -> Tensor:
                with torch.enable_grad():
                    given = one(model, inputs, split.labels, derived_seed(seed, name, i))
                found = checked_scores(as_tensor(given).detach().cpu(), split, f"explain[{name!r}]")
                if not i and constant(found, split.maskable):
                    raise InputError(
                        f"explain[{name!r}] gives every element of an input the same score: there is no order"
                    )
                return found

            values[name] = curve(name, scores, derived_seed(seed, name, "ties"))
    x = (0 if isinstance(steps[0], int) else 0.0, *steps)
    everything = measured(split.maskable)
    areas = {}
    for name in named:
        rows = np.concatenate((values[name], values[RANDOM], everything[None]))

        def area(means: Array) -> Array:
            own, chance, last = np.split(means, [len(x), 2 * len(x)], axis=1)
            return racu(x, own, chance, last[:, 0], clip=clip, least=least)[:, None]

        (areas[name],) = bootstrap(rows, area, **settings, possible=(-1.0, 1.0) if clip else (-np.inf, np.inf))
    points = {
        name: bootstrap(rows, lambda means: means, **settings, possible=(0.0, 1.0)) for name, rows in values.items()
    }
    return ErasureCurve(x, values, areas, points, performance)


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
