"""From a model and one input to its contributions: the held run, the sources that fit the memory, the propagation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.decompx.decoder import held_decoder, refuse_other_decoders
from attribution.decompx.encoder import held_encoder, refuse_other_encoders
from attribution.decompx.propagate import Options, Propagation
from attribution.decompx.steps import HeldRun
from attribution.inputs.classifier import ClassifierExplained
from attribution.inputs.explained import Explainable
from interp.errors import InputError
from interp.kernels.batching import budget_of


def refuse_others(explained: Explainable) -> None:
    """Raise `InputError` for a model that DecompX cannot go through."""
    if explained.anatomy.dtype in (torch.bfloat16, torch.float16):
        raise InputError(f"decompx needs a model in float32 or float64; this one is in {explained.anatomy.dtype}")
    if isinstance(explained, ClassifierExplained):
        refuse_other_encoders(explained.model)
    else:
        refuse_other_decoders(explained.anatomy)


def held_run(explained: Explainable, ids: Int[Tensor, " pos"], positive: int, negative: int) -> HeldRun:
    """The model's run over one input; for a language model with the target that is explained."""
    if isinstance(explained, ClassifierExplained):
        return held_encoder(explained.model, ids)
    return held_decoder(explained.anatomy, ids, positive, negative)


def groups_of_sources(explained: Explainable, length: int, options: Options, memory: int | None) -> list[range]:
    """Sources that are carried together. Raises `InputError` if they do not fit the budget."""
    anatomy = explained.anatomy
    budget = budget_of(anatomy.device, memory)
    width = explained.model.config.hidden_size if isinstance(explained, ClassifierExplained) else anatomy.d_model
    # the vectors, and as much again for what is made of them
    one, sources = 2 * length * width * torch.finfo(anatomy.dtype).bits // 8, length + options.columns
    fitting = budget // one
    if fitting >= sources:
        return [range(sources)]
    apart = options.bias == "separate"
    if not apart or fitting < 1:
        raise InputError(
            f"memory={budget / 2**20:,.0f} MiB is too little for an input of {length} tokens: its decomposed vectors "
            f"take {one * (1 if apart else sources) / 2**20:,.0f} MiB"
            + ("" if apart else "; give more, or bias='separate', which takes a few sources at a time")
        )
    return [range(first, min(sources, first + fitting)) for first in range(0, sources, fitting)]


@dataclass(frozen=True)
class Carried:
    """What comes of one input; sources include that of the biases if they are kept apart."""

    explained: Float[Tensor, "source cls"]
    norms: Float[Tensor, "layer position source"] | None
    states: Float[Tensor, "layer position source d_model"] | None


@torch.no_grad()
def carry(run: HeldRun, options: Options, groups: list[range], matrices: bool = False, states: bool = False) -> Carried:
    """Carry decomposed vectors through all layers, a group of sources at a time."""
    explained, norms, kept = [], [], []
    last = len(run.layers) - 1
    read = range(run.head.position, run.head.position + 1)
    for sources in groups:
        carried = Propagation(run, options, sources)
        lengths, vectors = [], []
        for layer in range(last + 1):
            # of the last layer the head reads one position
            carried.through(layer, None if matrices or states or layer < last else read)
            lengths += [carried.norms().cpu()] if matrices else []
            vectors += [carried.vectors.cpu().clone()] if states else []
        explained.append(carried.explained().cpu())
        norms += [torch.stack(lengths)] if matrices else []
        kept += [torch.stack(vectors)] if states else []
    return Carried(torch.cat(explained), torch.cat(norms, 2) if norms else None, torch.cat(kept, 2) if kept else None)
