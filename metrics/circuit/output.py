"""Agreement of the whole output distribution, which the objective sees only a part of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers, theme
from interp.conditions import Conditions, titled
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.objectives import Objective
from interp.result import Result
from interp.run import RunKeywords
from interp.running import door
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from metrics.circuit.controls import random_controls
from metrics.circuit.evaluate import GrainKeywords, judging, together
from metrics.statistics import bootstrapped, share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Array = NDArray[np.float64]


def _same_argmax(
    logits: Float[Tensor, "n answer vocab"], prompts: Prompts, clean_logits: Float[Tensor, "n answer vocab"] | None
) -> Float[Tensor, " n"]:
    assert clean_logits is not None
    return (logits.argmax(2) == clean_logits.argmax(2)).all(1).to(logits.dtype)


SAME_ARGMAX = Objective("same-argmax", _same_argmax, differentiable=False, needs_clean=True, positions="answer")
OUTPUT_OBJECTIVES = ("kl", SAME_ARGMAX)


_USUAL = Interval()


@dataclass(frozen=True, repr=False)
class OutputAgreement(Result):
    """How near a circuit's next-token distribution is to the model's, prompt by prompt.

    Attributes:
        kl: mean KL(model || circuit) over prompts in nats, at the answer position; `kl_empty` that of the empty
            circuit, `kl_random` that of random circuits of as many edges.
        same: share of prompts whose most likely token is the model's, with Wilson's interval; `same_empty`,
            `same_random` as above (the last is a mean over circuits, with a bootstrap interval).
        kl_values, same_values: the circuit's, prompt by prompt: [n].
        setting: ablation and prompts that it was judged under; the objective is none of the task's.
    """

    matching: ClassVar = (("kl_values", "same_values"),)

    kl: Estimate
    same: Estimate
    kl_empty: Estimate
    same_empty: Estimate
    kl_random: Estimate | None
    same_random: Estimate | None
    kl_values: Array
    same_values: Array
    setting: Conditions | None = None

    @classmethod
    def of(
        cls,
        minus_kl: CircuitValues,
        same: CircuitValues,
        interval: Interval = _USUAL,
        setting: Conditions | None = None,
    ) -> OutputAgreement:
        """From what a setting measures for `OUTPUT_OBJECTIVES`: the circuit first, random ones behind it."""

        def of_three(values: CircuitValues, sign: float, most: float) -> tuple[Array, list[Estimate]]:
            rows = [values.circuits[0], values.empty]
            if len(values.circuits) > 1:
                rows.append(values.circuits[1:].mean(0))
            # a divergence of zero may come out as minus a rounding
            array = np.maximum(sign * torch.stack(rows).double().numpy(), 0.0)
            return array, bootstrapped(array, lambda means: means, interval, possible=(0.0, most))

        kl_values, (kl, kl_empty, *kl_random) = of_three(minus_kl, -1.0, np.inf)
        same_values, (_, _, *same_random) = of_three(same, 1.0, 1.0)
        own, empty = (share(row, interval.confidence) for row in same_values[:2])
        return cls(
            kl=kl, same=own, kl_empty=kl_empty, same_empty=empty,
            kl_random=kl_random[0] if kl_random else None, same_random=same_random[0] if same_random else None,
            kl_values=kl_values[0], same_values=same_values[0], setting=setting,
        )  # fmt: skip

    def records(self) -> list[dict[str, Any]]:
        """The rows of `to_frame()` as dictionaries."""
        rows = []
        for name, kl, same in (
            ("circuit", self.kl, self.same),
            ("empty", self.kl_empty, self.same_empty),
            ("random", self.kl_random, self.same_random),
        ):
            if kl is not None and same is not None:
                rows.append(
                    {
                        "of": name, "kl": kl.value, "kl_low": kl.low, "kl_high": kl.high,
                        "same_argmax": same.value, "same_low": same.low, "same_high": same.high,
                    }
                )  # fmt: skip
        return rows

    def to_frame(self) -> pd.DataFrame:
        """A row for the circuit, the empty circuit and random ones: kl and same_argmax, each with low and high."""
        return pd.DataFrame(self.records())

    @property
    def _under(self) -> str:
        return "" if self.setting is None else f" under {self.setting.ablation} ablation"

    def headline(self) -> str:
        return (
            f"{len(self.kl_values)} prompts{self._under}: KL(model || circuit) {self.kl}, share of equal top tokens "
            f"{self.same}"
        )

    def figure(self) -> Figure:
        """KL and equal top tokens beside those of the empty circuit and of random ones; KL prompt by prompt."""
        from plotly.subplots import make_subplots

        titles = ["KL(model || circuit)", "same top token", "KL by prompt"]
        figure = make_subplots(cols=3, subplot_titles=titles, horizontal_spacing=0.13)
        rows = self.records()
        names, colours = [row["of"] for row in rows], [theme.OWN, *[theme.CONTROL] * (len(rows) - 1)]
        columns = (("kl", "kl_low", "kl_high"), ("same_argmax", "same_low", "same_high"))
        for column, (value, low, high) in enumerate(columns, 1):
            error = theme.error_bars([Estimate(row[value], row[low], row[high]) for row in rows])
            figure.add_bar(
                x=names, y=[row[value] for row in rows], error_y=error, marker_color=colours, row=1, col=column
            )
        figure.add_histogram(x=self.kl_values, nbinsx=30, marker={"color": theme.OWN}, row=1, col=3)
        figure.update_yaxes(title="nats", col=1)
        figure.update_yaxes(title="share of prompts", range=[0, 1], col=2)
        figure.update_yaxes(title="prompts", col=3)
        figure.update_xaxes(title="circuit", col=1)
        figure.update_xaxes(title="circuit", col=2)
        figure.update_xaxes(title="nats", col=3)
        figure.update_layout(showlegend=False)
        title = titled(self.setting, "the circuit's whole output")
        return theme.styled(figure, title, f"KL {self.kl} nats, same top token {self.same}")


class OutputKeywords(GrainKeywords, RunKeywords, IntervalKeywords, total=False):
    """The keywords of `output_agreement`."""

    ablation: str | None


@numbers.checked(n_random=numbers.FROM_ZERO)
@door
def output_agreement(
    model: Any, task: Task, circuit: Any, *, n_random: int = 3, **keywords: Unpack[OutputKeywords]
) -> OutputAgreement:
    """KL(model || circuit) at the answer position, and how often both have the same most likely token.

    KL = sum over tokens of p_model log(p_model / p_circuit), in nats, mean over prompts. A circuit may be faithful in
    the objective, a contrast of two answers, and predict something else altogether. Costs 1 + `n_random` circuits.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: bool `[source, target]`, anything with such a `.mask` (a `Circuit`), or nodes as in `evaluate`.
        n_random: so many random circuits of as many edges (paths from input to logits), or of nodes of the same layers
            and similar norms, beside it.
        level, spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws the random circuits.

    Raises:
        InputError: a mask of another shape, a negative `n_random`, unknown names.
    """
    check_keywords("output_agreement", keywords, OutputKeywords)
    setting, mask = judging(model, task, circuit, {**keywords, "objective": SAME_ARGMAX})
    interval = Interval.of(keywords)
    others = random_controls(setting, [mask], n_random, interval.seed)
    minus_kl, same = setting.measure_all(together([mask, *others]), OUTPUT_OBJECTIVES)
    return OutputAgreement.of(minus_kl, same, interval, replace(setting.conditions, objective=None))
