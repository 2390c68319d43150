"""`tokens`: one call for every method that scores input tokens."""

from __future__ import annotations

import time
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from attribution.inputs.explained import Explainable, find_targets, readable_targets
from attribution.inputs.kinds import explained_of
from attribution.inputs.method import Answer, Asked, TokenMethod
from attribution.inputs.named import TOKEN_METHODS
from attribution.inputs.result import TokenAttributions
from attribution.rules.sets import RuleSet, rule_set
from interp import numbers
from interp.errors import InputError
from interp.keywords import check_keywords, leftover
from interp.run import Run, RunKeywords
from interp.running import door


class TokenMethodKeywords(TypedDict, total=False):
    """What token methods may be told by keyword: each takes those that are fields of its class."""

    baseline: str | int
    steps: int
    samples: int
    noise: float
    window: int
    rules: str | RuleSet | None
    proposer: Any
    runs: int
    share: float
    kept: float
    max_steps: int
    change: str
    seed: int
    bias: str
    activation: str
    gate: str


class TokenKeywords(TokenMethodKeywords, RunKeywords, total=False):
    """The keywords of `tokens`."""


@numbers.checked()
@door
def tokens(
    model: Any,
    inputs: Any,
    target: Any = None,
    method: str | TokenMethod = "attnlrp",
    *,
    tokenizer: Any = None,
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    **keywords: Unpack[TokenKeywords],
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
            `rules`, are for language models alone. Or a `TokenMethod`, ours or your own, such as `Occlusion(window=3)`,
            which then has its settings.
        tokenizer: of a classifier, which needs one for strings; it adds its special tokens, which are scored as well.
        attention_mask: of padded ids.
        prepend_bos: put BOS before strings; None for the model's habit.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        **keywords: settings of the method that is named. `baseline` (`zero`, `mean`, `pad`, `eos`, `bos`, `unk` or a
            token id; of a classifier `zero`, `mean`, `pad`, `mask`, `unk` or an id): what tokens are replaced by;
            `steps` of integrated gradients (32); `samples` (32) and `noise` (0.1 of the embeddings' spread) of gradient
            SHAP; `window` of occlusion, in tokens (2); `rules`, by name or as a `RuleSet`, for `gradient-x-input`,
            integrated gradients and gradient SHAP; for ReAGent `proposer` (None: the model itself, if it is a language
            model; or a transformers masked or causal language model, or a function), `runs` (5), `share` (0.3), `kept`
            (0.3), `max_steps` (300), `change` (`target` or `distribution`); for DecompX `bias`, `activation` and `gate`
            as in `decompose`; `seed` (0).

    Returns:
        `TokenAttributions`: `.values` [n, pos], a heat map in notebooks, `.to_frame()`, `.to_html(path)`.

    Raises:
        InputError: unknown names, settings that another method takes, targets that are not one token or class, methods
            that the model's kind does not take.
    """
    check_keywords("tokens", keywords, TokenKeywords)
    told = {name: value for name, value in leftover(keywords, RunKeywords).items() if value is not None}
    chosen, run = TOKEN_METHODS.make(method, told), Run.of(keywords)
    explained, rules = _under(chosen, explained_of(model, tokenizer))
    given = explained.encode(inputs, attention_mask, prepend_bos)
    chosen.check(explained, given, run)
    started = time.perf_counter()
    targets, logits = find_targets(explained, given, target, explained.batch_size(given, run))
    if targets.contrastive and not chosen.contrasts:
        raise InputError(
            f"method={chosen.name!r} explains one {explained.kind}'s probability; give target as a single "
            f"{explained.kind}"
        )
    answer = _answered(chosen, Asked.of(explained, given, targets, chosen.seed, run))
    return TokenAttributions(
        values=answer.values,
        mask=given.mask,
        ids=given.ids,
        tokens=explained.readable_rows(given),
        target=torch.stack((targets.positive, targets.negative), 1),
        target_tokens=readable_targets(explained, targets),
        logits=logits.to(answer.values.dtype),
        method=chosen.name,
        settings=chosen.settings() | ({"rules": rules.to_dict()} if rules is not None and rules.rules else {}),
        model=explained.anatomy.name,
        seconds=time.perf_counter() - started,
        conserves=chosen.conserves,
        baseline_logits=answer.baseline_logits,
        converged=answer.converged,
    )


def _under(method: TokenMethod, explained: Explainable) -> tuple[Explainable, RuleSet | None]:
    """The model with gradients taken by the method's rules, and the rules as fitted to it."""
    if method.rules is None:
        return explained, None
    if not explained.takes_rules and (rules := rule_set(method.rules)).rules:
        able = [name for name in TOKEN_METHODS.names() if TOKEN_METHODS.make(name).rules is None]
        raise InputError(
            f"backward rules ({rules.name!r}) act on language models alone; methods for a classifier are: "
            f"{', '.join(able)}"
        )
    return explained.under(method.rules)


def _answered(method: TokenMethod, asked: Asked) -> Answer:
    """The method's answer, batch by batch, on the CPU and 0 at padding."""
    wide = torch.float64 if asked.explained.anatomy.dtype == torch.float64 else torch.float32
    values = torch.zeros(asked.inputs.ids.shape, dtype=wide, device="cpu")
    converged, baselines = [], []
    with asked.run.progress(f"scoring tokens ({method.name})", len(asked)) as bar:
        for where, some in asked.batches():
            answer, shape = method.answer(some), tuple(some.inputs.ids.shape)
            if tuple(answer.values.shape) != shape:
                raise InputError(
                    f"method={method.name!r} gave values of shape {tuple(answer.values.shape)} for tokens {shape}"
                )
            values[where, : shape[1]] = answer.values.detach().to("cpu", wide) * some.inputs.mask
            converged += [] if answer.converged is None else [answer.converged.cpu()]
            baselines += [] if answer.baseline_logits is None else [answer.baseline_logits.detach().to("cpu", wide)]
            bar.advance(len(some))
    return Answer(values, _joined(converged), _joined(baselines))


def _joined(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None
