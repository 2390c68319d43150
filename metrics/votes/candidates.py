"""Questions with their candidates, in an order that says nothing, and what a model holds at their ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.last_tokens import last_tokens
from interp.kernels.neurons import widths
from interp.resumed import Resumed
from interp.run import Run
from interp.tasks.encoding import Encoder
from interp.tasks.task import Task

_TOGETHER = 128  # candidates that are read before the file is told
_READ = ("neurons", "states", "log_probabilities")

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Every question followed by each of its candidates.

    Attributes:
        rows: token ids, question by question, each candidate's in turn.
        starts: how many tokens of each row are the question's.
        truth: which candidate is the true one, [n].
        count: candidates of each question.
    """

    rows: list[list[int]]
    starts: list[int]
    truth: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, model: Any, questions: Task, seed: int) -> Candidates:
        """Candidates in an order drawn by `seed`, so that neither first ones nor ties favour the true one.

        Raises `InputError` unless all questions have one correct and equally many incorrect answers.
        """
        count, encoder, rng = _count(questions), Encoder(model, questions.prepend_bos), np.random.default_rng(seed)
        asked = encoder.texts([example.clean for example in questions.examples])
        rows, truth = [], []
        for index, (example, prompt) in enumerate(zip(questions.examples, asked, strict=True)):
            answers = [
                *encoder.answers(example.correct, index, "correct"),
                *encoder.answers(example.incorrect, index, "incorrect"),
            ]
            order = rng.permutation(count)
            rows += [[*prompt, *answers[place]] for place in order]
            truth.append(int(np.flatnonzero(order == 0)[0]))
        return cls(rows, [len(prompt) for prompt in asked for _ in range(count)], np.array(truth), count)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each candidate has, [n, candidate]."""
        found = np.array([len(row) - start for row, start in zip(self.rows, self.starts, strict=True)])
        return found.reshape(-1, self.count)


@dataclass(frozen=True)
class Held:
    """What a model holds at the last token of question and candidate.

    Attributes:
        neurons: [n, candidate, layer * d_mlp]; `d_mlp` is the widest layer's.
        states: [n, candidate, layer, d_model].
        log_probabilities: of the candidate behind the question, [n, candidate].
    """

    neurons: Array
    states: Array
    log_probabilities: NDArray[np.float64]
    d_mlp: int

    @classmethod
    def of(cls, model: Any, candidates: Candidates, run: Run, file: Resumed) -> Held:
        """One forward pass for each candidate that the file, begun with `nothing`, does not hold."""
        anatomy, rows, state = anatomy_of(model), candidates.rows, file.state
        with run.progress("reading candidates", len(rows)) as bar:
            bar.advance(done := int(state["read"]))
            for first in range(done, len(rows), _TOGETHER):
                here = slice(first, first + _TOGETHER)
                found = last_tokens(anatomy, rows[here], candidates.starts[here], run, bar.advance)
                for name in _READ:
                    state[name][here] = getattr(found, name)
                file.put(**{**file.state, "read": torch.tensor(min(here.stop, len(rows)), device="cpu")})
        k = candidates.count
        return cls(
            neurons=state["neurons"].flatten(1).unflatten(0, (-1, k)).numpy(),
            states=state["states"].unflatten(0, (-1, k)).numpy(),
            log_probabilities=state["log_probabilities"].double().unflatten(0, (-1, k)).numpy(),
            d_mlp=state["neurons"].shape[2],
        )

    @staticmethod
    def nothing(anatomy: Anatomy, candidates: Candidates) -> dict[str, Tensor]:
        """What a file holds of it in the beginning."""
        n, counts = len(candidates.rows), widths(anatomy)
        return {
            "read": torch.tensor(0, device="cpu"),
            "neurons": torch.zeros(n, len(counts), max(counts), dtype=torch.float32, device="cpu"),
            "states": torch.zeros(n, len(counts), anatomy.d_model, dtype=torch.float32, device="cpu"),
            "log_probabilities": torch.zeros(n, dtype=torch.float64, device="cpu"),
        }


def _count(questions: Task) -> int:
    """How many candidates all questions have."""
    counts = {len(one.correct) + len(one.incorrect) for one in questions.examples}
    for index, example in enumerate(questions.examples):
        if len(example.correct) != 1 or not example.incorrect:
            raise InputError(
                f"question {index} has {len(example.correct)} correct and {len(example.incorrect)} incorrect answers; "
                "candidates are voted on: give one correct answer and at least one incorrect one"
            )
    if len(counts) > 1:
        raise InputError(f"questions have {min(counts)} to {max(counts)} answers; give all of them equally many")
    return counts.pop()
