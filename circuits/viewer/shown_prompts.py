"""The prompts of a page, each with its views on the clean run and the attention patterns of the corrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from circuits.viewer import linked
from circuits.viewer.linked import LinkedViews, corrupted_patterns, linked_views, shown_prompt
from interp.tasks.task import Task

MOST_PROMPTS = 4
LEAST_HEADS = 12  # whose patterns have room before another prompt has


@dataclass(frozen=True)
class Shown:
    """One prompt: what its clean run shows, and the patterns of the same heads when it is corrupted."""

    views: LinkedViews
    corrupted: UInt8[np.ndarray, "head query key"]


def shown_prompts(model: Any, task: Task, nodes: Sequence[str], heads: Sequence[str], example: int) -> list[Shown]:
    """The prompt `example`, then the first others, as many as have room for patterns.

    Effects are those of `nodes`; patterns those of the heads among them, then of `heads`, the other ones. Two forward
    passes of each prompt.
    """
    length = shown_prompt(model, task, example).longest
    room = linked.PATTERN_BYTES // (2 * length**2 * LEAST_HEADS)
    others = [other for other in range(len(task)) if other != example]
    chosen = [example, *others[: max(0, min(MOST_PROMPTS, room) - 1)]]
    each = linked.PATTERN_BYTES // (2 * len(chosen))
    found = [linked_views(model, task, nodes, one, heads, each) for one in chosen]
    return [
        Shown(views, corrupted_patterns(model, task, views.heads, one))
        for one, views in zip(chosen, found, strict=True)
    ]
