"""`features`: one call for scores of the features of dictionaries and of their errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Unpack

import torch

from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Method
from attribution.engines import chosen_method
from attribution.rules.sets import RuleSet
from attribution.sparse.gradients import check_credit
from attribution.sparse.patched import patch_features
from attribution.sparse.result import AXES, FeatureScores, summed_errors
from attribution.sparse.scoring import score_features
from attribution.units.asked import Asked, asked
from attribution.units.base import SUMMABLE
from attribution.units.explain import NeuronKeywords, NeuronMethodKeywords, for_units
from attribution.units.result import axes_without
from attribution.units.scoring import score_mask
from attribution.units.sinks import Held, Largest, Sink, Summed
from interp import numbers
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import check_dictionaries
from interp.errors import InputError, choose
from interp.keywords import check_keywords, chosen
from interp.running import door

_STEPS = 10  # points on the way, as sparse feature circuits take


@numbers.checked(keep=numbers.COUNT)
@door
def features(
    model: Any,
    inputs: Any,
    dictionaries: Dictionary | Sequence[Dictionary],
    target: Any = None,
    rules: str | RuleSet | None = None,
    keep: int | None = None,
    *,
    method: str | Method | None = None,
    summed: str | Sequence[str] = (),
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    **keywords: Unpack[NeuronKeywords],
) -> FeatureScores:
    """Score every feature of every dictionary, and the errors that these leave, by prompt and position.

    With a place's output as Dec(f) + eps, the scores of its features and of its error are

        (f_p clean - f_p corrupted) . dM/df_p    and    (eps clean - eps corrupted) . dM/d eps

    with the gradient averaged over a way. By default that is the place's own, at 10 points from (but without) corrupted
    to clean, everything in front of it clean: the integrated gradients of sparse feature circuits (Marks et al. 2024,
    arXiv:2403.19647), whose figures come out. Positive: the feature (or error) helps. Of prompts the corrupted features
    and errors are 0.

    Args:
        model: what `interp.load_model` returns.
        inputs: a string, several, token ids [n, pos], or a `Task`, as for `attribution.neurons`.
        dictionaries: a `Dictionary` or several, of different places; scores keep their order.
        target, attention_mask, prepend_bos: of prompts, as for `attribution.neurons`.
        rules: backward rules, by name or as a `RuleSet`; None: the plain gradient.
        keep: hold so many of the largest |score| of features alone: `.values` is None then.
        method: a gradient method of `attribution.methods()` or such a `Method`; None: `eap-ig-activations` with 10
            steps (with `rules`: the gradient at the clean prompts). `exact` patches the features in `only`.
        summed: `"prompt"`, `"position"` or both: hold sums over these alone.
        **keywords: those of `attribution.neurons`. `only`: for `exact`, features as `(dictionary, feature)`, at all
            positions at once, or `(dictionary, position, feature)`; feature -1 is the dictionary's error.

    Returns:
        `FeatureScores`: `.values` float [n, dictionary, pos, feature], `.errors` [n, dictionary, pos], `.top(20)`,
        `.top_errors()`, `.sum("position")`, `.active`, `.figure()`, `.save(path)`.

    Cost: of the default, per prompt and dictionary 10 passes forward and backward from its place on; else those of the
    method; and two forward passes.

    Raises:
        InputError: dictionaries of another model or two of one place; and as `attribution.neurons` does.
    """
    check_keywords("features", keywords, NeuronKeywords)
    given = {"target": target, "attention_mask": attention_mask, "prepend_bos": prepend_bos}
    question = asked(model, inputs, {**given, "centred": keywords.get("centred", False)}, keywords)
    found = check_dictionaries(dictionaries, question.setting.anatomy)
    how = method_of(method, rules, chosen(keywords, NeuronMethodKeywords))
    over = [summed] if isinstance(summed, str) else list(summed)
    for axis in over:
        choose("summed", axis, SUMMABLE)
    if over and keep is not None:
        raise InputError("keep holds the largest of single scores, summed their sums; give one of the two")
    leave_out = tuple(numbers.many("leave_out", keywords.get("leave_out", ()), numbers.whole, numbers.FROM_ZERO))
    if isinstance(how, GradientMethod):
        if keywords.get("only") is not None:
            raise InputError("only goes with method='exact'; gradients score all features at once")
        return _by_gradients(question, how, found, keep, over, leave_out)
    if keep is not None or over:
        raise InputError(f"method={how.name!r} patches the features in only; keep and summed are for gradients")
    return _exact(question, how, found, keywords.get("only"), leave_out)


def method_of(method: str | Method | None, rules: str | RuleSet | None, told: dict[str, Any]) -> Method:
    """The method as features take it: each place along its own way, where nothing else is asked for."""
    if method is None:
        method = "eap-ig-activations" if rules is None else "eap"
        told = {"steps": _STEPS, **told} if rules is None else told
    if method == "eap-ig-activations":
        told = {"credit": "own", **told}
    how = for_units(chosen_method(method, {**told, "rules": rules}), "features")
    if isinstance(how, GradientMethod):
        check_credit(how)
    return how


def _by_gradients(
    question: Asked,
    method: GradientMethod,
    dictionaries: list[Dictionary],
    keep: int | None,
    over: Sequence[str],
    leave_out: tuple[int, ...],
) -> FeatureScores:
    setting, started = question.setting, time.perf_counter()
    method.check(setting)
    mask, counts = score_mask(setting, leave_out), [one.n_features for one in dictionaries]
    available = int(mask.sum()) * sum(counts)
    if keep is not None and keep > available:
        raise InputError(f"keep={keep:,} is more than there are: {available:,} scores of features")
    shape = len(setting), len(counts), setting.prompts.clean.shape[1], max(counts)
    dtype = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
    sink: Sink = Held(shape, dtype) if keep is None else Largest(keep, dtype)
    if over:
        sink = Summed(shape, over, dtype)
    beside = score_features(setting, method, dictionaries, sink, mask)
    rules = method.backward(setting)
    return FeatureScores(
        values=sink.values if isinstance(sink, Held | Summed) else None,
        activations=sink.activations if isinstance(sink, Held) else None,
        kept=sink.best.frame(AXES) if isinstance(sink, Largest) else None,
        errors=summed_errors(beside.errors, over),
        active=beside.active,
        mask=mask,
        explained=beside.explained,
        axes=axes_without(over, AXES),
        rules=rules.name if rules.rules else "gradient",
        settings={**method.settings(), "objective": setting.goal.name, "leave_out": list(leave_out)},
        seconds=time.perf_counter() - started,
        **_told(question, method, dictionaries),
    )


def _exact(
    question: Asked, method: Method, dictionaries: list[Dictionary], only: Any, leave_out: tuple[int, ...]
) -> FeatureScores:
    setting, started = question.setting, time.perf_counter()
    method.check(setting)
    mask = score_mask(setting, leave_out)
    kept, explained, active = patch_features(setting, dictionaries, only, mask)
    return FeatureScores(
        values=None,
        activations=None,
        kept=kept,
        errors=None,
        active=active,
        mask=mask,
        explained=explained,
        axes=AXES,
        rules="",
        settings={"objective": setting.goal.name, "leave_out": list(leave_out)},
        seconds=time.perf_counter() - started,
        **_told(question, method, dictionaries),
    )


def _told(question: Asked, method: Method, dictionaries: list[Dictionary]) -> dict[str, Any]:
    return {
        "places": [(one.layer, one.site) for one in dictionaries],
        "tokens": question.tokens,
        "target_tokens": question.target_tokens,
        "method": method.name,
        "ablation": str(question.setting.ablation),
        "paired": question.paired,
        "model": question.setting.anatomy.name,
    }
