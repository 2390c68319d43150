"""`tokens`: one call for every method that scores input tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attribution.decompx.carry import decomposed, groups_of_sources, refuse_others
from attribution.decompx.propagate import Options
from attribution.inputs import gradients, perturbation
from attribution.inputs.classifier import ClassifierExplained, is_classifier
from attribution.inputs.encode import Inputs, Targets
from attribution.inputs.explained import Explainable, Explained, find_targets, one_by_one, readable_targets
from attribution.inputs.methods import TOKEN_METHODS, TokenMethod
from attribution.inputs.reagent import ReAGent
from attribution.inputs.result import TokenAttributions
from interp import numbers
from interp.errors import InputError, choose
from interp.progress import progress
from interp.running import door
from interp.wrappers import refuse_wrapped, uncompiled

DEFAULTS: dict[str, Any] = {
    "baseline": "zero", "steps": 32, "samples": 32, "noise": 0.1, "window": 2, "rules": None, "proposer": None,
    "runs": 5, "share": 0.3, "kept": 0.3, "max_steps": 300, "change": "target", "seed": 0,
    "bias": "absdot", "activation": "zero-origin", "gate": "held",
}  # fmt: skip


@numbers.checked()
@door
def tokens(
    model: Any,
    inputs: Any,
    target: Any = None,
    method: str = "attnlrp",
    *,
    tokenizer: Any = None,
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TokenAttributions:
    """Score the tokens of inputs for what a language model says next, or for the class that a classifier gives.

    Methods, their costs and papers: `attribution.token_methods()`. A positive value speaks for the explained token
    or class.
    The values of `attnlrp`, `cp-lrp`, `relp`, `gim` and `gradient-x-input` are embedding times (modified) gradient,
    summed over coordinates; `cp-lrp` adds up to the explained logit exactly but for biases, and `.conservation` says
    how far any of them is from it. LRP is claimed by a patent, as the LXT project states; it is free for personal
    and scientific use.

    Args:
        model: what `interp.load_model` returns; or a transformers sequence classifier with a bidirectional encoder
            (BERT, RoBERTa and their like: see `interp.encoders.load_encoder`) and one label an input.
        inputs: a string, several, or token ids [n, pos]; ids of different length may be given as lists.
        target: None for the most likely next token; a token (id, or a string of one token) for all inputs; a pair
            `(this, that)` for the difference of their logits; or a list with one of these for each input. Of a
            classifier likewise: None for the predicted class, or a class by index or name.
        method: `attnlrp`, `cp-lrp`, `relp`, `gim`, `gradient-x-input`, `integrated-gradients`, `gradient-shap`,
            `occlusion`, `feature-ablation`, `decompx` (see `decompose`),
            `attention-rollout` (explains no target in particular), `reagent`, `random`. The first four, and
            `rules`, are for language models alone.
        tokenizer: of a classifier, which needs one for strings; it adds its special tokens, which are scored as well.
        attention_mask: of padded ids.
        prepend_bos: put BOS before strings; None for the model's habit.
        batch_size, memory, quiet: as in `attribution.attribute`.
        **settings: of the method alone. `baseline` (`zero`, `mean`, `pad`, `eos`, `bos`, `unk` or a token id; of a
            classifier `zero`, `mean`, `pad`, `mask`, `unk` or an id): what tokens are replaced by; `steps` of
            integrated gradients (32); `samples` (32) and `noise` (0.1 of the embeddings' spread) of gradient SHAP;
            `window` of occlusion, in tokens (2); `rules`, by name or as a `RuleSet`, for `gradient-x-input`, integrated
            gradients and gradient SHAP; for ReAGent `proposer` (None: the model itself, if it is a language model; or
            a transformers masked or causal language model, or a function), `runs` (5), `share` (0.3), `kept` (0.3),
            `max_steps` (300), `change` (`target` or `distribution`); for DecompX `bias`, `activation` and `gate` as in
            `decompose`; `seed` (0).

    Returns:
        `TokenAttributions`: `.values` [n, pos], a heat map in notebooks, `.to_frame()`, `.to_html(path)`.

    Raises:
        InputError: unknown names, settings that another method takes, targets that are not one token or class, methods
            that the model's kind does not take.
    """
    chosen = TOKEN_METHODS[choose("method", method, TOKEN_METHODS)]
    told = _checked_settings(chosen, settings)
    explained = explained_of(model, tokenizer)
    rules = None
    if asked := told.get("rules") or chosen.rules:
        explained, rules = explained.under(asked)
    given = explained.encode(inputs, attention_mask, prepend_bos)
    if method == "decompx":
        _check_decompx(explained, given, told, memory)
    started = time.perf_counter()
    size = max(1, explained.batch_size(given, batch_size, memory))
    seeds = [told.get("seed", 0) + 7919 * i for i in range(len(given))]  # an input's own, whatever its batch
    targets, logits = find_targets(explained, given, target, size)
    if targets.contrastive and not chosen.contrasts:
        kind = explained.kind
        raise InputError(f"method={method!r} explains one {kind}'s probability; give target as a single {kind}")
    run = _runner(chosen, told, explained, size, memory)
    wide = torch.float64 if explained.anatomy.dtype == torch.float64 else torch.float32
    values = torch.zeros(given.ids.shape, dtype=wide, device="cpu")
    converged = torch.zeros(len(given), dtype=torch.bool, device="cpu") if method == "reagent" else None
    with progress(f"scoring tokens ({method})", len(given), quiet) as bar:
        for where, some, of in one_by_one(given, targets, size):
            found, done = run(some, of, seeds[where])
            values[where, : some.ids.shape[1]] = found.detach().to("cpu", wide) * some.mask
            if converged is not None and done is not None:
                converged[where] = done
            bar.advance(len(some))
    return TokenAttributions(
        values=values,
        mask=given.mask,
        ids=given.ids,
        tokens=explained.readable_rows(given),
        target=torch.stack((targets.positive, targets.negative), 1),
        target_tokens=readable_targets(explained, targets),
        logits=logits.to(wide),
        method=method,
        settings={k: v if isinstance(v, int | float | str) else repr(v) for k, v in told.items() if v is not None}
        | ({"rules": rules.to_dict()} if rules is not None and rules.rules else {}),
        model=explained.anatomy.name,
        seconds=time.perf_counter() - started,
        conserves=chosen.conserves,
        baseline_logits=_baseline_logits(explained, given, targets, told, size, wide)
        if method == "integrated-gradients" and rules is None
        else None,
        converged=converged,
    )


def explained_of(model: Any, tokenizer: Any = None) -> Explainable:
    """The model as token methods see it; here alone it is decided which kind it is.

    Raises `InputError` for a model of neither kind, and for a tokenizer beside a model that brings its own.
    """
    model = uncompiled(model)
    if is_classifier(model):
        refuse_wrapped(model, "model")
        return ClassifierExplained.of(model, tokenizer)
    if tokenizer is not None:
        raise InputError(
            "tokenizer goes with a sequence classifier; a language model gets its own in interp.load_model"
        )
    return Explained.of(model)


def _checked_settings(method: TokenMethod, settings: dict[str, Any]) -> dict[str, Any]:
    """The method's settings, defaults filled in."""
    for name in settings:
        choose("setting", name, DEFAULTS)
        if name not in method.settings:
            takes = ", ".join(method.settings) or "none"
            raise InputError(f"{name} is no setting of method={method.name!r}, which takes: {takes}")
    told = {name: settings.get(name, DEFAULTS[name]) for name in method.settings}
    return {name: _READ[name](name, value) if name in _READ else value for name, value in told.items()}


_READ: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("steps", "samples", "window"), partial(numbers.whole, limits=numbers.COUNT)),
    "seed": partial(numbers.whole, limits=numbers.SEED),
    "noise": partial(numbers.real, limits=numbers.FROM_ZERO),
}


