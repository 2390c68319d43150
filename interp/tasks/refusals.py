"""What some analyses cannot take of a task, in a sentence."""

from __future__ import annotations

from interp.errors import InputError
from interp.tasks.prompts import Prompts


def refuse_unequal(prompts: Prompts, what: str) -> None:
    """Raise `InputError` where corrupted prompts are of other lengths, for what needs the same positions of both."""
    if prompts.corrupted_lengths is not None:
        row = int((prompts.corrupted_lengths != prompts.lengths).int().argmax())
        index = row if prompts.answers is None else int(prompts.answers.prompt[row])
        raise InputError(
            f"prompt {index} has {int(prompts.lengths[row])} clean and {int(prompts.corrupted_lengths[row])} corrupted "
            f"tokens, and {what} compare them position by position; reword one of them, or use ablation='mean' or "
            "'zero'"
        )


def refuse_answers(prompts: Prompts, what: str) -> None:
    """Raise `InputError` for answers of several tokens, for what reads one position of each prompt."""
    if prompts.answers is not None:
        raise InputError(
            f"the task has answers of several tokens, and {what} reads the prompt's last position alone; give answers "
            "of one token"
        )


def refuse_rows(prompts: Prompts, what: str) -> None:
    """Raise `InputError` where a prompt has several rows, for what gives values by prompt and position."""
    if prompts.n_rows != len(prompts):
        raise InputError(
            f"the task has answers of several tokens, {prompts.n_rows} for {len(prompts)} prompts, and {what} are told "
            "by prompt and position: give each prompt one correct answer and no incorrect one (objective="
            "'log-probability'), or answers of one token"
        )
