"""`NeuronScores`: scores of neurons, as a tensor or the largest alone, with what embeddings and biases contribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from attribution.units.base import UnitScores
from attribution.units.sinks import AXES
from interp.errors import InputError


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NeuronScores(UnitScores):
    """How much each neuron of the MLPs speaks for what is explained (or, where negative, against it).

    Attributes:
        values: float [n, layer, pos, d_mlp] on the CPU, 0 where nothing is scored (padding; positions left out; for a
            task those before the first difference); without the axes that were summed. Of mixtures d_mlp counts
            experts one after the other. None where the largest alone were kept, and for `exact`. Where the answers
            of a task have several tokens, n counts rows, each a prompt with one of its answers behind it, here and
            below: what a prompt's neuron does is the sum over its rows.
        activations: likewise; of mixtures times the routing weight. None where `values` is, and for sums.
        kept: the largest, or the ones patched: columns prompt, layer, position, neuron, activation, score.
        embedding: float [n, pos]: the same score for the tokens' embeddings; None for `exact`.
        biases: what biases contribute: columns prompt, place, layer (-1: behind the last), position, score. Of a task
            those of output matrices under ablation "zero", which makes them nothing: of other two runs none differ.
        mask: bool [n, pos], True where neurons are scored.
        explained: float [n]: the logit, contrast, sum or objective of each (clean) prompt (of a row, its prompt's).
        tokens, target_tokens: the prompts and what is explained, to read.
        axes: those of `values`.
        method, rules, ablation, settings, model, seconds: how the scores were made; ablation "zero" for prompts.
        paired: whether two runs are compared (a task) or one is taken as it is (prompts).
    """

    embedding: Float[Tensor, "n pos"] | None
    biases: pd.DataFrame

    units: ClassVar[str] = "neurons"
    all_axes: ClassVar = AXES

    def conservation(self) -> pd.DataFrame:
        """Whether embeddings and biases add up to what is explained.

        Columns prompt, embedding, biases, explained, ratio (of their sum to what is explained). Under rules that
        conserve relevance (`relp-ah`) the ratio is 1. Raises `InputError` for a task and for `exact`.
        """
        if self.paired or self.embedding is None:
            raise InputError("sums to what is explained hold for prompts scored by gradients, not for a task")
        biases = self.biases.groupby("prompt")["score"].sum().reindex(range(len(self.mask)), fill_value=0.0)
        embedding, explained = (x.double().numpy() for x in (self.embedding.sum(1), self.explained))
        frame = pd.DataFrame({"prompt": range(len(self.mask)), "embedding": embedding, "biases": biases.to_numpy()})
        return frame.assign(explained=explained, ratio=(frame["embedding"] + frame["biases"]) / explained)

    def _unit(self, row: dict[Any, Any]) -> str:
        return f"layer {row['layer']} neuron {row['neuron']}"


def axes_without(over: Sequence[str], axes: Sequence[str] = AXES) -> tuple[str, ...]:
    """The axes that are left of all."""
    return tuple(axis for axis in axes if axis not in over)
