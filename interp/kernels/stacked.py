"""Runs of circuits of nodes, whatever nodes are: stacked along the batch, each mixed with what ablation gives.

A node of weight w gives w times what it computes in this very run, downstream of all ablations before it, and 1 - w
times what it gives under the ablation. One plain forward pass for each circuit; circuits over the same prompts share
the prefix and the counterfactual run. Weights may be real numbers: gradients pass through them.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.ablation import Ablator
from interp.kernels.alignment import corrupted_embedding
from interp.kernels.batching import Batch
from interp.kernels.forward import Residual, answer_rows, run_blocks, unembed
from interp.kernels.grain import BatchRunner, Grain
from interp.kernels.unit_constants import UnitConstants
from interp.node_mask import OF_NEURONS, Spans, positions_of, with_input
from interp.parts import working
from interp.tasks.prompts import Prompts
from interp.tasks.refusals import refuse_unequal

Weights = Bool[Tensor, "circuit ... unit"] | Float[Tensor, "circuit ... unit"]  # masks, or real weights


@dataclass(frozen=True, eq=False, kw_only=True)
class NodeGrain(Grain):
    """Masks over the nodes of a level (`interp.node_mask`); means are taken over `prompts`.

    `fitted` gives the constants of neurons or features under `optimal` ablation, at the first use.

    Raises `InputError` for positions beyond the prompts, and where prompts of unequal lengths have no positions in
    common.
    """

    anatomy: Anatomy
    ablator: Ablator
    prompts: Prompts
    level: str
    spans: Spans = None
    batch_size: int | None = None
    memory: int | None = None
    fitted: Callable[[], UnitConstants] | None = None

    def __post_init__(self) -> None:
        if self.level in (*OF_NEURONS, "feature") and self.ablator.ablation == "patch":
            refuse_unequal(self.prompts, f"circuits of {self.level}s")
        if self.spans is None:
            return
        length = self.prompts.clean.shape[1]
        if bool((self.prompts.lengths != length).any()):
            raise InputError(
                "spans names absolute positions, and the prompts are of unequal lengths: a position is another word in "
                "each; use nodes at all positions (spans=None)"
            )
        last = max(positions_of(self.spans))
        if last >= length:
            raise InputError(f"spans names position {last}; the prompts have {length} tokens")

    @property
    @abstractmethod
    def full(self) -> Tensor:
        """The mask that holds every node, on the CPU."""

    @abstractmethod
    def runner(self, batch: Batch) -> StackedRunner: ...

    @abstractmethod
    def totals(self, of: Callable[[Tensor], Tensor]) -> list[Float[Tensor, "pos ..."]]:
        """Sums over clean prompts of a function of what units give, by position, part by part; one forward pass.

        Parts are layers of neurons, or the features of each dictionary, and behind these their errors.
        """

    @abstractmethod
    def constants(self, parts: Sequence[Float[Tensor, "2 ..."]], losses: Float[Tensor, "2 1"]) -> UnitConstants:
        """Those parts together."""

    def empty(self) -> Tensor:
        return with_input(torch.zeros_like(self.full), self.level)

    def sizes(self, masks: Tensor) -> Sequence[int]:
        return [1] * len(masks)


class StackedRunner(BatchRunner):
    """Runs circuits of nodes over one batch of prompts."""

    @torch.no_grad()
    def __init__(self, grain: NodeGrain, batch: Batch) -> None:
        self.batch, self.anatomy = batch, grain.anatomy
        self.frame = batch.frame(grain.anatomy)
        self.embedded = grain.anatomy.embed(batch.prompts.clean[:, batch.start :], self.frame.positions)
        self.places = self._places(grain.spans)

    @abstractmethod
    def run(self, x: Residual, weights: Weights, checkpointed: bool) -> Residual:
        """From stacked embeddings to the last residual stream of each circuit."""

    @abstractmethod
    def give(self, parts: Sequence[Float[Tensor, "pos ..."]]) -> None:
        """Let ablated units give what each part says for each position; parts as in `NodeGrain.totals`."""

    @abstractmethod
    def held(self) -> list[Tensor]:
        """What is held of nodes under the ablation."""

    def _places(self, spans: Spans) -> Tensor | None:
        """For each position that is run its span, or the number of spans where it has none."""
        if spans is None:
            return None
        places = torch.full((self.frame.n_positions,), len(spans), dtype=torch.long, device=self.embedded.device)
        for i, position in enumerate(positions_of(spans)):
            if position >= self.batch.start:
                places[position - self.batch.start] = i
        return places

    @torch.no_grad()
    def corrupted(self) -> Residual:
        """The embeddings of the corrupted prompts."""
        return corrupted_embedding(self.anatomy, self.batch, self.frame)

    @functools.cached_property
    def clean_logits(self) -> Float[Tensor, "batch d_vocab"]:
        with torch.no_grad():
            clean = run_blocks(self.frame, self.embedded)
            logits: Tensor = unembed(self.anatomy, answer_rows(clean, self.frame, self.batch.prompts))
        return logits

    def logits(self, masks: Weights, checkpointed: bool = False) -> Float[Tensor, "circuit batch d_vocab"]:
        """Logits at the last real positions under each mask (bool), or under real weights, which take gradients."""
        weights = masks.to(self.embedded.device)
        by_circuit: Tensor = self._logits(len(weights), weights, checkpointed).unflatten(0, (len(weights), -1))
        return by_circuit

    def logits_apart(self, weights: Weights, checkpointed: bool = False) -> Float[Tensor, "batch d_vocab"]:
        """Logits of each prompt under weights of its own, `[prompt, *axes]`; of all of a prompt's answers."""
        answers = self.batch.prompts.answers
        weights = weights.to(self.embedded.device)
        return self._logits(1, weights if answers is None else weights[answers.prompt], checkpointed)

    def _logits(self, copies: int, weights: Weights, checkpointed: bool) -> Float[Tensor, "row d_vocab"]:
        x = self.run(self.embedded.repeat(copies, 1, 1), weights, checkpointed)
        logits: Tensor = unembed(self.anatomy, answer_rows(x, self.frame, self.batch.prompts))
        return logits

    def missing(self, weights: Weights | None) -> Tensor | None:
        """1 - w, [circuit, 1, pos or 1, unit]; None where all nodes are in, or there are none."""
        if weights is None:
            return None
        if weights.dtype == torch.bool:
            if self.places is None and bool(weights.all()):
                return None
            weights = weights.to(working(self.embedded).dtype)
        if self.places is None:
            return 1 - weights[:, None, None]
        beyond = weights.new_zeros(len(weights), 1, weights.shape[-1])
        return 1 - torch.cat((weights, beyond), 1)[:, None, self.places]

    def change(self, missing: Tensor, other: Tensor, own: Tensor) -> Tensor:
        """(1 - w) (other - own), for nodes `own` of stacked circuits; with a row each it is that row's `other`."""
        by_circuit, other = working(own).unflatten(0, (len(missing), -1)), working(other)
        if by_circuit.shape[1] == 1:
            other = other.unsqueeze(1)
        changed: Tensor = (missing * (other - by_circuit)).flatten(0, 1)
        return changed

    def n_bytes(self) -> int:
        held = [self.embedded, *self.held(), *(part for pair in self.frame.prefix or () for part in pair)]
        return sum(tensor.element_size() * tensor.nelement() for tensor in held)
