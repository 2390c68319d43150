"""`retrieval_heads`: which heads copy from the context while the model answers out of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attribution.heads.needles import Needle, needle_prompts
from attribution.heads.retrieval_result import RetrievalScores
from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.resumed import Resumed
from interp.run import Run, RunKeywords
from interp.running import alone, door, of_this_thread

Looks = Int[Tensor, "step layer head"]  # the position that each head looks at most, while a token is made


@numbers.checked(steps=numbers.COUNT, min_recall=numbers.UNIT)
@door
def retrieval_heads(
    model: Any,
    needles: Sequence[Needle] | None = None,
    *,
    steps: int = 50,
    min_recall: float | None = 0.5,
    resume: str | os.PathLike[str] | None = None,
    **keywords: Unpack[RunKeywords],
) -> RetrievalScores:
    """The retrieval score of every head (Wu et al. 2024, "Retrieval Head Mechanistically Explains Long-Context
    Factuality", arXiv:2404.15574).

    The model answers each prompt by greedy generation with its cache of keys and values. A head copies a token of the
    needle where the position that it looks at most lies in the needle, and the token there is the one that is made. Its
    score on a prompt is the share of the needle's positions that it copied from at some step; its score is the mean
    over the prompts that were answered: those whose generation holds more than `min_recall` of the needle's tokens
    (ROUGE-1 recall, of tokens).

    Args:
        model: what `interp.load_model` returns.
        needles: prompts; None: `needle_prompts(model)`.
        steps: how many tokens are made at most.
        min_recall: see above; None: all prompts count.
        resume: a file that holds what is done so far; started again with it, an interrupted run goes on.
        keywords: `quiet`.

    Returns:
        `RetrievalScores`: `.values` [layer, head], `.by_prompt`, `.recall`, `.top(20)`, `.figure()`.

    Cost: a forward pass a prompt and one of a single token a step.

    Raises:
        InputError: no needles, or none that the model answers; a damaged or foreign `resume`.
    """
    started, run = time.perf_counter(), Run.of(keywords)
    anatomy = anatomy_of(model)
    prompts = needle_prompts(model) if needles is None else list(needles)
    if not prompts or not all(isinstance(one, Needle) for one in prompts):
        raise InputError("needles must be a list of Needle, at least one; needle_prompts(model) makes some")
    start = {
        "done": torch.tensor(0, device="cpu"),
        "recall": torch.zeros(len(prompts), dtype=torch.float32, device="cpu"),
        "scores": torch.zeros(len(prompts), anatomy.n_layers, anatomy.n_heads, dtype=torch.float32, device="cpu"),
    }
    file = Resumed(resume, start, _fingerprint(anatomy, prompts, steps))
    state = file.state
    with run.progress("retrieval heads", len(prompts)) as bar:
        done = int(state["done"])
        bar.advance(done)
        try:
            for index, needle in enumerate(prompts[done:], done):
                made, looks = generated(model, needle.ids, steps)
                state["recall"][index] = recall(made, needle.answer)
                state["scores"][index] = copied(looks, made, needle).float().mean(0)
                file.put(**{**state, "done": torch.tensor(index + 1, device="cpu")})
                bar.advance()
        finally:
            file.save()
    found = RetrievalScores(
        by_prompt=state["scores"],
        recall=state["recall"],
        min_recall=min_recall,
        steps=steps,
        model=anatomy.name,
        seconds=time.perf_counter() - started,
    )
    if not found.answered.any():
        best = float(found.recall.max())
        raise InputError(
            f"needles: none of the {len(prompts)} prompts was answered (the best recall is {best:.2f}, "
            f"min_recall={min_recall}); give shorter prompts, or min_recall=None to count all"
        )
    return found


def _fingerprint(anatomy: Anatomy, needles: Sequence[Needle], steps: int) -> dict[str, Any]:
    asked = [(one.ids.tolist(), one.start, one.stop) for one in needles]
    return {"what": "retrieval_heads", "weights": anatomy.weights_digest(), "needles": asked, "steps": steps}


@torch.no_grad()
def generated(model: Any, ids: Int[Tensor, " pos"], steps: int) -> tuple[list[int], Looks]:
    """What a model makes of a prompt, greedily, and where its heads look meanwhile."""
    from transformers import GenerationConfig

    module, looks = model.original_model, []
    with alone(model), contextlib.ExitStack() as stack:
        for block in model.blocks:

            def look(part: Any, given: Any, pattern: Tensor) -> None:
                looks.append(pattern[0, :, -1].argmax(-1).cpu())

            stack.callback(block.attn.hook_pattern.register_forward_hook(of_this_thread(look)).remove)
        end = model.original_model.config.eos_token_id
        plain = GenerationConfig(max_new_tokens=steps, use_cache=True, eos_token_id=end, pad_token_id=0)
        own = ids[None].to(next(module.parameters()).device)
        made = module.generate(own, attention_mask=torch.ones_like(own), generation_config=plain)
    return made[0, len(ids) :].tolist(), torch.stack(looks).unflatten(0, (-1, len(model.blocks)))


def copied(looks: Looks, made: Sequence[int], needle: Needle) -> Bool[Tensor, "token layer head"]:
    """Of each token of a needle whether each head copied it: looked at it most while it was made."""
    found = torch.zeros(needle.stop - needle.start, *looks.shape[1:], dtype=torch.bool, device="cpu")
    for where, token in zip(looks, made, strict=True):
        for place in (needle.ids == token).nonzero().flatten().tolist():
            if needle.start <= place < needle.stop:
                found[place - needle.start] |= where == place
    return found


def recall(made: Sequence[int], answer: Sequence[int]) -> float:
    """The share of an answer's tokens that were made, each as often as it stands in both.

    >>> recall([5, 6, 7], [5, 5, 6, 9])
    0.5
    """
    return sum((Counter(made) & Counter(answer)).values()) / len(answer)
