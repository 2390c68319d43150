"""Agreement of the whole output distribution, which the objective sees only a part of."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective
from interp.running import door
from interp.setting import Setting, judged_under
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from metrics.circuit.evaluate import checked_circuit, measure_all
from metrics.circuit.samples import random_circuit
from metrics.statistics import Estimate, bootstrap, share

Array = NDArray[np.float64]


def _same_argmax(
    logits: Float[Tensor, "n vocab"], prompts: Prompts, clean_logits: Float[Tensor, "n vocab"] | None
) -> Float[Tensor, " n"]:
    assert clean_logits is not None
    return (logits.argmax(1) == clean_logits.argmax(1)).to(logits.dtype)


SAME_ARGMAX = Objective("same-argmax", _same_argmax, differentiable=False, needs_clean=True)
OUTPUT_OBJECTIVES = ("kl", SAME_ARGMAX)


@dataclass(frozen=True, repr=False)
class OutputAgreement:
    """How near a circuit's next-token distribution is to the model's, prompt by prompt.

    Attributes:
        kl: mean KL(model || circuit) over prompts in nats, at the answer position; `kl_empty` that of the empty
            circuit, `kl_random` that of random circuits of as many edges.
        same: share of prompts whose most likely token is the model's, with Wilson's interval; `same_empty`,
            `same_random` as above (the last is a mean over circuits, with a bootstrap interval).
        kl_values, same_values: the circuit's, prompt by prompt: [n].
        setting: ablation and prompts that it was judged under; the objective is none of the task's.
    """

    kl: Estimate
    same: Estimate
    kl_empty: Estimate
    same_empty: Estimate
    kl_random: Estimate | None
    same_random: Estimate | None
    kl_values: Array
    same_values: Array
    setting: Setting | None = None

    @classmethod
    @numbers.checked()
    def of(
        cls,
        minus_kl: CircuitValues,
        same: CircuitValues,
        *,
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> OutputAgreement:
        """From what `measure_all` gives for `OUTPUT_OBJECTIVES`: the circuit first, random ones behind it."""

        def of_three(values: CircuitValues, sign: float, most: float) -> tuple[Array, list[Estimate]]:
            rows = [values.circuits[0], values.empty]
            if len(values.circuits) > 1:
                rows.append(values.circuits[1:].mean(0))
            # a divergence of zero may come out as minus a rounding
            array = np.maximum(sign * torch.stack(rows).double().numpy(), 0.0)
            return array, bootstrap(
                array, lambda means: means,
                confidence=confidence, resamples=resamples, seed=seed, possible=(0.0, most),
            )  # fmt: skip

        kl_values, (kl, kl_empty, *kl_random) = of_three(minus_kl, -1.0, np.inf)
        same_values, (_, _, *same_random) = of_three(same, 1.0, 1.0)
        own, empty = (share(row, confidence) for row in same_values[:2])
        return cls(
            kl=kl, same=own, kl_empty=kl_empty, same_empty=empty,
            kl_random=kl_random[0] if kl_random else None, same_random=same_random[0] if same_random else None,
            kl_values=kl_values[0], same_values=same_values[0],
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

    def __repr__(self) -> str:
        table = self.to_frame().to_string(index=False, float_format=lambda v: f"{v:.3f}")
        return (
            f"OutputAgreement on {len(self.kl_values)} prompts{self._under}: KL(model || ...) and share of equal top "
            f"tokens\n{table}"
        )

    def _repr_html_(self) -> str:
        head = html.escape(
            f"KL(model || ...) and share of equal top tokens, {len(self.kl_values)} prompts{self._under}"
        )
        return f"<p>{head}</p>{self.to_frame().to_html(index=False, border=0, float_format='{:.3f}'.format)}"


@numbers.checked()
@door
def output_agreement(
    model: Any,
    task: Task,
    mask: Any,
    *,
    random: int = 3,
    ablation: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> OutputAgreement:
    """KL(model || circuit) at the answer position, and how often both have the same most likely token.

    KL = sum over tokens of p_model log(p_model / p_circuit), in nats, mean over prompts. A circuit may be faithful in
    the objective, a contrast of two answers, and predict something else altogether. Costs 1 + `random` circuits.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        mask: bool `[source, target]`, or anything with such a `.mask` (a `Circuit`).
        random: so many random circuits of as many edges (paths from input to logits) beside it.
        ablation, batch_size, memory, quiet: as in `evaluate`.
        confidence, resamples, seed: of the intervals over prompts; `seed` also draws the random circuits.

    Raises:
        InputError: a mask of another shape, a negative `random`, unknown names.
    """
    graph, circuit = checked_circuit(model, mask)
    judged = judged_under(mask, task, ablation, SAME_ARGMAX)
    others = [random_circuit(graph, int(circuit.sum()), seed + i) for i in range(random)]
    minus_kl, same = measure_all(
        model, task, torch.stack([circuit, *others]), judged.ablation, objectives=OUTPUT_OBJECTIVES,
        batch_size=batch_size, memory=memory, quiet=quiet,
    )  # fmt: skip
    found = OutputAgreement.of(minus_kl, same, confidence=confidence, resamples=resamples, seed=seed)
    return replace(found, setting=replace(judged.on(task, graph.kv), objective=None))
