"""`trace`: the attribution graph of one prompt."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Unpack, get_args

import torch

from attribution.tracing.held import hold
from circuits.tracing.asked import explained, one_prompt, readable_sides, readable_tokens
from circuits.tracing.build import Biases, build
from circuits.tracing.cost import TraceCost
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.measure import measure, measured_cost
from circuits.tracing.subject import Subject, units_of
from interp import numbers
from interp.errors import InputError, choose
from interp.inspection import anatomy_of
from interp.keywords import check_keywords
from interp.run import Run, RunKeywords
from interp.running import door


class TraceKeywords(RunKeywords, total=False):
    """The keywords of `trace`; `batch_size` counts rows of the graph that are made at once."""

    leave_out: Sequence[int]
    centred: bool | None
    biases: Biases
    prepend_bos: bool | None
    resume: str | os.PathLike[str] | None


@numbers.checked(top=numbers.COUNT)
@door
def trace(
    model: Any,
    prompt: Any,
    target: Any = None,
    units: Any = "neurons",
    top: int | None = 64,
    **keywords: Unpack[TraceKeywords],
) -> AttributionGraph:
    """The attribution graph of one prompt: which tokens and units its logits are made of, and by which edges.

        A[t, s] = (what t reads, pulled back through the residual stream and held attention) . (what s writes)

    with attention patterns and norms' scales held and all MLPs between t and s stopped: direct effects, in an otherwise
    linear model. Units are neurons, for any model; its heads and whole MLPs; or the features of transcoders. Rows
    add up: what tokens, units, errors, biases and the remainder give a unit is its activation, and a logit its value.

    Nodes are chosen by influence, infl = p (N + N^2 + ...) with N the rows of |A| normalised over *all* units and p the
    logits' probabilities, in rounds among the 10,000 units of largest |score|. What is not shown stands in the node
    "remainder", and counts as an error. Ameisen et al. 2025, "Circuit Tracing" (transformer-circuits.pub); for neurons
    "Language Model Circuits Are Sparse in the Neuron Basis", arXiv:2601.22594.

    Args:
        model: what `interp.load_model` returns.
        prompt: a string, or token ids [pos].
        target: None for the likely next tokens (at most 10, until .95 of the probability); a token (id, or a string of
            one token); a pair `(this, that)` for the difference of two logits; or a list of these.
        units: `"neurons"`; `"heads"` for heads and whole MLPs, whose activation is what they give the logits (by their
            weights) and whose rows are the edges along which that comes; or transcoders, `attribution.Dictionary`, one
            a layer.
        top: how many units the graph shows; None: all that are active.
        **keywords: `leave_out`: positions whose units are not shown, such as `[0]` for BOS (of transcoders nothing at
            position 0 ever is); `centred`: logits less their mean over the vocabulary, in front of a soft cap (default
            with transcoders; neurons explain the model's own logits); `biases`: a node for `each` layer, position and
            place, or one for all `summed`; `prepend_bos`; `resume`: a file in which rows are kept, so that a trace
            that was cut off goes on; `batch_size` (rows of the graph at once), `memory`, `quiet`.

    Returns:
        `AttributionGraph`: `.nodes`, `.adjacency` float [target, source], `.edges`, `.replacement_score`,
        `.completeness_score`, `.prune()`, `.figure()`, `.intervene(...)`, `.check()`, `.to_json(path)`, `.save(path)`.

    Cost: a forward pass, a backward pass for each logit, and for each row the attention of a backward pass and, where
    units are left out, one more product with every output matrix. Memory: `top` times 10,000 floats, and
    `batch_size` rows of [pos, d_mlp].

    Raises:
        InputError: targets outside of the vocabulary, empty prompts and several, more units than there are,
            dictionaries of another model or site; encoders and post-norm models.

    >>> from interp import load_model                                        # doctest: +SKIP
    >>> graph = trace(load_model("smollm2-135m"), "The capital of France is", " Paris")     # doctest: +SKIP
    >>> graph.prune().nodes                                                  # doctest: +SKIP
    """
    check_keywords("trace", keywords, TraceKeywords)
    started = time.perf_counter()
    biases: Biases = keywords.get("biases", "each")
    choose("biases", biases, get_args(Biases))
    with torch.no_grad():
        about = _subject(model, prompt, units, target, keywords)
        found = measure(about, top, Run.of(keywords), keywords.get("resume"))
    settings = {
        "ids": about.held.ids.tolist(),
        "sides": [[list(side) for side in pair] for pair in about.explained.sides],
        "units": about.units.kind,
        "top": top,
        "centred": about.centred,
        "leave_out": list(about.leave_out),
        "biases": biases,
    }
    graph = build(
        found,
        biases,
        {
            "tokens": readable_tokens(model, about.held.ids),
            "target_tokens": readable_sides(model, about.explained.sides),
            "model": about.held.anatomy.name,
            "seconds": time.perf_counter() - started,
            "settings": settings,
        },
    )
    return graph.about(about)


@numbers.checked(top=numbers.COUNT)
@door
def trace_cost(
    model: Any,
    prompt: Any,
    target: Any = None,
    units: Any = "neurons",
    top: int | None = 64,
    **keywords: Unpack[TraceKeywords],
) -> TraceCost:
    """What `trace` with the same arguments will take, about: rows, operations, bytes and seconds.

    Cost: a forward pass, and for heads a backward pass. Raises what `trace` raises.

    >>> print(trace_cost(model, prompt, top=2_000))                          # doctest: +SKIP
    """
    check_keywords("trace_cost", keywords, TraceKeywords)
    with torch.no_grad():
        return measured_cost(_subject(model, prompt, units, target, keywords), top)


def _subject(model: Any, prompt: Any, units: Any, target: Any, keywords: TraceKeywords) -> Subject:
    held = hold(anatomy_of(model), one_prompt(model, prompt, keywords.get("prepend_bos")))
    if not bool(held.logits.isfinite().all()):
        raise InputError("prompt: the model's logits are not finite there; check its weights and dtype")
    last = held.n_positions - 1
    places = numbers.many("leave_out", keywords.get("leave_out", ()), numbers.whole, numbers.Limits(0, last))
    centred = keywords.get("centred")
    as_circuit_tracer = not isinstance(units, str) if centred is None else bool(centred)
    asked = explained(model, held, target)
    return Subject(
        model, held, units_of(held, units, asked, as_circuit_tracer), asked, as_circuit_tracer, tuple(places)
    )
