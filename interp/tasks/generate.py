"""Drawing prompts from a template until enough of them suit the tokenizer."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.tasks.encoding import Encoder
from interp.tasks.examples import Example, Text
from interp.tasks.task import DEFAULT_OBJECTIVE, Task

log = logging.getLogger(__name__)

TRIES_PER_PROMPT = 50
MIN_TRIES = 5000


@dataclass(frozen=True)
class About:
    """What a built-in task is called, what its answers are, and what its objective is."""

    name: str
    description: str
    objective: str = DEFAULT_OBJECTIVE


@dataclass(frozen=True)
class Candidate:
    """An example, and the words in it that must be single tokens so that positions correspond."""

    example: Example
    single: tuple[str, ...] = ()


Draw = Callable[[random.Random, int], Candidate]


def build(
    about: About,
    draw: Draw,
    n: int,
    seed: int,
    model: Any,
    *,
    parameters: dict[str, Any] | None = None,
) -> Task:
    """Draw `n` examples with distinct clean prompts.

    Args:
        about: the task's name, description and objective.
        draw: from a generator and the number of the prompt (for what is to be balanced) to a candidate.
        n: how many prompts.
        seed: same seed and same tokenizer, same prompts; fewer prompts are the first of more.
        model: whose tokenizer the prompts must suit; None takes the first `n` candidates.
        parameters: settings to be told in the task's provenance.

    Raises `InputError` if `n` cannot be found within a bounded number of tries.
    """
    encoder = None if model is None else Encoder(model)
    rng = random.Random(seed)
    chosen: dict[Text, Example] = {}
    objections: Counter[str] = Counter()
    for _ in range(max(MIN_TRIES, TRIES_PER_PROMPT * n)):
        candidate = draw(rng, len(chosen))
        clean = candidate.example.clean
        # prompts that are the same tokens are the same prompt
        key = tuple(encoder.texts([clean])[0]) if encoder else clean
        if key in chosen:
            objections["a repetition"] += 1
            continue
        objection = encoder.objection(candidate.example, candidate.single) if encoder else None
        if objection:
            objections[objection] += 1
            continue
        chosen[key] = candidate.example
        if len(chosen) == n:
            break
    reasons = ", ".join(f"{count} for {reason}" for reason, count in objections.most_common())
    if len(chosen) < n:
        raise InputError(
            f"n={n} prompts of {about.name!r} were asked for, but only {len(chosen)} could be made"
            f"{' for this tokenizer' if encoder else ''}; dropped: {reasons}"
        )
    # a repetition is no fault of the tokenizer's: it is drawn again, and not counted
    dropped = objections.total() - objections["a repetition"]
    if dropped:
        log.info("task %s: dropped %d candidates (%s)", about.name, dropped, reasons)
    return Task(
        about.name,
        chosen.values(),
        objective=about.objective,
        description=about.description,
        seed=seed,
        dropped=dropped,
        parameters=parameters,
    )


def encoder_of(model: Any) -> Encoder | None:
    """The encoder for tasks that choose their wording by the tokenizer; None without a model or tokenizer."""
    return None if model is None or getattr(model, "tokenizer", None) is None else Encoder(model)
