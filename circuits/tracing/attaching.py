"""A graph from a file, put together again with the model that it was made of."""

from __future__ import annotations

from typing import Any

import torch

from attribution.tracing.held import hold
from attribution.tracing.logits import Explained
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.intervention import members
from circuits.tracing.subject import Subject, units_of
from interp.errors import InputError
from interp.inspection import anatomy_of


@torch.no_grad()
def attach(graph: AttributionGraph, model: Any, units: Any) -> Subject:
    """Raises `InputError` where model or units are not those that the graph was made of."""
    settings = graph.settings
    if "average_of" in settings:
        raise InputError("this graph is the average of several prompts, which no one run of a model belongs to")
    if "sides" not in settings:
        raise InputError("this graph was read from another format, which does not say how it was made; trace it anew")
    held = hold(anatomy_of(model), torch.tensor(settings["ids"], device="cpu"))
    sides = tuple((tuple(these), tuple(those)) for these, those in settings["sides"])
    explained = Explained(sides, graph.weights[graph.kinds().logits].to(held.words))
    own = units_of(held, units, explained, bool(settings["centred"]))
    rows = graph.nodes[graph.kinds().units.numpy()]
    if set(rows["kind"]) - {*own.kinds, "group"}:
        raise InputError(f"units: the graph is one of {rows['kind'].iloc[0]}s; attach what it was made with")
    places, owners = members(graph, rows)
    expected = torch.from_numpy(rows["activation"].to_numpy(copy=True)).to(held.words)
    found = torch.zeros_like(expected).index_add_(0, owners.to(expected.device), own.at(places))
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-3):
        raise InputError("model: the graph was made of another model, or of other weights: activations differ")
    return Subject(model, held, own, explained, bool(settings["centred"]), tuple(settings["leave_out"]))
