"""`sample_text`: text that a model makes by itself, from its first token alone, and what was left out of it."""

from __future__ import annotations

import os
import time
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.generated import NO_TOKEN, GeneratedText, why_dropped
from interp.inspection import anatomy_of
from interp.keywords import check_keywords
from interp.resumed import Resumed
from interp.run import Run, RunKeywords
from interp.running import door

_BATCH = 32  # texts at a time where nothing else is asked for


@numbers.checked(
    n=numbers.COUNT, length=numbers.COUNT, temperature=numbers.POSITIVE, top_p=numbers.SHARE, min_length=numbers.COUNT,
    max_repeated=numbers.UNIT, start=numbers.FROM_ZERO,
)  # fmt: skip
@door
def sample_text(
    model: Any,
    n: int,
    length: int = 128,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 16,
    max_repeated: float = 0.5,
    start: int | None = None,
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
    **keywords: Unpack[RunKeywords],
) -> GeneratedText:
    """Sample `n` texts from the model itself, each from its first token alone ("FaithfulSAE", arXiv:2506.17673).

    Token by token, with a cache of keys and values, from softmax(logits / temperature), of which `top_p` keeps the
    likeliest tokens that together have that much probability. A text ends at the model's end token or after `length`
    tokens. Then those are left out that are short, that repeat themselves, and that are equal to an earlier one;
    `GeneratedText` keeps them and says how many there are.

    Each text draws from a generator of its own, so that how many run at once changes a text only where rounding does.

    Args:
        model: what `interp.load_model` returns.
        n: how many texts are drawn; fewer are kept.
        length: the most tokens behind the first.
        temperature, top_p: 1: the model's own distribution, as in the paper.
        min_length: texts of fewer tokens behind the first are left out.
        max_repeated: texts of whose 4-grams a larger share stood earlier in them are left out. 1: none.
        start: the id that every text begins with; None: the tokenizer's, or the configuration's, token of beginnings.
        seed: of all draws.
        resume: a file that holds the texts so far; started again with it, an interrupted run goes on.
        **keywords: `batch_size` (32 texts), `quiet` (`interp.run.Run`).

    Returns:
        `GeneratedText`: `.rows(length)` for dictionaries, `.texts()`, `.to_frame()` of what was dropped.

    Cost: `length` passes of one token a text.

    Raises:
        InputError: a model without a first token, more tokens than it has positions, a damaged or foreign `resume`.
    """
    check_keywords("sample_text", keywords, RunKeywords)
    began, run, anatomy = time.perf_counter(), Run.of(keywords), anatomy_of(model)
    first = _first(model) if start is None else start
    if first >= anatomy.d_vocab:
        raise InputError(f"start={first} is no token of the model; its ids are 0 to {anatomy.d_vocab - 1}")
    if anatomy.max_positions is not None and length >= anatomy.max_positions:
        raise InputError(
            f"length={length} and the first token are more than the model's {anatomy.max_positions} positions"
        )
    settings = {"temperature": temperature, "top_p": top_p, "start": first, "seed": seed}
    begun = {
        "ids": torch.full((n, length + 1), NO_TOKEN, dtype=torch.long, device="cpu"),
        "done": torch.zeros((), dtype=torch.long, device="cpu"),
    }
    kept = Resumed(resume, begun, {**settings, "n": n, "length": length, "weights": anatomy.weights_digest()})
    with run.progress("sampling text", n) as bar:
        bar.advance(done := int(kept.state["done"]))
        try:
            while done < n:
                ids, stop = kept.state["ids"].clone(), min(n, done + (run.batch_size or _BATCH))
                draws = np.stack([np.random.default_rng([seed, text]).random(length) for text in range(done, stop)])
                ids[done:stop] = _sampled(model.original_model, first, draws, temperature, top_p)
                kept.put(ids=ids, done=torch.tensor(stop, device="cpu"))
                bar.advance(stop - done)
                done = stop
        finally:
            kept.save()
    ids = kept.state["ids"]
    return GeneratedText(
        ids=ids,
        dropped=why_dropped(ids, min_length, max_repeated),
        model=anatomy.name,
        seconds=time.perf_counter() - began,
        settings={**settings, "min_length": min_length, "max_repeated": max_repeated},
    )


@torch.no_grad()
def _sampled(
    module: Any, first: int, draws: Float[np.ndarray, "text step"], temperature: float, top_p: float
) -> Int[Tensor, "text pos"]:
    """Some texts, [first, ...], `NO_TOKEN` behind their ends; `draws` in [0, 1) say which token each step takes."""
    device = next(module.parameters()).device
    ends = torch.tensor(_ends(module), dtype=torch.long, device="cpu")
    count, steps = draws.shape
    ids = torch.full((count, steps + 1), NO_TOKEN, dtype=torch.long, device="cpu")
    ids[:, 0] = first
    going = torch.ones(count, dtype=torch.bool, device="cpu")
    past = None
    for step in range(steps):
        last = ids[:, step].where(going, first)  # what has ended runs on in its place, unread
        out = module(last[:, None].to(device), past_key_values=past, use_cache=True)
        past = out.past_key_values
        token = chosen_tokens(out.logits[:, -1] / temperature, draws[:, step], top_p).cpu()
        going &= ~torch.isin(token, ends)
        ids[going, step + 1] = token[going]
        if not going.any():
            break
    return ids


def chosen_tokens(
    logits: Float[Tensor, "text d_vocab"], draws: Float[np.ndarray, " text"], top_p: float
) -> Int[Tensor, " text"]:
    """The token of each row at which those before it, by id, and itself reach `draws` of the probability that is kept.

    >>> chosen_tokens(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), np.array([0.2, 0.3]), 1.0).tolist()
    [0, 1]
    """
    kept = logits.double().softmax(-1)
    if top_p < 1:  # sorting a large vocabulary takes as long as a pass of a small model
        likely, order = kept.sort(dim=-1, descending=True, stable=True)
        left = likely.masked_fill(likely.cumsum(-1) - likely >= top_p, 0.0)
        kept = torch.zeros_like(kept).scatter(-1, order, left)
    reached = kept.cumsum(-1)
    wanted = torch.from_numpy(draws).to(reached)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).clamp(max=kept.shape[-1] - 1)[:, 0]


def _first(model: Any) -> int:
    for holder in (getattr(model, "tokenizer", None), model.original_model.config):
        if isinstance(found := getattr(holder, "bos_token_id", None), int):
            return found
    raise InputError("model has no token that texts begin with; give its id: start=")


def _ends(module: Any) -> list[int]:
    found = module.config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)
