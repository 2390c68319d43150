"""`neurons`: one call for scores of neurons, of prompts as they are or of a task's clean less its corrupted run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from attribution.edges.gradient import EAP, GradientMethod
from attribution.edges.method import Method
from attribution.edges.patched import ActivationPatching, Exact
from attribution.engines import chosen_method
from attribution.paths import Credit
from attribution.rules.sets import RuleSet
from attribution.units.asked import Asked, asked
from attribution.units.biases import joined
from attribution.units.holding import Holding
from attribution.units.patched import patch_neurons, places_of
from attribution.units.result import NeuronScores
from attribution.units.scoring import score_mask, score_neurons
from interp import numbers
from interp.errors import InputError
from interp.kernels.neurons import widths
from interp.keywords import check_keywords, chosen
from interp.run import RunKeywords
from interp.running import door
from interp.setting import UnderKeywords
from interp.tasks.refusals import refuse_rows


class NeuronMethodKeywords(TypedDict, total=False):
    """What the methods of `neurons` may be told by keyword."""

    steps: int
    quadrature: str | None
    credit: Credit
    checkpointed: bool | None


class NeuronKeywords(NeuronMethodKeywords, UnderKeywords, RunKeywords, total=False):
    """The keywords of `neurons`."""

    only: Any
    leave_out: Sequence[int]
    centred: bool


@numbers.checked(keep=numbers.COUNT)
@door
def neurons(
    model: Any,
    inputs: Any,
    target: Any = None,
    rules: str | RuleSet | None = None,
    keep: int | None = None,
    *,
    method: str | Method | None = None,
    summed: str | Sequence[str] = (),
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    **keywords: Unpack[NeuronKeywords],
) -> NeuronScores:
    """Score every neuron of every MLP, by prompt, layer and position.

    A neuron is an input of the MLP's output matrix, and its score

        a_p . dL/da_p    (prompts)    or    (a_p clean - a_p corrupted) . dM/da_p    (a task)

    with the gradient taken under backward rules. By default these are `relp-ah`: scales of norms, slopes of activation
    functions and attention patterns held, half of the gradient to each factor of a gated product ("Language Model
    Circuits Are Sparse in the Neuron Basis", arXiv:2601.22594). Then what the tokens' embeddings and all biases
    contribute adds up to the logit (`.conservation()`). Where a norm follows the MLP (Gemma 2 and 3) differences are
    taken behind it, as for heads: the scores of a task's neurons add up to their MLP's.

    Args:
        model: what `interp.load_model` returns.
        inputs: a string, several, or token ids [n, pos], as for `attribution.tokens`; or a `Task`, of whose prompts
            each answer is a row of its own where answers have several tokens.
        target: of prompts: None for the most likely next token; a token (id, or a string of one token); a pair
            `(this, that)` for the difference of their logits; a list with one of these, or a list of tokens whose
            logits are added up, for each prompt.
        rules: backward rules, by name or as a `RuleSet`; `gradient` is the plain gradient. None: `relp-ah`, or where a
            method is named that method's own.
        keep: hold so many of the largest |score| alone, and never all: `.values` is None then.
        method: a gradient method of `attribution.methods()` or such a `Method`; None: the gradient at the (clean)
            prompts. `exact` patches the neurons in `only`, one at a time.
        summed: `"prompt"`, `"position"` or both: hold sums over these alone.
        attention_mask, prepend_bos: as for `attribution.tokens`.
        **keywords: `steps`, `quadrature`, `credit`, `checkpointed` of the method; `ablation` and `objective` of a task
            (see `interp.setting.Setting`); `only`: for `exact`, neurons as `(layer, neuron)`, at all positions at once,
            or `(layer, position, neuron)`; `leave_out`: positions that are not scored, such as `[0]` for BOS;
            `centred`: explain logits less their mean over the vocabulary; `batch_size`, `memory`, `quiet`
            (`interp.run.Run`).

    Returns:
        `NeuronScores`: `.values` float [n, layer, pos, d_mlp] (float32, or float64 for a float64 model), `.embedding`
        [n, pos], `.biases`, `.top(200)`, `.sum("position")`, `.conservation()`, `.to_frame()`, `.figure()`.

    Cost: per prompt a forward and a backward pass (for each point of a path) and another forward pass, two for a task.

    Raises:
        InputError: unknown names, targets outside of the vocabulary, no prompts, more to keep than there are, methods
            without a meaning for neurons, NaN; models that are no pre-norm language models.
    """
    check_keywords("neurons", keywords, NeuronKeywords)
    given = {"target": target, "attention_mask": attention_mask, "prepend_bos": prepend_bos}
    question = asked(model, inputs, {**given, "centred": keywords.get("centred", False)}, keywords)
    how = _method(method, rules, keywords)
    holding = Holding.of(keep, summed, keywords.get("leave_out", ()))
    holding.check(how, keywords.get("only"), "neurons")
    if isinstance(how, GradientMethod):
        return _by_gradients(question, how, holding)
    return _exact(question, how, holding, keywords.get("only"))


def _method(method: str | Method | None, rules: str | RuleSet | None, keywords: Mapping[str, Any]) -> Method:
    told = {**chosen(keywords, NeuronMethodKeywords), "rules": rules}
    if method is None:
        told["rules"] = rules or "relp-ah"
    return for_units(chosen_method("eap" if method is None else method, told))


def for_units(how: Method, units: str = "neurons") -> Method:
    """The method; raises `InputError` where it has no meaning for neurons (or other parts of what a site writes)."""
    if isinstance(how, EAP) and how.inside is not None:
        raise InputError(
            f"method={how.name!r} with inside= scores a circuit's edges; {units} have no scores inside one"
        )
    if isinstance(how, Exact):
        if how.edges is not None or how.sample is not None or how.resume is not None:
            raise InputError(f"method='exact' for {units} takes only=, and neither edges, sample nor resume")
    elif not isinstance(how, GradientMethod | ActivationPatching):
        raise InputError(
            f"method={how.name!r} has no meaning for {units}; use a gradient method, such as 'eap-ig' or 'relp', or "
            "'exact'"
        )
    return how


def _by_gradients(question: Asked, method: GradientMethod, holding: Holding) -> NeuronScores:
    setting, started = question.setting, time.perf_counter()
    method.check(setting)
    mask = score_mask(setting, holding.leave_out)
    sink = holding.sink(setting, widths(setting.anatomy), mask, "neurons")
    beside = score_neurons(setting, method, sink, mask, question.paired)
    return NeuronScores(
        embedding=beside.embedding,
        biases=joined(beside.biases),
        mask=mask,
        explained=beside.explained,
        seconds=time.perf_counter() - started,
        **holding.of_gradients(question, method, sink),
    )


def _exact(question: Asked, method: Method, holding: Holding, only: Any) -> NeuronScores:
    setting, started = question.setting, time.perf_counter()
    if only is None:
        raise InputError(f"method={method.name!r} patches one neuron at a time; name them: only=[(layer, neuron), ...]")
    places = places_of(only, setting)
    method.check(setting)
    refuse_rows(setting.prompts, "scores of patched neurons")
    mask = score_mask(setting, holding.leave_out)
    kept, explained = patch_neurons(setting, places, mask)
    return NeuronScores(
        embedding=None,
        biases=joined([]),
        mask=mask,
        explained=explained,
        seconds=time.perf_counter() - started,
        **holding.of_patching(question, method, kept),
    )
