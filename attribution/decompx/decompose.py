"""`decompose`: one call from a model and its inputs to a `Decomposition`."""

from __future__ import annotations

import time
from typing import Any, Unpack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attribution.decompx.carry import carry, groups_of_sources, held_run, refuse_others
from attribution.decompx.propagate import OptionKeywords, Options
from attribution.decompx.result import Decomposition
from attribution.inputs.classifier import ClassifierExplained, is_classifier
from attribution.inputs.explained import find_targets, readable_targets
from attribution.inputs.kinds import explained_of
from interp import numbers
from interp.errors import InputError
from interp.keywords import check_keywords, told
from interp.models import load_model
from interp.run import Run
from interp.running import door
from interp.wrappers import uncompiled


class DecomposeKeywords(OptionKeywords, total=False):
    """The keywords of `decompose`; it runs input by input."""

    memory: int | None
    quiet: bool


@numbers.checked()
@door
def decompose(
    model: Any,
    inputs: Any,
    target: Any = None,
    *,
    tokenizer: Any = None,
    matrices: bool = True,
    states: bool = False,
    attention_mask: Any = None,
    prepend_bos: bool | None = None,
    **keywords: Unpack[DecomposeKeywords],
) -> Decomposition:
    """Split a prediction into one contribution per input token, by carrying decomposed vectors through all layers.

    Every hidden state is a sum of one vector per input token, and each layer is applied to these vectors apart:
    attention at the pattern it had, norms at the divisor they had, activations as lines (DecompX, Modarressi et al.
    2023, arXiv:2306.02873; for decoders our extension). The contributions sum to the model's own logits exactly, but
    for `activation="relu"`. They are not unique: what is held constant is given to nobody, above all the pattern. Cost:
    about half a forward pass per token for encoders, a quarter for decoders, whose tokens see only what is before them.

    Args:
        model: a transformers sequence classifier of BERT or RoBERTa type, with `tokenizer` for strings; or a causal
            language model, from `interp.load_model` or transformers (sequential blocks, dense or gated MLPs).
        inputs, attention_mask, prepend_bos: as for `attribution.tokens`.
        target: language models: the explained token, or a pair for the difference of two logits; None for the most
            likely ones. Classifiers: nothing; every class is decomposed.
        matrices: also give `norms`, how much every token contributes at every place of every layer.
        states: also keep the decomposed vectors of every layer (large).
        bias: how biases are spread over tokens: `absdot` by |<vector, bias>|, `cosine`, `norm`, `equal`, `first` (all
            to the first token), or `separate`: kept as a source of their own.
        activation: the line an activation function is taken for: `zero-origin` (act(u) / u, exact), `tangent` (with its
            intercept spread like a bias, exact) or `relu` (u > 0, not exact).
        gate: of gated MLPs: `held` constant, or `halves`: half by the gate, half by the value.
        first_value_bias: `kept` leaves the bias of the first layer's values with the tokens, as the authors' code.
        memory: budget in bytes. Biases that are spread by what all tokens contribute need all sources at once; with
            `separate` the sources are carried through a few at a time if need be.
        quiet: no progress bar.

    Raises:
        InputError: other architectures, unknown options, or an input whose vectors do not fit the budget (it says how
            much would be needed, before anything runs).
    """
    check_keywords("decompose", keywords, DecomposeKeywords)
    options, run = told(Options(), keywords, OptionKeywords), Run.of(keywords)
    model = uncompiled(model)
    if isinstance(model, PreTrainedModel) and not is_classifier(model):
        model, tokenizer = load_model(model, tokenizer=tokenizer), None
    explained = explained_of(model, tokenizer)
    refuse_others(explained)
    classes = explained.anatomy.classes if isinstance(explained, ClassifierExplained) else None
    if classes is not None and target is not None:
        raise InputError("target is for language models; a classifier's classes are all decomposed: see .logits")
    given = explained.encode(inputs, attention_mask, prepend_bos)
    groups = [groups_of_sources(explained, length, options, run.memory) for length in given.lengths.tolist()]
    started = time.perf_counter()
    targets = find_targets(explained, given, target, 1)[0]
    said, parts = [], []
    with run.progress("decomposing", len(given)) as bar:
        for i, length in enumerate(given.lengths.tolist()):
            held = held_run(explained, given.ids[i, :length], int(targets.positive[i]), int(targets.negative[i]))
            said.append(held.explained.detach().cpu())
            parts.append(carry(held, options, groups[i], matrices, states))
            bar.advance(1)
    apart = options.columns
    names = (
        [[name] for name in readable_targets(explained, targets)] if classes is None else [list(classes)] * len(said)
    )
    return Decomposition(
        logits=_padded([part.explained[apart:] for part in parts]),
        bias=torch.stack([part.explained[:apart].sum(0) for part in parts]),
        model_logits=torch.stack(said),
        norms=_padded([part.norms[:, :, apart:] for part in parts if part.norms is not None]).transpose(0, 1)
        if matrices
        else None,
        states=[part.states for part in parts if part.states is not None] if states else None,
        mask=given.mask,
        tokens=explained.readable_rows(given),
        classes=names,
        options=options,
        model=explained.anatomy.name,
        seconds=time.perf_counter() - started,
    )


def _padded(parts: list[Tensor]) -> Tensor:
    """Tensors of different length, stacked, with zeros behind the shorter ones."""
    shape = [max(part.shape[i] for part in parts) for i in range(parts[0].ndim)]
    out = parts[0].new_zeros(len(parts), *shape)
    for i, part in enumerate(parts):
        out[i][tuple(slice(0, n) for n in part.shape)] = part
    return out
