"""`invert`: the prompt that hidden states come from, token by token (SipIt)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError, short
from interp.inputs import is_id
from interp.inspection import anatomy_of
from interp.inversion.orders import Order, Search, Shared, as_order
from interp.inversion.reading import Reading, States, as_states, check_layer, settled_tolerance
from interp.inversion.result import Inversion
from interp.parts import working
from interp.run import Run, RunKeywords
from interp.running import door
from interp.token_text import token_texts


@numbers.checked(tolerance=numbers.POSITIVE)
@door
def invert(
    model: Any,
    states: Any,
    layer: int,
    *,
    order: str | Order = "gradient",
    tolerance: float | None = None,
    known: Sequence[int] = (),
    normed: bool = False,
    seed: int = 0,
    **keywords: Unpack[RunKeywords],
) -> Inversion:
    """The prompts that hidden states come from (SipIt; Nikolaou et al. 2025, arXiv:2510.15511, algorithm 1).

    A decoder's state at a position depends on the tokens up to there alone. So with the tokens in front found, the
    next is the one under which the model's own state at this position equals the given one: tokens are tried until a
    state lies within the tolerance. Where none of the whole vocabulary does, the prompt ends there with the distance of
    the nearest, for whatever followed would stand on a wrong prefix.

    Args:
        model: what `interp.load_model` returns.
        states: float [pos, d_model] of one prompt, or a list of such; `hidden_states` gives them.
        layer: the blocks in front of these states: 0 (embeddings) to the number of blocks.
        order: "gradient" (see `GradientOrder`), "random", or an `Order` of your own. It decides how many tokens are
            tried, never which is accepted, unless two lie within the tolerance.
        tolerance: a state is accepted within this distance, over the norm of the given one. None: the square root of
            the precision of the model's dtype (float64 1.5e-8, float32 3.5e-4, bfloat16 .088).
        known: ids of tokens that every prompt begins with, such as BOS; they are not looked for.
        normed: the states are behind the final norm, as the last of transformers' `hidden_states` is.
        seed: of the random order.
        keywords: `quiet`.

    Returns:
        `Inversion`: `.ids`, `.texts`, `.complete`, `.to_frame()` (distance, runner-up, tokens tried, seconds).

    Cost: a run of one position through `layer` blocks for every token that is tried, and for each round of the gradient
    order 10 such runs with gradients. All of the vocabulary at worst.

    Raises:
        InputError: states that do not fit the model, a layer that it lacks, or ids outside its vocabulary.
    """
    started, run, anatomy = time.perf_counter(), Run.of(keywords), anatomy_of(model)
    layer = check_layer(anatomy, layer, normed)
    given = as_states(states, anatomy)
    front = _front(known, given, anatomy)
    limit = settled_tolerance(anatomy, tolerance)
    seeker = _Seeker(anatomy, as_order(order, seed), limit, len(given) > 1)
    rows, misses = [], []
    with run.progress("inverting", sum(len(one) for one in given)) as bar:
        for prompt, own in enumerate(given):
            reading = Reading(anatomy, layer, len(own), normed)
            for token in front:
                reading.append(token)
            bar.advance(len(front))
            for position in range(len(front), len(own)):
                found = seeker.at(reading, own[position])
                place = {"prompt": prompt, "position": position, **asdict(found)}
                if found.distance > limit:
                    misses.append(place)
                    bar.advance(len(own) - position)
                    break
                rows.append(place)
                reading.append(found.token)
                bar.advance()
    return Inversion.of(
        rows,
        misses,
        lengths=[len(one) for one in given],
        known=front,
        texts=lambda ids: token_texts(getattr(model, "tokenizer", None), ids),
        layer=layer,
        tolerance=limit,
        order=type(seeker.order).__name__,
        model=anatomy.name,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Found:
    """The nearest token at a position, distances over the norm of the given state."""

    token: int
    distance: float
    runner_up: float
    tried: int
    seconds: float


class _Seeker:
    """Looks for tokens; with `several` prompts states at the first position, which all have in common, are run once."""

    @torch.no_grad()
    def __init__(self, anatomy: Anatomy, order: Order, limit: float, several: bool) -> None:
        self.order, self.limit = order, limit
        self.words = anatomy.embed.words(torch.arange(anatomy.d_vocab, device=anatomy.device))
        self.first = Shared(self.words) if several else None

    def at(self, reading: Reading, state: Float[Tensor, " d_model"]) -> _Found:
        """The token behind what is read."""
        started = time.perf_counter()
        target = working(state)
        with torch.no_grad():
            words = reading.placed(self.words)
        search = Search(reading, target, words, None if reading.read else self.first)
        size = float(target.norm()) or 1.0
        for tokens in self.order.proposals(search):
            search.attempt(tokens)
            if float(search.distance.min()) <= self.limit * size:
                break
        nearest = search.distance.topk(min(2, len(search.distance)), largest=False)
        runner_up = float(nearest.values[1]) / size if len(nearest.values) > 1 else float("inf")
        return _Found(
            token=int(nearest.indices[0]),
            distance=float(nearest.values[0]) / size,
            runner_up=runner_up,
            tried=int(search.tried.sum()),
            seconds=time.perf_counter() - started,
        )


def _front(known: Sequence[int], given: Sequence[States], anatomy: Anatomy) -> list[int]:
    """The known tokens. Raises `InputError` for others than the model's, or for more than there are states."""
    if not all(is_id(token, anatomy.d_vocab) for token in known):
        raise InputError(f"known must be token ids from 0 to {anatomy.d_vocab - 1}; got {short(list(known))}")
    shortest = min(len(one) for one in given)
    if len(known) >= shortest:
        raise InputError(
            f"known holds {len(known)} tokens, but a prompt has {shortest} states: nothing is left to find"
        )
    return list(known)
