"""Scores of neurons by gradients, in a setting.

    score(p) = (a_p clean - a_p corrupted) . dM/da_p

at every prompt, layer and position, with the gradient averaged over a path and taken under backward rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.gradients import GradientScorer
from attribution.units.biases import joined
from attribution.units.hidden import corrupted_neurons, from_stream, in_front, mean_neurons, plainly_linear
from attribution.units.sinks import Rows, Sink, Summed
from attribution.units.stream import StreamGradients, stream_gradients
from interp.kernels.ablation import OPTIMAL
from interp.kernels.batching import Batch, make_batches, plan, refuse_nan, run_batches
from interp.kernels.forward import Residual
from interp.kernels.neurons import Means, hear_neurons, in_stream, widths
from interp.mlps import Hidden
from interp.node_mask import Spans, positions_of
from interp.parts import working
from interp.setting import Setting
from interp.tasks.refusals import refuse_unequal


@dataclass
class Beside:
    """What is found beside the scores of neurons: of embeddings, of biases, and the clean value that is explained."""

    embedding: Float[Tensor, "row pos"]
    explained: Float[Tensor, " row"]
    biases: list[pd.DataFrame] = field(default_factory=list)

    def bias_frame(self) -> pd.DataFrame:
        """Those of all batches."""
        return joined(self.biases)


def score_mask(setting: Setting, leave_out: tuple[int, ...]) -> Bool[Tensor, "row pos"]:
    """True where neurons are scored: at each row's tokens; for two prompts, from the first at which they differ on."""
    prompts = setting.prompts
    if setting.ablation == "patch":
        refuse_unequal(prompts, "scores of neurons")
    positions = torch.arange(prompts.clean.shape[1], device="cpu")
    mask = prompts.mask & ~torch.isin(positions, torch.tensor(leave_out, dtype=torch.long, device="cpu"))
    return mask & (positions >= prompts.first_difference[:, None]) if setting.skip_prefix else mask


def score_neurons(
    setting: Setting, method: GradientMethod, sink: Sink, mask: Bool[Tensor, "row pos"], paired: bool
) -> Beside:
    """Score all neurons of all prompts into `sink`, where `mask` is True.

    `paired`: a difference of two runs, taken in the residual stream behind a norm that follows the MLP. Otherwise an
    activation times the gradient in front of the output matrix. Cost: a forward and a backward pass for each point of
    the path, and a forward pass of the clean and (under `patch`) one of the corrupted prompts.
    """
    path, backward = method.path(setting.graph.n_layers), method.backward(setting)
    planned = plan(
        setting.anatomy, len(setting), setting.prompts.longest, copies=max(2, path.n_points),
        batch_size=setting.run.batch_size, checkpointed=method.checkpointed, memory=setting.run.memory,
    )  # fmt: skip
    scorer = GradientScorer(setting, path, planned, backward)
    means = mean_neurons(setting)
    wide = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
    shape = tuple(setting.prompts.clean.shape)
    beside = Beside(torch.zeros(shape, dtype=wide, device="cpu"), torch.zeros(shape[0], dtype=wide, device="cpu"))

    def work(batch: Batch) -> None:
        found = stream_gradients(scorer, batch, paired)
        sink.begin()
        _BatchNeurons(setting, batch, found, sink, mask, None if paired else scorer).score(means, beside)
        sink.done()
        bar.advance(len(batch))

    with setting.run.progress(f"scoring neurons ({method.name})", len(setting)) as bar, torch.inference_mode(False):
        skip = setting.skip_prefix
        run_batches(make_batches(setting.prompts, planned.batch_size, setting.anatomy.device, skip_prefix=skip), work)
    return beside


def mean_neuron_scores(
    setting: Setting, method: GradientMethod, spans: Spans = None
) -> Float[Tensor, "layer ... d_mlp"]:
    """Scores of neurons summed over positions, means over prompts; never more than one layer of one batch is held.

    With `spans` those at these positions, [layer, span, d_mlp].
    """
    counts = widths(setting.anatomy)
    shape = setting.prompts.n_rows, len(counts), setting.prompts.clean.shape[1], max(counts)
    sink = Summed(shape, ("prompt", "position") if spans is None else ("prompt",), torch.float64)
    score_neurons(setting, method, sink, score_mask(setting, ()), paired=True)
    values = sink.values / len(setting)
    return values if spans is None else values[:, positions_of(spans)]


