"""Where in other prompts the units of a graph are most active: the tokens, and what stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from attribution.tracing.features import Features
from attribution.tracing.held import Held, hold
from attribution.tracing.neurons import Neurons
from attribution.tracing.units import MLPUnits, Places, Units
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.intervention import subject
from circuits.tracing.subject import Subject
from interp.errors import InputError
from interp.inputs import encode_inputs
from interp.running import evaluated, settled
from interp.token_text import token_texts

TOP_CONTEXTS = 5  # of one unit, at most one of a prompt and position
BEFORE, AFTER = 8, 4  # tokens around


@dataclass(frozen=True)
class Context:
    """A token at which a unit is active, with what stands around it."""

    activation: float
    prompt: int
    position: int
    before: list[str]
    token: str
    after: list[str]


@torch.no_grad()
def contexts(graph: AttributionGraph, prompts: Any) -> dict[str, list[Context]]:
    """Of each unit, by node name: the tokens of `prompts` where it is most active in the direction that it has here.

    A neuron that is negative in the traced prompt is looked for where it is most negative. Positions that the graph
    leaves out (BOS) are left out here too. Cost: a forward pass for each prompt. `prompts`: strings, or ids [n, pos].
    Raises `InputError` for a graph from a file, which holds no model, and for empty prompts.
    """
    of = subject(graph)
    if not isinstance(of.units, MLPUnits):
        raise InputError(
            "prompts are for graphs of neurons and features, which are active in any prompt; what a head gives is told "
            "for the logits that are explained here"
        )
    rows = graph.nodes[graph.kinds().units.numpy()]
    signs = torch.from_numpy(rows["activation"].to_numpy(copy=True)).sign()
    given = encode_inputs(of.model, prompts, None, None)
    found: list[list[Context]] = [[] for _ in range(len(rows))]
    with settled(), evaluated(of.model):
        for prompt in range(len(given)):
            ids = given.ids[prompt, : int(given.lengths[prompt])]
            activations = _activations(of, hold(of.held.anatomy, ids), rows)
            texts = token_texts(getattr(of.model, "tokenizer", None), ids.tolist())
            for unit, (values, sign) in enumerate(zip(activations, signs, strict=True)):
                found[unit] = _merged(found[unit], values, float(sign), prompt, texts)
    return dict(zip(rows["name"], found, strict=True))


def _activations(of: Subject, held: Held, rows: pd.DataFrame) -> Tensor:
    """[unit, pos] of the graph's units in another run; 0 at positions that the graph leaves out."""
    units, length = _same(of.units, held), held.n_positions
    layers, numbers = (torch.from_numpy(rows[name].to_numpy(copy=True)) for name in ("layer", "unit"))
    places = Places(
        layers.repeat_interleave(length), torch.arange(length, device="cpu").repeat(len(rows)),
        numbers.repeat_interleave(length),
    )  # fmt: skip
    values = units.at(places).view(len(rows), length).double().cpu()
    values[:, [place for place in of.leave_out if place < length]] = 0.0
    return values


def _same(units: Units, held: Held) -> Units:
    return Features(held, list(units.by_layer.values())) if isinstance(units, Features) else Neurons(held)


def _merged(found: list[Context], values: Tensor, sign: float, prompt: int, texts: Sequence[str]) -> list[Context]:
    """The strongest of those found so far and those of one more prompt; earlier ones first where they are equal."""
    strength, order = (values * sign).sort(descending=True, stable=True)
    best = [
        Context(
            float(values[at]), prompt, at, list(texts[max(0, at - BEFORE) : at]), texts[at],
            list(texts[at + 1 : at + 1 + AFTER]),
        )
        for value, at in zip(strength[:TOP_CONTEXTS].tolist(), order[:TOP_CONTEXTS].tolist(), strict=True)
        if value > 0
    ]  # fmt: skip
    return sorted([*found, *best], key=lambda one: -abs(one.activation))[:TOP_CONTEXTS]
