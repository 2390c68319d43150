"""`attention_scores`: why a head looks where it looks, by pairs of sources."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attribution.edges.gradient import EAP
from attribution.gradients import BatchScorer, GradientScorer
from attribution.heads.parts import HeadParts, head_parts
from attribution.heads.recorded import AttentionRecorder, LayerAttention
from attribution.heads.result import AttentionScores
from attribution.tracing.held import Held, hold
from attribution.tracing.logits import logit_targets
from attribution.units.asked import asked
from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.batching import Plan, make_batches
from interp.running import door
from interp.setting import Setting
from interp.tasks.task import Task

_NAME = re.compile(r"a(\d+)\.h(\d+)")


@numbers.checked()
@door
def attention_scores(
    model: Any,
    prompt: Any,
    head: str,
    query: int = -1,
    target: Any = None,
    *,
    keys: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
) -> AttentionScores:
    """Split a head's attention scores over pairs of sources, one of the query's and one of the key's.

    A score is bilinear in what query and key read, the divisors of norms (also of q/k norms) being held at what they
    were:

        s_j  =  q_t . k_j / sqrt(d)  =  sum over sources u, w of  q_t^u . k_j^w / sqrt(d)

    with the rotary embedding and all other factors applied. Sources are the token's embedding, the learned position,
    every head and MLP of an earlier layer, and the biases in between; they sum to the model's own score, in front of a
    soft cap, exactly. What is the same for all keys of a query the softmax does not see: what is called `relative` is
    less its mean over keys. (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits", the QK circuit; Kamath et al. 2025, "Tracing Attention Computation Through Feature
    Interactions", with features in the place of components.)

    Args:
        model: what `interp.load_model` returns.
        prompt: a string, or token ids [pos].
        head: such as `"a23.h3"`.
        query: the position that looks; negative ones count from the end.
        target: what the pattern's effect is on, as for `attribution.neurons`: None for the most likely next token, a
            token, a pair `(this, that)`, or `[[...]]` for a sum of logits; at the last position.
        keys: positions that are looked at; None: all that the query sees. Memory is sources^2 floats a key.
        prepend_bos: as for `attribution.tokens`.

    Returns:
        `AttentionScores`: `.parts` [source, source, key], `.scores`, `.pattern` and `.gradient` [key], `.effect`,
        `.writes` [source, key], `.top(20)`, `.to_frame()`, `.figure()`.

    Cost: two forward passes and a backward pass.

    Raises:
        InputError: more than one prompt, an unknown head, positions that are not there or that the query does not see.
    """
    if isinstance(prompt, Task):
        raise InputError(f"prompt is the task {prompt.name!r}; give one of its prompts, as a string or token ids [pos]")
    started = time.perf_counter()
    given = {"target": target, "attention_mask": None, "prepend_bos": prepend_bos, "centred": False}
    question = asked(model, prompt, given, {})
    setting, n_tokens = question.setting, question.setting.prompts.clean.shape[1]
    if len(setting) != 1:
        raise InputError(f"prompt must be one string or ids [pos]; got {len(setting)}: ask of them one by one")
    layer, number = read_head(setting.anatomy, head)
    here = place("query", query, n_tokens)
    seen = _seen(setting.anatomy.blocks[layer].window, here, keys, n_tokens)
    run = _recorded(setting, layer)
    held = hold(setting.anatomy, setting.prompts.clean[0])
    parts = head_parts(held, layer, number)
    at = seen.to(parts.q.device)
    products = torch.einsum("ud,wkd->uwk", parts.q[:, here], parts.k[:, at]) * held.block(layer).scale
    return AttentionScores(
        parts=products.cpu(),
        scores=run.scores[0, number, here, at].cpu(),
        pattern=run.pattern[0, number, here, at].cpu(),
        gradient=run.score_gradient[0, number, here, at].cpu(),
        writes=_writes(held, parts, setting, (layer, number, here))[:, at].cpu(),
        sources=parts.sources,
        positions=seen,
        tokens=question.tokens[0],
        head=f"a{layer}.h{number}",
        query=here,
        target=question.target_tokens[0],
        softcap=held.block(layer).softcap,
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
    )


def read_head(anatomy: Anatomy, head: str) -> tuple[int, int]:
    """Layer and number of a head by name. Raises `InputError` for one that the model has not."""
    found = _NAME.fullmatch(head) if isinstance(head, str) else None
    if found is None or int(found[1]) >= anatomy.n_layers or int(found[2]) >= anatomy.n_heads:
        last = f"a{anatomy.n_layers - 1}.h{anatomy.n_heads - 1}"
        raise InputError(f"head={head!r} is no head of model={anatomy.name!r}; it has a0.h0 to {last}")
    return int(found[1]), int(found[2])


def place(name: str, position: int, n_tokens: int) -> int:
    """A position counted from the front. Raises `InputError` where there is none."""
    if not -n_tokens <= position < n_tokens:
        raise InputError(f"{name}={position} is outside of the prompt's {n_tokens} tokens, from {-n_tokens} on")
    return position % n_tokens


def _seen(window: int | None, query: int, keys: Sequence[int] | None, n_tokens: int) -> Tensor:
    """The key positions that are asked for. Raises `InputError` for those that the query does not see."""
    first = 0 if window is None else max(0, query - window + 1)
    if keys is None:
        return torch.arange(first, query + 1, device="cpu")
    chosen = [place(f"keys[{i}]", key, n_tokens) for i, key in enumerate(keys)]
    if not chosen or len(set(chosen)) < len(chosen) or not all(first <= key <= query for key in chosen):
        raise InputError(f"keys={list(keys)} must be different positions that query={query} sees: {first} to {query}")
    return torch.tensor(chosen, device="cpu")


def _recorded(setting: Setting, layer: int) -> LayerAttention:
    """The attention of one layer, with the gradient of what is explained."""
    found: list[LayerAttention] = []
    path = EAP().path(setting.graph.n_layers)
    (batch,) = make_batches(setting.prompts, 1, setting.anatomy.device, skip_prefix=False)
    runs = BatchScorer(GradientScorer(setting, path, Plan(1, 1, False)), batch)
    with torch.inference_mode(False):
        runs.differentiate(list(path.groups[0]), AttentionRecorder(runs, found.append, lambda one: one == layer))
    return found[0]


@torch.no_grad()
def _writes(held: Held, parts: HeadParts, setting: Setting, at: tuple[int, int, int]) -> Tensor:
    """What each source at each position writes through a head, in the logits explained: [source, pos]."""
    layer, head, query = at
    sides = tuple(
        [i for i in ids[0].tolist() if i >= 0] for ids in (setting.prompts.correct, setting.prompts.incorrect)
    )
    targets, _ = logit_targets(replace(held, stream=held.stream[: query + 1]), [(sides[0], sides[1])], centred=False)
    vector, one = held.heads_behind(layer, targets.vectors)[0, head], held.layers[layer]
    if one.attention_post_divisor is not None:
        vector = vector / one.attention_post_divisor[query]
    return one.pattern[head, query] * (parts.v @ vector)
