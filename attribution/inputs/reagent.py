"""ReAGent: token importance from what happens when tokens are replaced by likely others (arXiv:2402.00794).

L starts at random. Repeat: replace a random share of the tokens; c = p(y | x) - p(y | replaced);
L += logit((c + 1) / 2) where replaced, L += logit((1 - c) / 2) elsewhere;
until y stays among the three most likely tokens when all but the most important ones are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.inputs.method import Answer, Asked, TokenMethod, Values
from attribution.inputs.proposals import Proposer
from interp import numbers
from interp.errors import InputError, choose

CHANGES = ("target", "distribution")
_TOP = 3  # y must stay among so many


@dataclass(frozen=True)
class ReAGent(TokenMethod):
    """Importance from the change of the target's chances when tokens are replaced by likely others.

    Attributes:
        proposer: what writes other tokens: None: the explained model itself, if it is a language model; or a
            transformers masked or causal language model, or a function `(ids, places, generator) -> ids`.
        runs: that are averaged.
        share: of the tokens that is replaced in each step.
        kept: a run stops when the target stays among the top three after all but this share of the tokens are
            replaced.
        max_steps: where it stops in any case.
        change: `target` measures the change of the target's probability, as the authors' scripts do, `distribution`
            that of the whole next-token distribution (Hellinger distance), as their paper has it.
        seed: of what is replaced by what.
    """

    proposer: Any = None
    runs: int = 5
    share: float = 0.3
    kept: float = 0.3
    max_steps: int = 300
    change: str = "target"
    seed: int = 0

    name = "reagent"
    paper: ClassVar[str] = "Zhao & Shan 2024, arXiv:2402.00794"
    formula: ClassVar[tuple[str, str]] = ("R(2K+1)", "0")
    contrasts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        choose("change", self.change, CHANGES)
        share = replace(numbers.BETWEEN, advice="0.3 is usual")
        numbers.settle(self, runs=numbers.COUNT, max_steps=numbers.COUNT, share=share, kept=share)

    def values(self, asked: Asked) -> Values:
        return self.answer(asked).values

    @torch.no_grad()
    def answer(self, asked: Asked) -> Answer:
        """Importance of every token, mean over the runs that converged (over all, if none did), and which did."""
        values = torch.zeros(asked.inputs.ids.shape, dtype=torch.float64, device="cpu")
        converged = torch.zeros(len(asked), dtype=torch.bool, device="cpu")
        proposer = asked.explained.proposer(self.proposer)
        for i, one in enumerate(asked.each()):
            importance, done = _Run(self, one, proposer).finish()
            chosen = importance[done] if done.any() else importance
            values[i, : chosen.shape[1]] = chosen.mean(0)
            converged[i] = bool(done.any())
        return Answer(values, converged=converged)


class _Run:
    """All runs over one input, side by side."""

    def __init__(self, settings: ReAGent, one: Asked, proposer: Proposer) -> None:
        self.settings, self.explained, self.proposer = settings, one.explained, proposer
        explained, inputs = one.explained, one.inputs
        self.generator = torch.Generator().manual_seed(one.seeds[0])
        self.target = int(one.targets.positive[0])
        self.ids = inputs.ids.repeat(settings.runs, 1).to(explained.anatomy.device)
        self.lengths = inputs.lengths.repeat(settings.runs)
        bos = getattr(explained.tokenizer, "bos_token_id", None)
        self.free = torch.ones(self.ids.shape, dtype=torch.bool, device="cpu")
        self.free[:, 0] = int(inputs.ids[0, 0]) != bos  # a BOS token is no part of the text
        ends = [getattr(explained.tokenizer, f"{name}_token_id", None) for name in ("cls", "sep")]
        # nor are an encoder's marks
        self.free &= torch.tensor([i not in ends for i in inputs.ids[0].tolist()], device="cpu")
        self.n_free = int(self.free[0].sum())
        self.clean = self._probabilities(self.ids[:1])

    def finish(self) -> tuple[Float[Tensor, "run pos"], Bool[Tensor, " run"]]:
        """Importance in each run, as a distribution over the tokens, and whether the run converged."""
        settings = self.settings
        importance = torch.randn(self.ids.shape, generator=self.generator, dtype=torch.float64, device="cpu")
        done = torch.zeros(settings.runs, dtype=torch.bool, device="cpu")
        if self.n_free < 2:
            return torch.zeros_like(importance), done
        for _ in range(settings.max_steps):
            going = ~done  # runs that are done are not run on
            places = self._random_places(int(going.sum()))
            change = self._change(self._after(places))[:, None]
            importance[going] += torch.where(
                places, torch.logit((change + 1) / 2, 1e-6), torch.logit((1 - change) / 2, 1e-6)
            )
            done[going] = self._sufficient(importance[going])
            if done.all():
                break
        shares = importance.masked_fill(~self.free, -torch.inf).softmax(1)
        return shares, done

    def _random_places(self, runs: int) -> Bool[Tensor, "run pos"]:
        count, free = max(1, round(self.settings.share * self.n_free)), self.free[:runs]
        noise = torch.rand(free.shape, generator=self.generator, dtype=torch.float32, device="cpu").masked_fill(
            ~free, -1.0
        )
        return noise >= noise.topk(count, 1).values[:, -1:]

    def _sufficient(self, importance: Float[Tensor, "run pos"]) -> Bool[Tensor, " run"]:
        """Whether the target stays on top when only the most important tokens are kept."""
        count, free = max(1, round(self.settings.kept * self.n_free)), self.free[: len(importance)]
        ranked = importance.masked_fill(~free, -torch.inf)
        kept = ranked >= ranked.topk(count, 1).values[:, -1:]
        after = self._after(free & ~kept)
        return (after > after[:, self.target, None]).sum(1) < min(_TOP, after.shape[1] - 1)

    def _after(self, places: Bool[Tensor, "run pos"]) -> Float[Tensor, "run d_vocab"]:
        """Probabilities of the next token when some places are replaced."""
        ids, places = self.ids[: len(places)], places.to(self.ids.device)
        proposed = self.proposer(ids.clone(), places, self.generator)
        vocabulary = self.explained.anatomy.d_vocab
        if (
            not isinstance(proposed, Tensor)
            or proposed.shape != ids.shape
            or proposed.dtype not in (torch.int64, torch.int32)
            or not ((proposed >= 0) & (proposed < vocabulary)).all()
        ):
            raise InputError(
                f"proposer must return token ids from 0 to {vocabulary - 1}, {list(ids.shape)} like those it is given; "
                f"got {proposed!r}"
            )
        return self._probabilities(torch.where(places, proposed.to(ids.device), ids))

    def _probabilities(self, ids: Tensor) -> Float[Tensor, "run d_vocab"]:
        logits = self.explained.logits(self.explained.embed(ids), self.lengths[: len(ids)])
        return logits.double().softmax(-1).cpu()

    def _change(self, after: Float[Tensor, "run d_vocab"]) -> Float[Tensor, " run"]:
        if self.settings.change == "target":
            return (self.clean - after)[:, self.target]
        return ((self.clean.sqrt() - after.sqrt()).pow(2).sum(1) / 2).sqrt()
