"""`attribute`: one call for every method that scores edges or nodes of a computational graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from jaxtyping import Bool
from torch import Tensor

from attribution.edges.method import Method
from attribution.edges.named import METHODS
from attribution.paths import Credit
from attribution.rules.sets import RuleSet
from attribution.scores import Level, Scores
from interp import numbers
from interp.errors import InputError
from interp.kernels.contract import Products
from interp.keywords import check_keywords, chosen, leftover
from interp.run import RunKeywords
from interp.running import door
from interp.setting import Setting, SettingKeywords
from interp.spans import Exactly, SpanNames
from interp.tasks.task import Task


class ScoringKeywords(TypedDict, total=False):
    """What methods of edges may be told by keyword: each takes those that are fields of its class."""

    rules: str | RuleSet | None
    steps: int
    quadrature: str | None
    credit: Credit
    checkpointed: bool | None
    products: Products
    tau: float | None
    sample: int | None
    resume: str | os.PathLike[str] | None


class MethodKeywords(ScoringKeywords, total=False):
    """The same, and what `attribute` alone can be asked for."""

    level: Level | None
    positions: Any
    inside: Any
    edges: Sequence[str] | Bool[Tensor, "source target"] | None
    seed: int


class AttributeKeywords(MethodKeywords, SettingKeywords, RunKeywords, total=False):
    """The keywords of `attribute`."""


@numbers.checked()
@door
def attribute(model: Any, task: Task, method: str | Method = "eap-ig", **keywords: Unpack[AttributeKeywords]) -> Scores:
    """Score every edge (or node) of a model's computational graph on a task.

    A score estimates how much the objective falls, as a mean over prompts, when that edge alone is corrupted:
    positive means that the edge helps. Formulas, papers and costs of the methods: `attribution.methods()`.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour, with clean and corrupted prompts.
        method: a name of `attribution.methods()`, such as `eap`, `eap-ig`, `relp`, `exact`; or a `Method`, ours or
            your own, such as `EAPIG(steps=10)`, which then has its settings.
        ablation, objective, kv: of the setting, see `interp.setting.Setting`.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        **keywords: those of the method that is named: `level` (`edge` or `node`: a node's score is the sum over its
            edges); `positions` (of methods that take gradients: `all`, absolute positions; a list of some; `spans`,
            those that the task names: see `interp.spans.asked_spans`);
            `rules` (backward rules, by name or as a `RuleSet`); `steps`, `quadrature`, `credit` (of integrated
            gradients); `inside` (a circuit, plain or by position, outside of which every edge is ablated, for `eap`,
            `mask-ig` and `attribution-patching`); `tau` (of `acdc`); `edges`, `sample`, `seed`, `resume` (of patching);
            `checkpointed`; `products` (`bfloat16`: matrix products of rounded factors). What each means: the classes
            of `attribution.edges`.

    Returns:
        `Scores`; `.values` is float32 (float64 for a float64 model), `[source, target]` or `[source]`, with positions
        `[span, source, target]`: span by span they add up to the scores without.

    Raises:
        InputError: unknown names, keywords that the method does not take, a method that the ablation or objective
            does not suit, NaN objectives.
    """
    told = method_keywords("attribute", method, keywords, AttributeKeywords)
    return score(
        Setting.of(model, task, keywords, keywords.get("inside")),
        method,
        {**leftover(chosen(keywords, AttributeKeywords), SettingKeywords, RunKeywords), **told},
    )


def method_keywords(
    function: str, method: str | Method, keywords: Mapping[str, Any], *declared: type
) -> dict[str, Any]:
    """The keywords that no group declares: settings that a method of others, given by name, takes.

    Raises `InputError` for keywords that it does not take either.
    """
    rest = leftover(keywords, *declared)
    takes = METHODS.settings(method) if rest and isinstance(method, str) else []
    own = {name: value for name, value in rest.items() if takes is None or name in takes}
    check_keywords(function, {name: value for name, value in rest.items() if name not in own}, *declared)
    return own


def at_spans(method: Method, spans: SpanNames | None) -> Method:
    """The method with these spans told apart, if any are; raises `InputError` for one that cannot."""
    if spans is None:
        return method
    if not method.by_position:
        raise _all_at_once(method.name)
    return replace(method, positions=Exactly(spans))  # type: ignore[type-var]


def _all_at_once(method: str) -> InputError:
    able = [repr(name) for name in METHODS.names() if _tells_positions(name)]
    return InputError(
        f"method={method!r} scores edges at all positions at once; methods that tell positions apart: {', '.join(able)}"
    )


def _refuse_positions(method: str) -> None:
    """Raise `InputError` for a method that scores all positions at once, with the names of those that do not."""
    if not _tells_positions(method):
        raise _all_at_once(method)


def _tells_positions(method: str) -> bool:
    """Whether a method by name scores edges position by position."""
    takes = METHODS.settings(method)
    if takes is None or "positions" not in takes:
        return takes is None
    made = METHODS.make(method)
    return made.by_position and made.level == "edge"


def score(setting: Setting, method: str | Method, told: Mapping[str, Any] | None = None) -> Scores:
    """`attribute` in a setting; `told` are the settings of a method given by name."""
    return chosen_method(method, told).scores(setting)


def chosen_method(method: str | Method, told: Mapping[str, Any] | None = None, level: Level | None = None) -> Method:
    """The method that a name or an object means; keywords that are None are left to the method.

    Raises `InputError` as `Registry.make` does, and for a method that scores another level than is asked for.
    """
    given = {name: value for name, value in (told or {}).items() if value is not None}
    if isinstance(method, str) and "positions" in given:
        _refuse_positions(method)
    made = METHODS.make(method, given)
    if level is not None and made.level != level:
        advice = "'eap-ig'" if level == "edge" else "'attribution-patching'"
        raise InputError(f"method={made.name!r} scores {made.level}s; here a method of {level}s is needed: {advice}")
    return made
