"""The built-in objectives where answers have several tokens, and what others' objectives see of them.

    log p(answer) = sum over its tokens of  log p(token | prompt, tokens before)        (teacher-forced)
    log p(set of answers) = log sum over answers of  p(answer)

`logit-difference` is then the difference of the two sides' log-probabilities (of one token each, where the softmax's
normaliser is the same, it is the difference of logits). `...-per-token` divides an answer's sum by its token count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from interp.tasks.answers import Answers
    from interp.tasks.prompts import Prompts

Logits = Float[Tensor, "read vocab"]


def at_first(logits: Logits, prompts: Prompts) -> Float[Tensor, "n vocab"]:
    """The logits behind each prompt, where its answers begin."""
    return logits if prompts.answers is None else at_answer(logits, prompts)[:, 0]


def at_answer(logits: Logits, prompts: Prompts) -> Float[Tensor, "n answer vocab"]:
    """The logits at the tokens of each prompt's first correct answer, 0 where that is shorter than others."""
    if prompts.answers is None:
        return logits[:, None]
    reads = prompts.answers.read_of[prompts.answers.first].to(logits.device)
    reads = reads[:, : int((reads >= 0).sum(1).max())]
    return torch.where((reads >= 0)[..., None], logits[reads.clamp(min=0)], 0.0)


def _answers(prompts: Prompts) -> Answers:
    assert prompts.answers is not None
    return prompts.answers


def _by_row(values: Float[Tensor, " read"], answers: Answers, padding: float) -> Float[Tensor, "row answer"]:
    """One value for each token of each answer."""
    reads = answers.read_of.to(values.device)
    return values[reads.clamp(min=0)].masked_fill(reads < 0, padding)


def _counts(answers: Answers, like: Tensor) -> Float[Tensor, " row"]:
    return (answers.tokens >= 0).sum(1).to(like)


def log_probabilities(logits: Logits, prompts: Prompts, per_token: bool = False) -> Float[Tensor, " row"]:
    """Of each answer, summed over its tokens, or their mean."""
    answers = _answers(prompts)
    tokens = answers.tokens[answers.tokens >= 0].to(logits.device)
    each = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
    summed = _by_row(each, answers, 0.0).sum(1)
    return summed / _counts(answers, summed) if per_token else summed


def _of_side(values: Float[Tensor, " row"], rows: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Values of each prompt's answers of one side; -inf where there are fewer."""
    rows = rows.to(values.device)
    return values[rows.clamp(min=0)].masked_fill(rows < 0, -torch.inf)


def _log_probability(logits: Logits, prompts: Prompts, clean: Tensor | None, per_token: bool = False) -> Tensor:
    return _of_side(log_probabilities(logits, prompts, per_token), _answers(prompts).correct_rows).logsumexp(1)


def _difference(logits: Logits, prompts: Prompts, clean: Tensor | None, per_token: bool = False) -> Tensor:
    answers, values = _answers(prompts), log_probabilities(logits, prompts, per_token)
    correct, incorrect = (_of_side(values, rows) for rows in (answers.correct_rows, answers.incorrect_rows))
    return correct.logsumexp(1) - incorrect.logsumexp(1)


def _probability_difference(logits: Logits, prompts: Prompts, clean: Tensor | None) -> Tensor:
    answers, values = _answers(prompts), log_probabilities(logits, prompts)
    correct, incorrect = (_of_side(values, rows) for rows in (answers.correct_rows, answers.incorrect_rows))
    return correct.exp().sum(1) - incorrect.exp().sum(1)


def _minus_kl(logits: Logits, prompts: Prompts, clean: Tensor | None) -> Tensor:
    """The mean over all tokens of a prompt's answers."""
    assert clean is not None
    expected = clean.detach().log_softmax(1)
    difference = expected - logits.log_softmax(1)
    each = -torch.where(expected > -torch.inf, expected.exp() * difference, 0.0).sum(1)
    answers = _answers(prompts)
    rows = _by_row(each, answers, 0.0).sum(1)
    prompt = answers.prompt.to(rows.device)
    nothing = rows.new_zeros(len(prompts))
    return nothing.index_add(0, prompt, rows) / nothing.index_add(0, prompt, _counts(answers, rows))


def _accuracy(logits: Logits, prompts: Prompts, clean: Tensor | None) -> Tensor:
    """The best correct answer is likelier than all incorrect ones; without these: what greedy decoding would say."""
    answers, values = _answers(prompts), log_probabilities(logits, prompts)
    best = _of_side(values, answers.correct_rows).amax(1)
    rival = pad(_of_side(values, answers.incorrect_rows), (0, 1), value=-torch.inf).amax(1)
    tokens = answers.tokens[answers.tokens >= 0].to(logits.device)
    greedy = (logits.argmax(1) == tokens).to(logits.dtype)
    said = _of_side(_by_row(greedy, answers, 1.0).amin(1), answers.correct_rows).amax(1) > 0
    contrasted = (answers.incorrect_rows >= 0).any(1).to(logits.device)
    return torch.where(contrasted, best > rival, said).to(logits.dtype)


def _per_token(function: Callable[..., Tensor]) -> Callable[[Tensor, Prompts, Tensor | None], Tensor]:
    return lambda logits, prompts, clean: function(logits, prompts, clean, per_token=True)


ON_ANSWERS: dict[str, Callable[[Tensor, Prompts, Tensor | None], Tensor]] = {
    "logit-difference": _difference,
    "probability-difference": _probability_difference,
    "log-probability": _log_probability,
    "kl": _minus_kl,
    "accuracy": _accuracy,
    "log-probability-per-token": _per_token(_log_probability),
    "logit-difference-per-token": _per_token(_difference),
}
