"""`ExplanationMetric`: a way to judge an explanation sample by sample, as an object that has all it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from interp.errors import InputError
from interp.interval import Interval
from interp.run import Run
from metrics.explanation.baselines import Baseline
from metrics.explanation.prediction import Array, Flags, Indices, Subject
from metrics.explanation.samples import PerSample


@dataclass(frozen=True)
class Case:
    """What an explanation is judged on.

    Attributes:
        predict, inputs, target, baseline, real: as the user gave them.
        subject: the same, checked; the model has run on the inputs as they are.
        n_random: how often the scores are dealt out at random, for comparison.
        interval: of means over samples; its seed is that of everything that is drawn.
        explain: (inputs, target) -> attributions, None where these were handed in as an array.
    """

    predict: Callable[[Any], Any]
    inputs: Any
    target: Any
    baseline: Baseline | None
    real: Any
    subject: Subject
    n_random: int
    interval: Interval
    explain: Callable[[Any, Any], Any] | None = None

    @classmethod
    def of(
        cls,
        predict: Callable[[Any], Any],
        inputs: Any,
        attributions: Any,
        keywords: Mapping[str, Any],
        *,
        target: Any = None,
        baseline: Baseline | None = None,
        real: Any = None,
        n_random: int = 0,
        explain: Callable[[Any, Any], Any] | None = None,
    ) -> Case:
        """From the arguments of a metric's function; run and interval are among the `keywords`."""
        interval, run = Interval.of(keywords), Run.of(keywords)
        subject = Subject.of(
            predict, inputs, attributions, target=target, baseline=baseline, real=real, run=run, seed=interval.seed
        )
        return cls(predict, inputs, target, baseline, real, subject, n_random, interval, explain)

    @property
    def tensor(self) -> Tensor:
        """The inputs as a tensor."""
        return self.subject.inputs

    @property
    def attributions(self) -> Array:
        """Scores in the shape that they were given in; a copy, which a metric may change."""
        return self.subject.attributions.reshape(-1, *self.subject.grid).copy()

    @property
    def flags(self) -> Flags:
        """Which elements are real, `[n, element]`."""
        return self.subject.real

    @property
    def sizes(self) -> Indices:
        """Elements of each sample."""
        return self.subject.sizes


class ExplanationMetric(ABC):
    """A way to judge explanations sample by sample. Sub-classes are frozen dataclasses whose fields are settings.

    A metric of your own defines `name` and `run`; `compare_explanations` takes an instance wherever it takes a name::

        @dataclass(frozen=True)
        class TopShare(ExplanationMetric):
            share: float = 0.1
            name = "top-share"

            def run(self, case):
                values = my_values(case.predict, case.inputs, case.attributions, self.share)  # [n]
                return PerSample(columns={"top-share": values}, better={"top-share": "higher"}, interval=case.interval)

    `metrics.EXPLANATION_METRICS.register("top-share", TopShare)` gives it a name in this process, an entry point
    `faithful_circuits.explanation_metrics` in every process.

    Attributes:
        name: what tables call it, and under which its settings go.
        columns: name in a report -> column of the result of `run`; those of ours may be asked for one by one. Empty:
            all columns, the only one under the metric's name.
    """

    name: str
    columns: ClassVar[Mapping[str, str]] = {}

    def objection(self, case: Case) -> str | None:
        """Why it does not suit the inputs or the explanation, if it does not; asked before any metric runs."""
        return None

    @abstractmethod
    def run(self, case: Case) -> PerSample:
        """Values for each sample."""

    def check(self, case: Case) -> None:
        """Raise `InputError` with the objection, if there is one."""
        if problem := self.objection(case):
            raise InputError(problem)
