"""Faithfulness prompt by prompt, so that a mean of 1 made of 0 and 2 is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.errors import InputError
from interp.interval import Estimate, Interval
from interp.keywords import check_keywords
from interp.result import Result
from interp.running import door
from interp.tasks.task import Task
from metrics.circuit.evaluate import GrainKeywords, JudgeKeywords, faithfulness_of_means, judging, together
from metrics.percentiles import Resampled
from metrics.statistics import bootstrapped, estimates, resample, share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_GAP = 0.1  # of the mean gap
_UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


_USUAL = Interval()


@dataclass(frozen=True, repr=False)
class PromptFaithfulness(Result):
    """Faithfulness of each prompt: f_i = (C_i - empty_i) / (clean_i - empty_i).

    Attributes:
        values: f_i, [n]; NaN where the prompt's own gap |clean_i - empty_i| is below a tenth of the mean gap: there the
            ratio says nothing.
        mean: faithfulness as it is usually given, a ratio of means; `quantiles` those of f_i at 5, 25, 50, 75 and
            95 %, with intervals over prompts.
        within: share of prompts with |f_i - 1| <= `margin`, with Wilson's interval.
        spread: standard deviation of f_i.
        left_out: how many prompts have no f_i.
        setting: ablation, objective and prompts that it was judged under.

    >>> of = PromptFaithfulness.of(clean=[1.0, 1.0], empty=[0.0, 0.0], circuit=[0.0, 2.0])
    >>> of.mean.value, of.within.value, of.values.tolist()
    (1.0, 0.0, [0.0, 2.0])
    """

    values: Array
    mean: Estimate
    quantiles: dict[float, Estimate]
    within: Estimate
    spread: float
    left_out: int
    margin: float = 0.2
    setting: Conditions | None = None

    @classmethod
    @numbers.checked(margin=numbers.POSITIVE)
    def of(
        cls,
        clean: ArrayLike,
        empty: ArrayLike,
        circuit: ArrayLike,
        *,
        margin: float = 0.2,
        interval: Interval = _USUAL,
        setting: Conditions | None = None,
    ) -> PromptFaithfulness:
        """From objectives of the model, the empty circuit and the circuit, each [n].

        Raises `InputError` for shapes that do not match, or a margin that is not positive.
        """
        full, none, alone = (np.asarray(one, dtype=np.float64) for one in (clean, empty, circuit))
        if full.ndim != 1 or not full.shape == none.shape == alone.shape or not len(full):
            raise InputError(
                f"clean, empty and circuit must hold one value a prompt; got shapes {full.shape}, {none.shape}, "
                f"{alone.shape}"
            )
        gap = full - none
        usable = np.abs(gap) > _LEAST_GAP * abs(gap.mean())
        values = np.where(usable, (alone - none) / np.where(usable, gap, 1.0), np.nan)
        known = values[usable]
        (mean,) = bootstrapped(np.stack((full, none, alone)), faithfulness_of_means, interval)
        return cls(
            values=values,
            mean=mean,
            quantiles=_quantiles(known, interval),
            within=share(np.abs(known - 1) <= margin, interval.confidence),
            spread=float(known.std()) if len(known) else float("nan"),
            left_out=int((~usable).sum()),
            margin=margin,
            setting=setting,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, from the least faithful to the most: prompt (its number), faithfulness."""
        order = np.argsort(self.values, kind="stable")  # NaN last
        return pd.DataFrame({"prompt": order, "faithfulness": self.values[order]})

    def summary(self) -> dict[str, float]:
        """Figures by name, as JSON holds them: mean, quantiles, share within the margin, spread, left out."""
        named = {f"q{round(100 * level):02d}": one.value for level, one in self.quantiles.items()}
        return {
            "mean": self.mean.value, **named, "within": self.within.value, "within_low": self.within.low,
            "within_high": self.within.high, "margin": self.margin, "spread": self.spread,
            "left_out": float(self.left_out),
        }  # fmt: skip

    def __str__(self) -> str:
        middle = self.quantiles
        text = (
            f"mean {self.mean.value:.3f}, median {middle[0.5].value:.3f}, half of the prompts between "
            f"{middle[0.25].value:.2f} and {middle[0.75].value:.2f}; {self.within.value:.0%} "
            f"[{self.within.low:.0%}, {self.within.high:.0%}] within {self.margin:.0%} of the model"
        )
        return text + (f"; {self.left_out} without a gap left out" if self.left_out else "")

    def headline(self) -> str:
        return f"{self}{'' if self.setting is None else f'; {self.setting}'}"

    def figure(self) -> Figure:
        """A histogram of f_i, with the band around the model and the mean."""
        import plotly.graph_objects as go

        known = self.values[np.isfinite(self.values)]
        figure = go.Figure(go.Histogram(x=known, nbinsx=30, marker={"color": theme.OWN}))
        figure.add_vrect(
            x0=1 - self.margin, x1=1 + self.margin, fillcolor=theme.GREEN, opacity=0.15, line_width=0,
            annotation_text=f"within {self.margin:.0%} of the model",
        )  # fmt: skip
        figure.add_vline(x=self.mean.value, line={"dash": "dot", "color": theme.INK}, annotation_text="mean")
        figure.update_xaxes(title="faithfulness of the prompt")
        figure.update_yaxes(title="prompts")
        return theme.styled(figure, titled(self.setting, "faithfulness by prompt"), str(self))


def _quantiles(values: Array, interval: Interval) -> dict[float, Estimate]:
    if not len(values):
        return dict.fromkeys(QUANTILES, _UNKNOWN)
    point = np.quantile(values, QUANTILES)
    n = len(values)
    drawn = np.quantile(values[resample(n, interval.resamples, interval.seed)], QUANTILES, axis=1).T
    left_out = np.stack([np.quantile(np.delete(values, i) if n > 1 else values, QUANTILES) for i in range(n)])
    return dict(zip(QUANTILES, estimates(Resampled(point, drawn, left_out, n), interval.confidence), strict=True))


class PromptKeywords(GrainKeywords, JudgeKeywords, total=False):
    """The keywords of `prompt_faithfulness`."""


@numbers.checked(margin=numbers.POSITIVE)
@door
def prompt_faithfulness(
    model: Any, task: Task, circuit: Any, *, margin: float = 0.2, **keywords: Unpack[PromptKeywords]
) -> PromptFaithfulness:
    """Faithfulness of a circuit prompt by prompt: quantiles, spread, and the share of prompts near the model.

    The mean objective of a circuit may equal the model's because it does too well on some prompts and fails on others;
    the share of prompts within `margin` of the model tells. Costs one circuit.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: bool `[source, target]`, anything with such a `.mask` (a `Circuit`), or nodes as in `evaluate`.
        margin: how near to 1 counts as near.
        level, spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts.

    Raises:
        InputError: a mask of another shape, unknown names, a margin that is not positive.
    """
    check_keywords("prompt_faithfulness", keywords, PromptKeywords)
    setting, mask = judging(model, task, circuit, keywords)
    values = setting.measure(together([mask]))
    return PromptFaithfulness.of(
        values.clean.numpy(), values.empty.numpy(), values.circuits[0].numpy(),
        margin=margin, interval=Interval.of(keywords), setting=setting.conditions,
    )  # fmt: skip
