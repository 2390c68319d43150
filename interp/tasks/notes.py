"""What was made of answers of several tokens, of unequal lengths, and of prompts without counterparts, in sentences."""

from __future__ import annotations

from interp.tasks.prompts import Prompts


def notes(prompts: Prompts) -> tuple[str, ...]:
    """Sentences for those who read results.

    >>> notes(Prompts.from_lists([[5, 6, 7]], [[5, 9]], [[1]], [[2]]))[0].partition(":")[0]
    '1 of 1 corrupted prompts are of another length than the clean one, by up to 1 token'
    """
    found = []
    if prompts.answers is not None:
        found += _of_answers(prompts)
    if prompts.corrupted_lengths is not None:
        owner = range(len(prompts)) if prompts.answers is None else prompts.answers.prompt.tolist()
        away = (prompts.corrupted_lengths - prompts.lengths).abs().tolist()
        unequal, most = len({one for one, by in zip(owner, away, strict=True) if by}), max(away)
        found.append(
            f"{unequal} of {len(prompts)} corrupted prompts are of another length than the clean one, by up to {most} "
            f"token{'' if most == 1 else 's'}: {_aligned(prompts)}, and what one side lacks counts as no difference"
        )
    if not prompts.paired:
        found.append("there are no corrupted prompts, so that ablation='patch' has nothing to put in")
    return tuple(found)


def _aligned(prompts: Prompts) -> str:
    if prompts.aligned is None:
        return "both are aligned at their ends"
    start, stop = prompts.aligned.unbind(2)
    averaged = int((stop - start > 1).sum())
    means = f", with the mean over a corrupted span at {averaged} positions" if averaged else ""
    return f"they are aligned span by span, each from its end{means}"


def _of_answers(prompts: Prompts) -> list[str]:
    assert prompts.answers is not None
    counts = (prompts.answers.tokens >= 0).sum(1)
    low, high = int(counts.min()), int(counts.max())
    scored = f"{low} token{'s' if low > 1 else ''}" if low == high else f"{low} to {high} tokens"
    found = [
        f"{scored} are scored in each row (teacher-forced): its value is the sum of their log-probabilities, or their "
        "mean where the objective is per token; several answers of one side count as one (log-sum-exp)"
    ]
    prompt = prompts.answers.prompt
    if any(len(set(counts[prompt == index].tolist())) > 1 for index in range(len(prompts))):
        found.append(
            "answers to one prompt differ in their number of tokens, and longer ones have lower sums: see the "
            "objectives 'logit-difference-per-token' and 'log-probability-per-token'"
        )
    return found
