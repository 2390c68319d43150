"""`experts`: what each expert of a mixture is worth."""

from __future__ import annotations

from typing import Any, Unpack

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, chosen_method
from attribution.scores import Scores
from attribution.units.nodes import scores_of_nodes
from interp import numbers
from interp.keywords import check_keywords, chosen, leftover
from interp.node_mask import spans_of
from interp.run import RunKeywords
from interp.running import door
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task


class ExpertKeywords(ScoringKeywords, SettingKeywords, RunKeywords, total=False):
    """The keywords of `experts`."""


@numbers.checked()
@door
def experts(
    model: Any,
    task: Task,
    method: str | Method = "eap-ig",
    *,
    positions: Any = None,
    **keywords: Unpack[ExpertKeywords],
) -> Scores:
    """Score every expert of a mixture on a task: how much the objective falls, by estimate, when it alone is corrupted.

    The output of a mixture is the sum over experts e of w_e(x) f_e(x), w being routing weights (0 where an expert is
    not chosen): the node of an MLP splits into its experts exactly. By gradients an expert scores (w f clean - w f
    corrupted) . dM/d(output), the sum over its neurons' scores; `exact` patches each expert alone, and routers behind
    it choose anew.

    Args:
        model: what `interp.load_model` returns: a mixture such as Mixtral or Qwen3-MoE.
        task: the behaviour.
        method: `exact`, or one that takes gradients, such as `eap`, `eap-ig`, `relp`.
        positions: absolute positions that are told apart; None: all together.
        keywords: those of the method, the setting (`ablation`, `objective`) and the run, as for `attribute`.

    Returns:
        `Scores` of level `expert`: `.values` [layer, expert], with positions [layer, position, expert]; layers without
        a mixture have one expert. `find_circuit(model, task, level="expert")` makes circuits of them.

    Raises:
        InputError: a model without experts, one whose mixtures do more than Mixtral's (shared experts), a method that
            has no meaning for experts.
    """
    check_keywords("experts", keywords, ExpertKeywords)
    told = leftover(chosen(keywords, ExpertKeywords), SettingKeywords, RunKeywords)
    setting = Setting.of(model, task, keywords)
    return scores_of_nodes(setting, chosen_method(method, told), "expert", spans_of(positions))
