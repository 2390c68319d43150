"""`TokenMethod`: a way to score input tokens, as an object that has all it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from attribution.inputs.explained import Embeddings, Explainable
from attribution.inputs.targets import Targets
from attribution.rules.sets import RuleSet
from interp.inputs import Inputs
from interp.plugins import fields_of
from interp.run import Run

Values = Float[Tensor, "n pos"]
_BETWEEN_SEEDS = 7919  # so that neighbours in a batch and neighbouring seeds draw different numbers


@dataclass(frozen=True)
class Asked:
    """What a method is asked: some inputs of a model and what is explained of each.

    Attributes:
        explained: the model, with gradients by the method's rules.
        inputs, targets: right-padded ids, and the logit (or difference of two) that is explained.
        seeds: an input's own, so that it draws the same whatever stands beside it.
        size: how many rows go through the model at once.
        run: how runs are made.
    """

    explained: Explainable
    inputs: Inputs
    targets: Targets
    seeds: tuple[int, ...]
    size: int
    run: Run

    @classmethod
    def of(cls, explained: Explainable, inputs: Inputs, targets: Targets, seed: int, run: Run) -> Asked:
        """Of all inputs; the size follows from the budget."""
        seeds = tuple(seed + _BETWEEN_SEEDS * i for i in range(len(inputs)))
        return cls(explained, inputs, targets, seeds, explained.batch_size(inputs, run), run)

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, chosen: slice) -> Asked:
        """Of some inputs, with no more padding than they need."""
        inputs, targets = self.inputs.select(chosen), self.targets.select(chosen)
        return replace(self, inputs=inputs, targets=targets, seeds=self.seeds[chosen])

    def batches(self) -> Iterator[tuple[slice, Asked]]:
        """In parts of `size` inputs."""
        for first in range(0, len(self), self.size):
            where = slice(first, min(len(self), first + self.size))
            yield where, self.select(where)

    def each(self) -> Iterator[Asked]:
        """Input by input."""
        return (self.select(slice(i, i + 1)) for i in range(len(self)))

    @property
    def embeddings(self) -> Embeddings:
        """What the tokens are embedded as."""
        return self.explained.embed(self.inputs.ids)

    @property
    def details(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
        """What `explained.value` takes behind embeddings: lengths, and both targets."""
        return self.inputs.lengths, self.targets.positive, self.targets.negative

    def value(self, embeddings: Embeddings) -> Float[Tensor, " n"]:
        """The explained logit, or difference of two, from embeddings on."""
        return self.explained.value(embeddings, *self.details)

    def baseline(self, baseline: str | int) -> Embeddings:
        """What the tokens are replaced by."""
        return self.explained.baseline(self.inputs, baseline)


@dataclass(frozen=True)
class Answer:
    """Scores of tokens, whatever stands at padding, and what was found out beside them.

    Attributes:
        values: how much each token speaks for what is explained.
        converged: of methods that go on until they converge: whether they did.
        baseline_logits: of methods whose values should add up to a difference from a baseline: what is explained there.
    """

    values: Float[Tensor, "n pos"]
    converged: Bool[Tensor, " n"] | None = None
    baseline_logits: Float[Tensor, " n"] | None = None


class TokenMethod(ABC):
    """A way to score input tokens. Sub-classes are frozen dataclasses whose fields are their settings.

    A method of your own defines `name`, `paper` and `values`; where `tokens` takes a name, it takes an instance::

        @dataclass(frozen=True)
        class Lengths(TokenMethod):
            name: ClassVar[str] = "lengths"
            paper: ClassVar[str] = "ours"

            def values(self, asked):
                return asked.embeddings.norm(dim=-1)

    `attribution.TOKEN_METHODS.register("lengths", Lengths)` gives it a name in this process, an entry point
    `faithful_circuits.token_methods` in every process, and `"module:Lengths"` is taken as it is.

    Attributes:
        name: what tables and results call it.
        paper: where it comes from.
        formula: forward and backward passes per input, for tables; T = tokens, S = steps or samples, R = runs,
            K = steps taken.
        conserves: whether its values should add up to what is explained.
        contrasts: whether it explains a difference of two logits.
        rules: backward rules under which it takes gradients; None: the plain gradient, or no gradient at all.
        seed: of what it draws.
    """

    name: str
    paper: ClassVar[str] = ""
    formula: ClassVar[tuple[str, str]] = ("", "")
    conserves: ClassVar[bool] = False
    contrasts: ClassVar[bool] = True
    rules: str | RuleSet | None = None
    seed: int = 0

    @abstractmethod
    def values(self, asked: Asked) -> Float[Tensor, "n pos"]:
        """How much each token speaks for what is explained; what stands at padding is dropped."""

    def check(self, explained: Explainable, inputs: Inputs, run: Run) -> None:  # noqa: B027
        """Raise `InputError`, in a sentence, where the method has no meaning; called before any work."""

    def answer(self, asked: Asked) -> Answer:
        """`values`, with what was found out beside them."""
        return Answer(self.values(asked))

    def settings(self) -> dict[str, Any]:
        """What results remember of how they were made; backward rules are told as they were fitted."""
        return {
            name: value if isinstance(value, int | float | str) else repr(value)
            for name, value in fields_of(self).items()
            if value is not None and name != "rules"
        }