def mean_expert_scores(
    setting: Setting, method: GradientMethod, spans: Spans = None
) -> Float[Tensor, "layer ... expert"]:
    """Scores of experts: (w f(x) clean - w f(x) corrupted) . dM/d(the mixture's output), w being routing weights.

    Linear in what an expert adds, and so the sums over its neurons of `mean_neuron_scores`.
    """
    full = setting.nodes("expert", spans).full  # refuses a model without experts
    of_neurons = mean_neuron_scores(setting, method, spans)
    found = torch.zeros(full.shape, dtype=torch.float64, device="cpu")
    for layer, block in enumerate(setting.anatomy.blocks):
        own = of_neurons[layer, ..., : block.mlp.width]
        found[layer, ..., : block.mlp.n_experts] = own.unflatten(-1, (block.mlp.n_experts, -1)).sum(-1)
    return found


class _BatchNeurons:
    """The neurons of one batch, once the gradients are there."""

    def __init__(
        self,
        setting: Setting,
        batch: Batch,
        found: StreamGradients,
        sink: Sink,
        mask: Bool[Tensor, "row pos"],
        unpaired: GradientScorer | None,
    ) -> None:
        self.setting, self.batch, self.found, self.sink, self.unpaired = setting, batch, found, sink, unpaired
        self.indices = setting.prompts.rows_of(torch.tensor(batch.indices, device="cpu"))
        self.here = mask[self.indices, batch.start : batch.start + batch.n_positions]
        row, position = self.here.nonzero(as_tuple=True)
        self.rows = Rows(self.indices[row], position + batch.start)
        self.frame = found.runs.frame

    @torch.no_grad()
    def score(self, means: Means | None, beside: Beside) -> None:
        """Hand every layer's scores to the sink, and note what is found beside them."""
        setting, batch, runs = self.setting, self.batch, self.found.runs
        corrupted = self._corrupted_embedding()
        stacked = [runs.embedding, corrupted] if setting.ablation == "patch" else [runs.embedding]

        def hear(layer: int, hidden: Hidden, written: Residual) -> None:
            self._layer(layer, hidden, written, means)

        logits = hear_neurons(self.frame, torch.cat(stacked), batch, hear)[: len(batch.prompts.reads.row)]
        values = setting.goal(logits, batch.prompts, logits)
        refuse_nan(values, setting.goal.name, batch)
        beside.explained[self.indices] = values[batch.prompts.prompt_of].to(beside.explained)
        self._embeddings(corrupted, beside)

    def _corrupted_embedding(self) -> Residual:
        """Constants of neurons have none for embeddings: these lose their token, as under `zero-token`."""
        runs = self.found.runs
        if self.setting.ablation != OPTIMAL:
            return runs.embed_corrupted()
        ablator = self.setting.ablator_at("neuron")
        return runs.scatter(ablator.sources(self.batch, self.frame, runs.rows).embedding).to(runs.embedding.dtype)

    def _layer(self, layer: int, hidden: Hidden, written: Residual, means: Means | None) -> None:
        block, gradient = self.setting.anatomy.blocks[layer], self.found.layers[layer]
        if self.unpaired is not None and not plainly_linear(block, self.unpaired.backward):
            scores = working(hidden) * in_front(block, hidden, gradient, self.unpaired.backward)
        else:
            stacked = in_stream(block, hidden, written)
            clean, other = corrupted_neurons(means, layer, stacked, self.batch.n_rows, self.frame.positions)
            scores = (clean - other) * from_stream(block, gradient)
        here = self.here.to(scores.device)
        self.sink.add(layer, self.rows, scores[here], hidden[: self.batch.n_rows][here])

    def _embeddings(self, corrupted: Residual, beside: Beside) -> None:
        runs, biases = self.found.runs, self.found.biases
        change = working(runs.embedding) - working(corrupted)
        if biases is not None and self.unpaired is not None:  # positions that are learned are biases
            positional = runs.anatomy.embed.positional(self.frame.positions)
            biases.add_positions(positional, self.found.embedding)
            change = working(runs.embedding) - working(positional)
        if biases is not None:
            prompts = self.batch.prompts
            beside.biases.append(biases.frame(self.indices.tolist(), self.frame.positions, prompts.lengths))
        values = (change * self.found.embedding).sum(-1).cpu() * self._real()
        start = self.batch.start
        beside.embedding[self.indices, start : start + values.shape[1]] = values.to(beside.embedding)

    def _real(self) -> Tensor:
        """Real tokens, whether their neurons are left out or not."""
        positions = torch.arange(self.batch.start, self.batch.start + self.batch.n_positions, device="cpu")
        return positions < self.batch.prompts.lengths.cpu()[:, None]
