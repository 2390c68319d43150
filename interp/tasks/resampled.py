"""Other counterfactuals for the same prompts: each gets the corrupted prompt of another one."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

from interp import numbers
from interp.errors import InputError
from interp.running import door
from interp.tasks.encoding import Encoder
from interp.tasks.examples import Answers
from interp.tasks.spans import Slots
from interp.tasks.task import Task
from interp.tasks.token_spans import TokenSpans, corrupted_token_spans, token_spans


@numbers.checked()
@door
def resampled(task: Task, model: Any, seed: int = 0) -> Task:
    """The task with the corrupted prompts exchanged among prompts of equal length (resample ablation).

    A counterfactual made for a prompt differs from it in what matters to the task and nothing else; one made for
    another prompt differs in everything that varies between prompts. Prompts become token ids of `model`'s tokenizer,
    and their spans slices of these; those of a corrupted prompt go with it. A prompt keeps its own counterfactual where
    no other prompt is as long, or where it would get its clean self.

    Raises `InputError` if no prompt can be given another's.

    >>> from types import SimpleNamespace
    >>> task = Task.from_tokens("t", [[0, 5], [0, 6]], [[0, 7], [0, 8]], [[1], [2]], [[2], [1]])
    >>> model = SimpleNamespace(cfg=SimpleNamespace(d_vocab=9), tokenizer=None)
    >>> [example.corrupted for example in resampled(task, model).examples]
    [(0, 8), (0, 7)]
    """
    task.prompts(model)  # says what cannot be right
    encoder = Encoder(model, task.prepend_bos)
    if task.examples[0].corrupted is None:
        raise InputError(f"the task {task.name!r} has no corrupted prompts to exchange")
    clean = [tuple(row) for row in encoder.texts([example.clean for example in task.examples])]
    corrupted = [tuple(row) for row in encoder.texts([example.corrupted or () for example in task.examples])]
    groups: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(clean):
        groups[len(tokens)].append(number)
    given = list(range(len(corrupted)))  # whose corrupted prompt each has
    rng = random.Random(seed)
    for group in groups.values():
        rng.shuffle(group)
        for number, other in zip(group, group[1:] + group[:1], strict=True):
            if corrupted[other] != clean[number]:
                given[number] = other
    if all(corrupted[given[number]] == own for number, own in enumerate(corrupted)):
        raise InputError(f"the task {task.name!r} has no two prompts of one length that can exchange corrupted prompts")
    spans, others = token_spans(task.examples, encoder), corrupted_token_spans(task.examples, encoder)
    examples = [
        replace(
            example,
            clean=clean[number],
            corrupted=corrupted[given[number]],
            spans=_of(spans, number),
            corrupted_spans=_of(others, given[number]),
            correct=_ids(encoder.answers(example.correct, number, "correct")),
            incorrect=_ids(encoder.answers(example.incorrect, number, "incorrect")),
        )
        for number, example in enumerate(task.examples)
    ]
    return Task(
        task.name, examples, objective=task.objective, description=task.description, seed=task.seed,
        parameters=task.parameters | {"resampled": seed},
    )  # fmt: skip


def _of(spans: TokenSpans, number: int) -> Slots:
    return spans.of[number] if spans.of else ()


def _ids(answers: list[tuple[int, ...]]) -> Answers:
    return tuple(answer[0] if len(answer) == 1 else answer for answer in answers)
