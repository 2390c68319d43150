"""In which order tokens are tried: at random, or as the gradient of the distance says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError, choose
from interp.inversion.reading import Reading
from interp.numbers import COUNT, FROM_ZERO, POSITIVE, Limits, settle

MANY = 1024  # candidates a run, once there is no more to go by


class Shared:
    """States that other prompts want too: those of tokens at the first position, as far as they were run."""

    def __init__(self, words: Float[Tensor, "d_vocab d_model"]) -> None:
        self.known = torch.zeros(len(words), dtype=torch.bool, device=words.device)
        self.states = torch.zeros_like(words)


class Search:
    """What is known while the token at one position is looked for; orders read it.

    Attributes:
        target: float [d_model]: the state that is given.
        words: float [d_vocab, d_model]: what enters the first block with each token.
        distance: float [d_vocab]: of the states of those tried from `target`; infinite for the others.
        seen, states: int [candidate], float [candidate, d_model]: the tokens that were tried first, and their states.
    """

    def __init__(
        self,
        reading: Reading,
        target: Float[Tensor, " d_model"],
        words: Float[Tensor, "d_vocab d_model"],
        shared: Shared | None = None,
    ) -> None:
        self.reading, self.target, self.words, self._shared = reading, target, words, shared
        self.distance = torch.full((len(words),), float("inf"), dtype=target.dtype, device=target.device)
        self.seen = torch.empty(0, dtype=torch.long, device=target.device)
        self.states = target.new_empty(0, len(target))

    @property
    def tried(self) -> Tensor:
        """bool [d_vocab]: the tokens whose states are known."""
        return self.distance.isfinite()

    @torch.no_grad()
    def attempt(self, tokens: Int[Tensor, " candidate"]) -> None:
        """Learn the distances of some tokens."""
        for few in tokens.to(self.words.device).split(MANY):
            found = self._run(few).to(self.target.dtype)
            self.distance[few] = (found - self.target).norm(dim=1)
            if len(self.seen) < MANY:
                self.seen, self.states = torch.cat((self.seen, few)), torch.cat((self.states, found))

    def _run(self, tokens: Int[Tensor, " candidate"]) -> Float[Tensor, "candidate d_model"]:
        if self._shared is None:
            return self.reading.states(self.words[tokens])
        new = tokens[~self._shared.known[tokens]]
        if len(new):
            self._shared.states[new], self._shared.known[new] = self.reading.states(self.words[new]), True
        return self._shared.states[tokens]


class Order(ABC):
    """Proposes tokens until one is accepted; every token comes once."""

    @abstractmethod
    def proposals(self, search: Search) -> Iterator[Int[Tensor, " candidate"]]:
        """Batches of tokens; between two of them the first has been tried, and `search` knows its distances."""


@dataclass(frozen=True)
class RandomOrder(Order):
    """Tokens at random, in another order at every position.

    Attributes:
        seed: decides the order.
        batch: tokens a run.
    """

    seed: int = 0
    batch: int = 256

    def __post_init__(self) -> None:
        settle(self, batch=COUNT)

    def proposals(self, search: Search) -> Iterator[Int[Tensor, " candidate"]]:
        generator = torch.Generator().manual_seed((self.seed + search.reading.read) % 2**63)
        yield from torch.randperm(len(search.words), generator=generator, device="cpu").split(self.batch)


@dataclass(frozen=True)
class GradientOrder(Order):
    """Tokens near to an embedding that gradient steps move towards the given state.

    A row of the first block's input is moved from the mean over the vocabulary by Adam, so that its state nears the
    given one; the tokens whose embeddings point most in its direction (cosine, both less the mean) are tried. From the
    nearest of all that were tried the next round sets out. Behind the last round all other tokens follow, in the order
    of the last direction. Near is meant in units of how much the states of tokens that were tried differ (standard
    deviation by dimension), since in deep layers a few dimensions are a hundred times as large as all others, whatever
    the token; a batch of tokens from all of the vocabulary is tried first to learn it.

    Attributes:
        steps, rate: of Adam, in a round.
        rounds: see above.
        batch: tokens a round, at least 2.
    """

    steps: int = 10
    rate: float = 0.1
    rounds: int = 8
    batch: int = 64

    def __post_init__(self) -> None:
        settle(self, steps=COUNT, rate=POSITIVE, rounds=FROM_ZERO, batch=Limits(2))

    def proposals(self, search: Search) -> Iterator[Int[Tensor, " candidate"]]:
        words, middle = search.words, search.words.mean(0)
        directions, proxy = F.normalize(words - middle, dim=1), middle
        yield torch.arange(0, len(words), max(1, len(words) // self.batch), device=words.device)
        unit = search.states.std(0).clamp(min=torch.finfo(words.dtype).tiny)
        for _ in range(self.rounds):
            proxy = self._moved(search, proxy, unit)
            yield self._left(search, directions @ (proxy - middle))[: self.batch]
            proxy = words[search.seen[((search.states - search.target) / unit).norm(dim=1).argmin()]]
        yield from self._left(search, directions @ (proxy - middle)).split(MANY)

    def _left(self, search: Search, likeness: Float[Tensor, " d_vocab"]) -> Int[Tensor, " candidate"]:
        """The tokens that were not tried, the likeliest first."""
        order = likeness.argsort(descending=True, stable=True)
        return order[~search.tried[order]]

    def _moved(
        self, search: Search, start: Float[Tensor, " d_model"], unit: Float[Tensor, " d_model"]
    ) -> Float[Tensor, " d_model"]:
        proxy = start.clone().requires_grad_()
        adam, size = torch.optim.Adam([proxy], lr=self.rate), (search.target / unit).pow(2).sum()
        with torch.enable_grad():
            for _ in range(self.steps):
                state = search.reading.states(proxy[None])[0].to(search.target.dtype)
                (proxy.grad,) = torch.autograd.grad(((state - search.target) / unit).pow(2).sum() / size, proxy)
                adam.step()
        return proxy.detach()


ORDERS = {"gradient": GradientOrder, "random": RandomOrder}


def as_order(order: Any, seed: int) -> Order:
    """An order by name, with the seed, or one that is given. Raises `InputError` for what is neither."""
    if isinstance(order, Order):
        return order
    if not isinstance(order, str):
        raise InputError(f"order must be one of {', '.join(ORDERS)}, or an Order; got {type(order).__name__}")
    return RandomOrder(seed) if choose("order", order, ORDERS) == "random" else GradientOrder()
