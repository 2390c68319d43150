"""`relevance`: what every unit at any hook point of a model contributes to the explained logit."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from attribution.inputs.explained import Explained, find_targets, one_by_one, readable_targets
from attribution.inputs.relevance_map import Relevance, axes_of
from attribution.inputs.targets import Targets, explained_logit
from attribution.rules.hooks import applied
from attribution.rules.sets import RuleSet
from interp import numbers
from interp.errors import InputError
from interp.inputs import Inputs
from interp.keywords import check_keywords
from interp.parts import working
from interp.rotary import as_new
from interp.run import Run, RunKeywords
from interp.running import alone, door, of_this_thread

_INSIDE_ATTENTION = re.compile(
    r"attn\.((?P<letter>[qk])_norm\..*|hook_rot_(?P<turned>[qk])|hook_attn_scores|hook_pattern)$"
)
_SPREAD = ("position", "query", "key")  # axes as long as the prompt


class RelevanceKeywords(RunKeywords, total=False):
    """The keywords of `relevance`."""


@numbers.checked()
@door
def relevance(
    model: Any,
    inputs: Any,
    target: Any = None,
    rules: str | RuleSet = "attnlrp",
    *,
    at: str | Sequence[str] = "blocks.*.hook_out",
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    **keywords: Unpack[RelevanceKeywords],
) -> Relevance:
    """Relevance of latents: activation times modified gradient of the explained logit, at any hook points.

    Of the residual stream at any layer, all positions together, relevance sums to the explained logit but for what
    rules and biases leak on the way: `.conservation()` tells how much, layer by layer. `cp-lrp` leaks at biases alone,
    `attnlrp` also in the softmax (Achtibat et al. 2024, arXiv:2402.05602). LRP is claimed by a patent, as the LXT
    project states; it is free for personal and scientific use.

    Args:
        model, inputs, target, attention_mask, prepend_bos: as for `attribution.tokens`.
        rules: a rule set by name (`attribution.rule_sets()`) or a `RuleSet`.
        at: hook points of the bridge, or patterns with `*`: `blocks.*.hook_out` (residual stream behind each block),
            `blocks.3.attn.hook_z` (heads), `blocks.*.mlp.out.hook_in` (neurons), `embed.hook_out` (tokens).
        **keywords: `batch_size`, `memory`, `quiet`: how runs are made, see `interp.run.Run`.

    Returns:
        `Relevance`: `.values` by hook point, `.per(hook, "head")`, `.conservation()`, `.to_frame()`, `.figure()`.

    Raises:
        InputError: unknown rules, hook points that do not exist, do not run, or that no gradient reaches under these
            rules; targets that are not one token.
    """
    check_keywords("relevance", keywords, RelevanceKeywords)
    explained, run = Explained.of(model), Run.of(keywords)
    with alone(model):
        names = _hook_names(model, at)
    given = explained.encode(inputs, attention_mask, prepend_bos)
    started = time.perf_counter()
    rotary = explained.anatomy.rotary
    size = 1 if rotary is not None and rotary.apart(given.lengths) else explained.batch_size(given, run)
    targets, logits = find_targets(explained, given, target, size)
    values: dict[str, Tensor] = {}
    with run.progress("relevance of latents", len(given)) as bar, applied(model, rules) as fitted:
        for where, some, of in one_by_one(given, targets, size):
            for name, found in _of_batch(explained, some, of, fitted, names).items():
                _put(values, name, found, where, given)
            bar.advance(len(some))
    return Relevance(
        values=values,
        mask=given.mask,
        tokens=explained.readable_rows(given),
        target_tokens=readable_targets(explained, targets),
        logits=logits.to(next(iter(values.values())).dtype),
        rules=fitted,
        model=explained.anatomy.name,
        seconds=time.perf_counter() - started,
    )


def _hook_names(model: Any, at: str | Sequence[str]) -> list[str]:
    points = list(model.hook_dict)
    names: list[str] = []
    for wanted in [at] if isinstance(at, str) else at:
        pattern = re.compile(re.escape(str(wanted)).replace(r"\*", "[^.]*"))
        found = [name for name in points if pattern.fullmatch(name)]
        if not found:
            near = difflib.get_close_matches(str(wanted), points, n=3) or ["blocks.*.hook_out", "blocks.*.attn.hook_z"]
            raise InputError(f"at={wanted!r} is no hook point of the model (see model.hook_dict); try {near}")
        names += found
    if not names:
        raise InputError("at names no hook point; give at least one, such as 'blocks.*.hook_out'")
    try:
        with model.hooks(fwd_hooks=[(name, lambda x, hook: x) for name in names]):
            return list(dict.fromkeys(names))
    except ValueError as error:  # some points must be switched on first
        raise InputError(f"at={at!r}: {error}") from None


def _of_batch(
    explained: Explained, inputs: Inputs, targets: Targets, rules: RuleSet, names: list[str]
) -> dict[str, Tensor]:
    """Activation times gradient at each hook point."""
    model, anatomy = explained.model, explained.anatomy
    seen: dict[str, Tensor] = {}

    def source(x: Tensor, hook: Any) -> Tensor:
        return x.detach().requires_grad_()

    def keep(x: Tensor, name: str) -> Tensor:
        seen[name] = x if x.requires_grad else x.detach().requires_grad_()
        return seen[name]

    # the soft cap of some models lies behind the last hook point
    last = "unembed.hook_out"
    hooks = [(name, lambda x, hook, name=name: keep(x, name)) for name in dict.fromkeys((*names, last))]
    own = [(name, of_this_thread(hook)) for name, hook in [("embed.hook_out", source), *hooks]]
    with torch.enable_grad(), as_new(model.original_model), model.hooks(fwd_hooks=own):
        model(inputs.ids.to(anatomy.device))
        missing = [name for name in names if name not in seen]
        if missing:
            raise InputError(
                f"at={missing[0]!r} exists but does not run in {anatomy.name!r}; choose another hook point"
            )
        rows = seen[last][torch.arange(len(inputs), device="cpu"), (inputs.lengths - 1).to(anatomy.device)]
        rows = rows if anatomy.cap is None else rules.activation(anatomy.cap, rows)
        value = explained_logit(rows, targets.positive, targets.negative)
        gradients = torch.autograd.grad(value.sum(), [seen[name] for name in names], allow_unused=True)
    found = {}
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            raise InputError(
                f"at={name!r}: no gradient gets there under rules={rules.name!r}; choose a hook point in front of or "
                "behind it"
            )
        factor = _attention_factor(rules, model.hook_dict[name].name)
        found[name] = (working(seen[name].detach()) * working(gradient) * factor).cpu()
    return found


def _attention_factor(rules: RuleSet, name: str) -> float:
    """What rules for attention leave of the gradient between queries, keys and pattern: their factors act in front."""
    inside, factors = _INSIDE_ATTENTION.search(name), rules.attention_factors
    if "attention" not in rules.by_operation or inside is None or factors is None:
        return 1.0
    query, key, _ = factors
    # scores and pattern pass on what queries and keys share
    return {"q": query, "k": key}.get(inside["letter"] or inside["turned"], query + key)


def _put(values: dict[str, Tensor], name: str, found: Tensor, where: slice, inputs: Inputs) -> None:
    """Place a batch's values among those of all inputs; a batch may be shorter than the longest input."""
    axes, longest = axes_of(name, found.ndim), inputs.ids.shape[1]
    shape = [longest if axis in _SPREAD else n for axis, n in zip(axes, found.shape[1:], strict=True)]
    everything = values.setdefault(name, found.new_zeros(len(inputs), *shape))
    everything[where][tuple(slice(0, n) for n in found.shape)] = found
