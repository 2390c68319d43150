"""What scores of neurons are asked of: a task, or prompts made into the setting that they are scored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from attribution.inputs.explained import Explained, find_targets
from attribution.inputs.targets import token_reader
from attribution.units.target import LogitSums, lists, resolve_sums, summed_logits
from interp.errors import InputError
from interp.inputs import Inputs
from interp.run import Run
from interp.setting import Setting
from interp.tasks.task import Task


@dataclass(frozen=True)
class Asked:
    """A setting, whether two runs are compared in it, and what is explained of each prompt, to read."""

    setting: Setting
    paired: bool
    tokens: list[list[str]]
    target_tokens: list[str]


def asked(model: Any, inputs: Any, of_prompts: Mapping[str, Any], keywords: Mapping[str, Any]) -> Asked:
    """A task as it is; or prompts, whose neurons are compared with nothing at all.

    `of_prompts`: target, attention_mask, prepend_bos and centred, which a task takes none of.
    """
    if isinstance(inputs, Task):
        for name, value in of_prompts.items():
            if value not in (None, False):
                raise InputError(
                    f"{name} is for prompts; inputs is the task {inputs.name!r}, which has answers of its own"
                )
        setting = Setting.of(model, inputs, keywords)
        return _of_task(Explained.of(model), setting)
    for name in ("ablation", "objective"):
        if keywords.get(name) is not None:
            raise InputError(f"{name} is for a task; what is explained of prompts is the logit that target names")
    return _of_prompts(Explained.of(model), inputs, of_prompts, Run.of(keywords))


def _of_task(explained: Explained, setting: Setting) -> Asked:
    prompts, goal = setting.prompts, setting.goal.name
    tokens = explained.readable_rows(Inputs(prompts.clean, prompts.lengths))
    if prompts.answers is None or prompts.n_rows == len(prompts):
        return Asked(setting, True, tokens, [goal] * len(prompts))
    answers = [[token for token in row if token >= 0] for row in prompts.answers.tokens.tolist()]
    return Asked(setting, True, tokens, [f"{goal}, {''.join(explained.readable(row))!r}" for row in answers])


def _of_prompts(explained: Explained, inputs: Any, given: Mapping[str, Any], run: Run) -> Asked:
    encoded = explained.encode(inputs, given["attention_mask"], given["prepend_bos"])
    best = torch.zeros(len(encoded), dtype=torch.long, device="cpu")
    if given["target"] is None:
        best = find_targets(explained, encoded, None, explained.batch_size(encoded, run))[0].positive
    sums = resolve_sums(given["target"], len(encoded), best, token_reader(explained.model))
    task = Task.from_tokens(
        "prompts",
        encoded.ids,
        _others(encoded, explained.anatomy.d_vocab),
        lists(sums.positive),
        _or_none(sums),
        attention_mask=encoded.mask.long(),
        objective=summed_logits(bool(given["centred"])),
    )
    setting = Setting(explained.model, task, ablation="zero", run=run)
    return Asked(setting, False, explained.readable_rows(encoded), sums.readable(explained.readable))


def _others(inputs: Inputs, vocabulary: int) -> torch.Tensor:
    """Corrupted prompts, which tasks want to differ and nobody reads: the ablation is `zero`."""
    return (inputs.ids + 1) % vocabulary


def _or_none(sums: LogitSums) -> list[list[int]] | None:
    return lists(sums.negative) if any(sums.negative) else None
