"""`features`: one call for scores of the features of dictionaries and of their errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Unpack

from attribution.edges.gradient import GradientMethod
from attribution.edges.method import Method
from attribution.engines import chosen_method
from attribution.rules.sets import RuleSet
from attribution.sparse.gradients import check_credit
from attribution.sparse.patched import patch_features
from attribution.sparse.result import AXES, FeatureScores, summed_errors
from attribution.sparse.scoring import score_features
from attribution.units.asked import Asked, asked
from attribution.units.explain import NeuronKeywords, NeuronMethodKeywords, for_units
from attribution.units.holding import Holding
from attribution.units.scoring import score_mask
from interp import numbers
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import check_dictionaries
from interp.keywords import check_keywords, chosen
from interp.running import door
from interp.tasks.refusals import refuse_rows

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
    holding = Holding.of(keep, summed, keywords.get("leave_out", ()))
    holding.check(how, keywords.get("only"), "features")
    if isinstance(how, GradientMethod):
        return _by_gradients(question, how, found, holding)
    return _exact(question, how, found, holding, keywords.get("only"))


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
    question: Asked, method: GradientMethod, dictionaries: list[Dictionary], holding: Holding
) -> FeatureScores:
    setting, started = question.setting, time.perf_counter()
    method.check(setting)
    mask = score_mask(setting, holding.leave_out)
    sink = holding.sink(setting, [one.n_features for one in dictionaries], mask, "features")
    beside = score_features(setting, method, dictionaries, sink, mask)
    return FeatureScores(
        errors=summed_errors(beside.errors, holding.over),
        active=beside.active,
        places=_places(dictionaries),
        mask=mask,
        explained=beside.explained,
        seconds=time.perf_counter() - started,
        **holding.of_gradients(question, method, sink, AXES),
    )


def _exact(
    question: Asked, method: Method, dictionaries: list[Dictionary], holding: Holding, only: Any
) -> FeatureScores:
    setting, started = question.setting, time.perf_counter()
    method.check(setting)
    refuse_rows(setting.prompts, "scores of patched features")
    mask = score_mask(setting, holding.leave_out)
    kept, explained, active = patch_features(setting, dictionaries, only, mask)
    return FeatureScores(
        errors=None,
        active=active,
        places=_places(dictionaries),
        mask=mask,
        explained=explained,
        seconds=time.perf_counter() - started,
        **holding.of_patching(question, method, kept, AXES),
    )


def _places(dictionaries: list[Dictionary]) -> list[tuple[int, str]]:
    return [(one.layer, one.site) for one in dictionaries]
