"""Faithfulness prompt by prompt, so that a mean of 1 made of 0 and 2 is seen."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from interp import numbers
from interp.errors import InputError
from interp.objectives import Objective
from interp.running import door
from interp.setting import Setting, judged_under
from interp.tasks.task import Task
from metrics.circuit.evaluate import checked_circuit, faithfulness_of_means, measure
from metrics.percentiles import Resampled
from metrics.statistics import Estimate, bootstrap, estimates, resample, share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_GAP = 0.1  # of the mean gap
_UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, repr=False)
class PromptFaithfulness:
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
    setting: Setting | None = None

    @classmethod
    @numbers.checked(margin=numbers.POSITIVE)
    def of(
        cls,
        clean: ArrayLike,
        empty: ArrayLike,
        circuit: ArrayLike,
        *,
        margin: float = 0.2,
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
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
        settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
        (mean,) = bootstrap(np.stack((full, none, alone)), faithfulness_of_means, **settings)
        return cls(
            values=values,
            mean=mean,
            quantiles=_quantiles(known, **settings),
            within=share(np.abs(known - 1) <= margin, confidence),
            spread=float(known.std()) if len(known) else float("nan"),
            left_out=int((~usable).sum()),
            margin=margin,
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

    def __repr__(self) -> str:
        return f"PromptFaithfulness({self}{'' if self.setting is None else f'; {self.setting}'})"

    def _repr_html_(self) -> str:
        return f"<p>Faithfulness by prompt: {html.escape(str(self))}</p>"

    def figure(self) -> Figure:
        """A histogram of f_i, with the band around the model and the mean."""
        import plotly.graph_objects as go

        known = self.values[np.isfinite(self.values)]
        figure = go.Figure(go.Histogram(x=known, nbinsx=30, marker={"color": "#0072B2"}))
        figure.add_vrect(
            x0=1 - self.margin, x1=1 + self.margin, fillcolor="#009E73", opacity=0.15, line_width=0,
            annotation_text=f"within {self.margin:.0%} of the model",
        )  # fmt: skip
        figure.add_vline(x=self.mean.value, line={"dash": "dot", "color": "#D55E00"}, annotation_text="mean")
        figure.update_xaxes(title="faithfulness of the prompt")
        figure.update_yaxes(title="prompts")
        figure.update_layout(template="plotly_white", title="Faithfulness by prompt")
        return figure


def _quantiles(values: Array, *, confidence: float, resamples: int, seed: int) -> dict[float, Estimate]:
    if not len(values):
        return dict.fromkeys(QUANTILES, _UNKNOWN)
    point = np.quantile(values, QUANTILES)
    n = len(values)
    drawn = np.quantile(values[resample(n, resamples, seed)], QUANTILES, axis=1).T
    left_out = np.stack([np.quantile(np.delete(values, i) if n > 1 else values, QUANTILES) for i in range(n)])
    return dict(zip(QUANTILES, estimates(Resampled(point, drawn, left_out, n), confidence), strict=True))


@numbers.checked(margin=numbers.POSITIVE)
@door
def prompt_faithfulness(
    model: Any,
    task: Task,
    mask: Any,
    ablation: str | None = None,
    *,
    margin: float = 0.2,
    objective: str | Objective | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> PromptFaithfulness:
    """Faithfulness of a circuit prompt by prompt: quantiles, spread, and the share of prompts near the model.

    The mean objective of a circuit may equal the model's because it does too well on some prompts and fails on others;
    the share of prompts within `margin` of the model tells. Costs one circuit.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        mask: bool `[source, target]`, or anything with such a `.mask` (a `Circuit`).
        margin: how near to 1 counts as near.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts.

    Raises:
        InputError: a mask of another shape, unknown names, a margin that is not positive.
    """
    graph, circuit = checked_circuit(model, mask)
    judged = judged_under(mask, task, ablation, objective)
    values = measure(
        model, task, circuit[None], judged.ablation, objective=judged.objective,
        batch_size=batch_size, memory=memory, quiet=quiet,
    )  # fmt: skip
    found = PromptFaithfulness.of(
        values.clean.numpy(), values.empty.numpy(), values.circuits[0].numpy(),
        margin=margin, confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip
    return replace(found, setting=judged.on(task, graph.kv))
