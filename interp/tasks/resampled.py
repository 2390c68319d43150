"""Other counterfactuals for the same prompts: each gets the corrupted prompt of another one."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from interp import numbers
from interp.errors import InputError
from interp.running import door
from interp.tasks.examples import Example
from interp.tasks.task import Task


@numbers.checked()
@door
def resampled(task: Task, model: Any, seed: int = 0) -> Task:
    """The task with the corrupted prompts exchanged among prompts of equal length (resample ablation).

    A counterfactual made for a prompt differs from it in what matters to the task and nothing else; one made for
    another prompt differs in everything that varies between prompts. Prompts become token ids of `model`'s tokenizer. A
    prompt keeps its own counterfactual where no other prompt is as long, or where it would get its clean self.

    Raises `InputError` if no prompt can be given another's.

    >>> from types import SimpleNamespace
    >>> task = Task.from_tokens("t", [[0, 5], [0, 6]], [[0, 7], [0, 8]], [[1], [2]], [[2], [1]])
    >>> model = SimpleNamespace(cfg=SimpleNamespace(d_vocab=9), tokenizer=None)
    >>> [example.corrupted for example in resampled(task, model).examples]
    [(0, 8), (0, 7)]
    """
    prompts = task.prompts(model)
    clean, corrupted = (
        [tuple(row[:n]) for row, n in zip(tokens.tolist(), prompts.lengths.tolist(), strict=True)]
        for tokens in (prompts.clean, prompts.corrupted)
    )
    groups: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(clean):
        groups[len(tokens)].append(number)
    given = dict(enumerate(corrupted))
    rng = random.Random(seed)
    for group in groups.values():
        rng.shuffle(group)
        for number, other in zip(group, group[1:] + group[:1], strict=True):
            if corrupted[other] != clean[number]:
                given[number] = corrupted[other]
    if all(given[number] == own for number, own in enumerate(corrupted)):
        raise InputError(f"the task {task.name!r} has no two prompts of one length that can exchange corrupted prompts")
    answers = zip(prompts.correct.tolist(), prompts.incorrect.tolist(), strict=True)
    examples = [
        Example(clean[number], given[number], _ids(correct), _ids(incorrect))
        for number, (correct, incorrect) in enumerate(answers)
    ]
    return Task(
        task.name, examples, objective=task.objective, description=task.description, seed=task.seed,
        parameters=task.parameters | {"resampled": seed},
    )  # fmt: skip


def _ids(row: list[int]) -> tuple[int, ...]:
    return tuple(token for token in row if token >= 0)