Runner = Callable[[Inputs, Targets, list[int]], tuple[Tensor, Tensor | None]]


def _check_decompx(explained: Explainable, given: Inputs, told: dict[str, Any], memory: int | None) -> None:
    """Refuse what DecompX cannot go through, and what would not fit, before anything runs."""
    refuse_others(explained)
    for length in given.lengths.tolist():
        groups_of_sources(explained, length, Options(**told), memory)


def _runner(method: TokenMethod, told: dict[str, Any], explained: Explainable, size: int, memory: int | None) -> Runner:
    """What runs the method on a batch."""
    if method.name == "reagent":
        names = ("runs", "share", "kept", "max_steps", "change")
        agent = ReAGent(**{k: told[k] for k in names})
        proposer = explained.proposer(told["proposer"])
        return lambda inputs, targets, seeds: agent(explained, inputs, targets, proposer, seeds)

    if method.name == "decompx":
        options = Options(**told)
        return lambda inputs, targets, seeds: (decomposed(explained, inputs, targets, options, memory), None)

    def run(inputs: Inputs, targets: Targets, seeds: list[int]) -> tuple[Tensor, None]:
        if method.rules is not None:
            return gradients.relevance_of_tokens(explained, inputs, targets), None
        match method.name:
            case "integrated-gradients":
                return gradients.integrated_gradients(
                    explained, inputs, targets, told["baseline"], told["steps"], size
                ), None
            case "gradient-shap":
                return gradients.gradient_shap(
                    explained, inputs, targets, told["baseline"], told["samples"], told["noise"], seeds
                ), None
            case "occlusion":
                return perturbation.occlusion(explained, inputs, targets, told["baseline"], told["window"], size), None
            case "feature-ablation":
                return perturbation.feature_ablation(explained, inputs, targets, told["baseline"], size), None
            case "attention-rollout":
                return perturbation.attention_rollout(explained, inputs), None
            case _:
                return perturbation.random_values(inputs, seeds), None

    return run


def _baseline_logits(
    explained: Explainable, given: Inputs, targets: Targets, told: dict[str, Any], size: int, dtype: torch.dtype
) -> Tensor:
    with torch.no_grad():
        parts = [
            explained.value(explained.baseline(some, told["baseline"]), some.lengths, of.positive, of.negative)
            for _, some, of in one_by_one(given, targets, size)
        ]
    return torch.cat(parts).to("cpu", dtype)
