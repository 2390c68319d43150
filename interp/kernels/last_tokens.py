"""What a model holds at the last token of each of some rows: neurons' activations and the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.forward import Recorder, Residual, run_blocks, unembed
from interp.kernels.means import clean_runs
from interp.kernels.neurons import widths
from interp.mlps import Hidden
from interp.run import Run
from interp.tasks.prompts import Prompts


@dataclass(frozen=True)
class LastTokens:
    """Float32, on the CPU.

    Attributes:
        neurons: activations in front of the MLPs' output matrices, [row, layer, d_mlp], 0 where there is no neuron.
        states: the residual stream behind each block, [row, layer, d_model].
        log_probabilities: of each row's tokens behind its `start`, summed: [row].
    """

    neurons: Float[Tensor, "row layer d_mlp"]
    states: Float[Tensor, "row layer d_model"]
    log_probabilities: Float[Tensor, " row"]


@torch.no_grad()
def last_tokens(
    anatomy: Anatomy,
    rows: list[list[int]],
    starts: list[int],
    run: Run,
    advance: Callable[[int], None] = lambda n: None,
) -> LastTokens:
    """Run rows of token ids, each once; `starts`: how many tokens of each are given, not predicted (at least one).

    Memory: 4 bytes for each row and neuron.
    """
    counts = widths(anatomy)
    found = LastTokens(
        torch.zeros(len(rows), len(counts), max(counts), dtype=torch.float32, device="cpu"),
        torch.zeros(len(rows), len(counts), anatomy.d_model, dtype=torch.float32, device="cpu"),
        torch.zeros(len(rows), dtype=torch.float64, device="cpu"),
    )
    prompts = Prompts.from_lists(rows, rows, [[0]] * len(rows), [[] for _ in rows], paired=False)
    first = torch.tensor(starts, device="cpu")
    for batch, frame, embedding in clean_runs(anatomy, prompts, run.batch_size, run.memory):
        here = torch.tensor(batch.indices, device="cpu")
        x = run_blocks(frame, embedding, _Last(found, here, batch.prompts.lengths))
        tokens, lengths = batch.prompts.clean, batch.prompts.lengths
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        predicted = (positions >= first[here].to(tokens.device)[:, None]) & (positions < lengths[:, None])
        row, position = predicted.nonzero(as_tuple=True)
        logits = unembed(anatomy, x[row, position - 1]).log_softmax(-1)
        each = logits.gather(1, tokens[row, position][:, None])[:, 0].double().cpu()
        found.log_probabilities.index_add_(0, here[row.cpu()], each)
        advance(len(batch))
    return found


class _Last(Recorder):
    hears_neurons = True

    def __init__(self, found: LastTokens, rows: Tensor, lengths: Tensor) -> None:
        self.found, self.rows, self.lengths = found, rows, lengths

    def neurons(self, layer: int, hidden: Hidden, written: Residual) -> None:
        self._keep(self.found.neurons[..., : hidden.shape[-1]], layer, hidden)

    def block_output(self, layer: int, x: Residual) -> Residual:
        self._keep(self.found.states, layer, x)
        return x

    def _keep(self, into: Tensor, layer: int, values: Tensor) -> None:
        last = values[torch.arange(len(values), device=values.device), self.lengths.to(values.device) - 1]
        into[self.rows, layer] = last.to("cpu", into.dtype)
