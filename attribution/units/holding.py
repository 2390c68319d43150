"""What is held of scores of units, all, sums or the largest alone, and what results of neurons and features share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Method
from attribution.units.asked import Asked
from attribution.units.base import SUMMABLE
from attribution.units.result import axes_without
from attribution.units.sinks import AXES, Held, Largest, Sink, Summed
from interp import numbers
from interp.errors import InputError, choose
from interp.setting import Setting


@dataclass(frozen=True)
class Holding:
    """What the caller wants held: `keep` of the largest |score|, sums `over` axes, nothing at `leave_out`."""

    keep: int | None
    over: tuple[str, ...]
    leave_out: tuple[int, ...]

    @classmethod
    def of(cls, keep: int | None, summed: str | Sequence[str], leave_out: Sequence[int]) -> Holding:
        """From a function's arguments; raises `InputError` for unknown axes, and for both the largest and sums."""
        over = (summed,) if isinstance(summed, str) else tuple(summed)
        for axis in over:
            choose("summed", axis, SUMMABLE)
        if over and keep is not None:
            raise InputError("keep holds the largest of single scores, summed their sums; give one of the two")
        return cls(keep, over, tuple(numbers.many("leave_out", leave_out, numbers.whole, numbers.FROM_ZERO)))

    def check(self, method: Method, only: Any, units: str) -> None:
        """Raise `InputError` for what does not go with gradients, or with patching."""
        if isinstance(method, GradientMethod):
            if only is not None:
                raise InputError(f"only goes with method='exact'; gradients score all {units} at once")
        elif self.keep is not None or self.over:
            raise InputError(f"method={method.name!r} patches the {units} in only; keep and summed are for gradients")

    def sink(self, setting: Setting, counts: Sequence[int], mask: Bool[Tensor, "row pos"], units: str) -> Sink:
        """Where scores go; `counts`: how many units each layer, or dictionary, has."""
        available = int(mask.sum()) * sum(counts)
        if self.keep is not None and self.keep > available:
            raise InputError(f"keep={self.keep:,} is more than there are: {available:,} scores of {units}")
        shape = setting.prompts.n_rows, len(counts), setting.prompts.clean.shape[1], max(counts)
        dtype = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
        if self.over:
            return Summed(shape, self.over, dtype)
        return Held(shape, dtype) if self.keep is None else Largest(self.keep, dtype)

    def of_gradients(
        self, question: Asked, method: GradientMethod, sink: Sink, axes: Sequence[str] = AXES
    ) -> dict[str, Any]:
        """What a result of gradients says, beside what is its own."""
        rules = method.backward(question.setting)
        return {
            "values": sink.values if isinstance(sink, Held | Summed) else None,
            "activations": sink.activations if isinstance(sink, Held) else None,
            "kept": sink.best.frame(axes) if isinstance(sink, Largest) else None,
            "axes": axes_without(self.over, axes),
            "rules": rules.name if rules.rules else "gradient",
            "settings": {**method.settings(), **self._settings(question)},
            **_told(question, method),
        }

    def of_patching(
        self, question: Asked, method: Method, kept: pd.DataFrame, axes: tuple[str, ...] = AXES
    ) -> dict[str, Any]:
        """The same of units that were really patched."""
        return {
            "values": None,
            "activations": None,
            "kept": kept,
            "axes": axes,
            "rules": "",
            "settings": self._settings(question),
            **_told(question, method),
        }

    def _settings(self, question: Asked) -> dict[str, Any]:
        return {"objective": question.setting.goal.name, "leave_out": list(self.leave_out)}


def _told(question: Asked, method: Method) -> dict[str, Any]:
    return {
        "tokens": question.tokens,
        "target_tokens": question.target_tokens,
        "method": method.name,
        "ablation": str(question.setting.ablation),
        "paired": question.paired,
        "model": question.setting.anatomy.name,
    }
