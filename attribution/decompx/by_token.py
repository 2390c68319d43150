"""DecompX as a method of `tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.utils.rnn import pad_sequence

from attribution.decompx.carry import carry, groups_of_sources, held_run, refuse_others
from attribution.decompx.propagate import Options
from attribution.inputs.explained import Explainable
from attribution.inputs.method import Asked, TokenMethod, Values
from interp.inputs import Inputs
from interp.run import Run


@dataclass(frozen=True)
class DecompX(TokenMethod):
    """Contributions of decomposed vectors; settings as in `decompose`. Biases kept apart are left out."""

    bias: str = "absdot"
    activation: str = "zero-origin"
    gate: str = "held"

    name = "decompx"
    paper: ClassVar[str] = "Modarressi et al. 2023, arXiv:2306.02873"
    formula: ClassVar[tuple[str, str]] = ("T/2", "0")
    conserves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self.options  # they check themselves

    @property
    def options(self) -> Options:
        """What is carried how."""
        return Options(self.bias, self.activation, self.gate)

    def check(self, explained: Explainable, inputs: Inputs, run: Run) -> None:
        refuse_others(explained)
        for length in inputs.lengths.tolist():
            groups_of_sources(explained, length, self.options, run.memory)

    def values(self, asked: Asked) -> Values:
        rows = []
        for i, length in enumerate(asked.inputs.lengths.tolist()):
            positive, negative = int(asked.targets.positive[i]), int(asked.targets.negative[i])
            held = held_run(asked.explained, asked.inputs.ids[i, :length], positive, negative)
            groups = groups_of_sources(asked.explained, length, self.options, asked.run.memory)
            found = carry(held, self.options, groups).explained[self.options.columns :]
            if found.shape[1] > 1:  # every class of a classifier
                found = found[:, [positive]] - (found[:, [negative]] if negative >= 0 else 0)
            rows.append(found[:, 0])
        return pad_sequence(rows, batch_first=True)
