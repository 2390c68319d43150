"""Exact patching: what really happens when one edge, or one node, is fed by its corrupted activation.

    score = M(clean) - M(clean with that one edge, or node, corrupted)

This is the ground truth that gradient methods approximate. An edge into a target changes nothing in front of
that target's layer, so each edge costs one forward pass from there on; edges into one target are stacked.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.anatomy import Anatomy
from interp.graph import ComputationalGraph
from interp.kernels.ablation import Ablator
from interp.kernels.batching import Batch, free_memory, out_of_memory, refuse_nan
from interp.kernels.capture import SourceRecorder, Sources
from interp.kernels.contract import expand_sources
from interp.kernels.forward import (
    SILENT,
    Residual,
    answer_rows,
    attend,
    finish_block,
    run_block,
    run_blocks,
    run_mlp,
    unembed,
    write_heads,
)
from interp.kernels.frame import PerHead, PerPort
from interp.objectives import Objective
from interp.parts import working
from interp.spans import RowSpans


class _Trace(SourceRecorder):
    """Everything of the clean run that a patched run starts from."""

    def __init__(self, embedding: Residual, rows: Tensor) -> None:
        super().__init__(embedding, rows)
        self.qkv: list[tuple[PerHead, PerPort, PerPort]] = []
        self.z: list[PerHead] = []
        self.added: list[Residual] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        self.qkv.append((q, k, v))
        return q, k, v

    def attention_output(self, layer: int, added: Residual) -> Residual:
        self.added.append(added)
        return added


@dataclass(frozen=True)
class _Clean:
    """The clean run of a batch, layer by layer."""

    entering: list[Residual]
    trace: _Trace
    final: Residual
    logits: Tensor


class Patcher:
    """Patches edges and nodes of one batch of prompts."""

    @torch.no_grad()
    def __init__(
        self,
        anatomy: Anatomy,
        graph: ComputationalGraph,
        ablator: Ablator,
        objective: Objective,
        batch: Batch,
        stacked: int,
    ) -> None:
        self.anatomy, self.graph, self.objective, self.batch = anatomy, graph, objective, batch
        self.stacked = stacked
        self.frame = batch.frame(anatomy)
        embedding = anatomy.embed(batch.prompts.clean[:, batch.start :], self.frame.positions)
        rows = torch.arange(embedding.shape[:2].numel(), device=embedding.device)
        self.clean = self._run_clean(embedding, rows)
        sources = self.clean.trace.sources
        delta: Sources = sources.minus(ablator.sources(batch, self.frame, rows))
        everything = slice(0, len(graph.sources))
        expanded = delta.embedding.new_empty(len(graph.sources), *delta.embedding.shape)
        expand_sources(anatomy, graph, delta, slice(0, len(rows)), everything, expanded)
        self.delta: Tensor = expanded.unflatten(1, embedding.shape[:2])
        self.clean_value = self._values(self.clean.logits)

    def _run_clean(self, embedding: Residual, rows: Tensor) -> _Clean:
        trace, entering, x = _Trace(embedding, rows), [], embedding
        for layer in range(self.anatomy.n_layers):
            entering.append(x)
            x = run_block(self.frame, layer, x, trace)
        logits = unembed(self.anatomy, answer_rows(x, self.frame, self.batch.prompts))
        return _Clean(entering, trace, x, logits)

    def _values(self, logits: Tensor) -> Float[Tensor, "copy prompt"]:
        """Objective of each prompt, for each stacked copy of the batch."""
        copies = logits.unflatten(0, (-1, len(self.batch.prompts.reads.row)))
        values = torch.stack([self.objective(one, self.batch.prompts, self.clean.logits) for one in copies])
        refuse_nan(values, self.objective.name, self.batch)
        return values.double()

    @torch.no_grad()
    def edges_into(
        self, target: int, sources: list[int], spans: RowSpans | None = None
    ) -> Float[Tensor, " source"] | Float[Tensor, "span source"]:
        """Scores, summed over the batch's prompts, of edges from `sources` into one target; at each of `spans` alone.

        `spans`: the span of each row (prompt and position) of the batch.
        """
        run = functools.partial(self._run_edges, target)
        if spans is None:
            return self._scores(sources, run).sum(1)
        whole, where = self.delta, spans.where.to(self.delta.device)
        found = torch.zeros(spans.count, len(sources), dtype=torch.float64, device="cpu")
        try:
            for span in where.unique().tolist():
                inside = (where == span).view(whole.shape[1:3])[..., None]
                self.delta = whole * inside
                # an edge that carries no difference in a span changes nothing there
                moved = [i for i, source in enumerate(sources) if span < spans.count and self.delta[source].any()]
                if moved:
                    found[span, moved] = self._scores([sources[i] for i in moved], run).sum(1)
        finally:
            self.delta = whole
        return found

    @torch.no_grad()
    def nodes(self, sources: list[int]) -> Float[Tensor, " source"]:
        """Scores, summed over the batch's prompts, of corrupting whole sources."""
        by_place: dict[tuple[int, str], list[int]] = defaultdict(list)
        for source in sources:
            by_place[self._place(source)].append(source)
        scores: dict[int, Tensor] = {}
        for place, group in by_place.items():
            values = self._scores(group, functools.partial(self._run_nodes, place)).sum(1)
            scores.update(zip(group, values, strict=True))
        return torch.stack([scores[source] for source in sources])

    @torch.no_grad()
    def components(self, kind: str, layer: int, positions: list[int]) -> Float[Tensor, "position prompt"]:
        """Scores of corrupting a layer's `resid_pre`, `attn_out` or `mlp_out` at one position of the frame each."""
        return self._scores(positions, functools.partial(self._run_components, kind, layer))

    def component_delta(self, kind: str, layer: int) -> Residual:
        """Clean less corrupted value of a layer's `resid_pre`, `attn_out` or `mlp_out`."""
        if kind == "resid_pre":
            return self.delta[: self.graph.sources_before_attention(layer)].sum(0)
        if kind == "attn_out":
            return self.delta[self.graph.head_sources(layer)].sum(0)
        return self.delta[self.graph.mlp_source(layer)]

    def _run_components(self, kind: str, layer: int, positions: list[int]) -> Tensor:
        delta, entering = self.component_delta(kind, layer), self.clean.entering
        change = delta.new_zeros(len(positions), *delta.shape)
        for copy, position in enumerate(positions):
            change[copy, :, position] = delta[:, position]
        if kind == "attn_out":
            x = self._copies(entering[layer], len(positions))
            middle = (working(entering[layer] + self.clean.trace.added[layer]) - change).flatten(0, 1).to(x.dtype)
            return self._finish(finish_block(self.frame, layer, x, middle, SILENT), layer + 1)
        return self._run_lowered(layer + (kind == "mlp_out"), change)

    @torch.no_grad()
    def lowered(
        self, layer: int, items: list[int], change: Callable[[list[int]], Float[Tensor, "copy batch pos d_model"]]
    ) -> Float[Tensor, "item prompt"]:
        """Scores of taking each item's change away from the residual stream that enters `layer`, or leaves the last."""
        return self._scores(items, lambda some: self._run_lowered(layer, change(some)))

    def _run_lowered(self, layer: int, change: Float[Tensor, "copy batch pos d_model"]) -> Tensor:
        x = [*self.clean.entering, self.clean.final][layer]
        return self._finish((working(x) - change).flatten(0, 1).to(x.dtype), layer)

    def _scores(self, items: list[int], run: Callable[[list[int]], Tensor]) -> Float[Tensor, "item prompt"]:
        """What the objective of each prompt loses in each run, stacked as many at a time as memory allows."""
        parts: list[Tensor] = []
        done = 0
        while done < len(items):
            try:
                parts.append(self.clean_value - self._values(run(items[done : done + self.stacked])))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or self.stacked == 1:
                    raise
                failed = True
            else:
                failed = False
                done += len(parts[-1])
            if failed:  # outside the handler: the exception holds the failed run's tensors
                self.stacked //= 2
                free_memory()
        return torch.cat(parts).cpu()

    def _changed(self, x: Residual, sources: list[int]) -> Float[Tensor, "copies pos d_model"]:
        """`x` without the clean and with the corrupted output of each source: stacked copies."""
        changed: Tensor = working(x) - self.delta[sources]
        return changed.flatten(0, 1).to(x.dtype)

    def _copies(self, x: Tensor, count: int) -> Tensor:
        return x.repeat(count, *[1] * (x.ndim - 1))

    def _run_edges(self, target: int, sources: list[int]) -> Tensor:
        layer, place = divmod(target, self.graph.targets_per_layer)
        if layer == self.anatomy.n_layers:
            return self._finish(self._changed(self.clean.final, sources))
        entering, added = self.clean.entering[layer], self.clean.trace.added[layer]
        count = len(sources)
        if place == self.graph.targets_per_layer - 1:
            block = self.anatomy.blocks[layer]
            read = entering if block.parallel else entering + added
            x = self._copies(entering + added, count) + run_mlp(block, self._changed(read, sources))
            return self._finish(x, layer + 1)
        changed = self._patched_attention(layer, place, self._changed(entering, sources))
        entering = self._copies(entering, count)
        return self._finish(finish_block(self.frame, layer, entering, entering + changed, SILENT), layer + 1)

    def _patched_attention(self, layer: int, place: int, x: Residual) -> Residual:
        """What attention adds when one of its q, k or v targets reads `x` and the others read the clean run."""
        anatomy, graph, block = self.anatomy, self.graph, self.anatomy.blocks[layer]
        letter, port = _port(graph, place)
        affine = (block.q, block.k, block.v)[letter]
        all_ports = affine(block.attention_norm(x)).unflatten(-1, (-1, anatomy.d_head))
        parts = [self._copies(part, len(x) // self.batch.n_rows) for part in self.clean.trace.qkv[layer]]
        if letter and graph.n_ports != parts[1].shape[2]:
            groups = anatomy.kv_of_head()
            parts[1:] = [part[:, :, groups] for part in parts[1:]]
            all_ports = all_ports[:, :, groups]
        parts[letter][:, :, port] = all_ports[:, :, port]
        q, k, v = parts
        return write_heads(block, attend(self.frame, layer, q, k, v))[1]

    def _place(self, source: int) -> tuple[int, str]:
        """Layer and kind of a source."""
        if source == 0:
            return 0, "input"
        layer, place = divmod(source - 1, self.graph.n_heads + 1)
        return layer, "mlp" if place == self.graph.n_heads else "head"

    def _run_nodes(self, place: tuple[int, str], sources: list[int]) -> Tensor:
        layer, kind = place
        entering, added = self.clean.entering[layer], self.clean.trace.added[layer]
        if kind == "input":
            return self._finish(self._changed(entering, sources), 0)
        if kind == "mlp":
            last = layer + 1 == self.anatomy.n_layers
            return self._finish(
                self._changed(self.clean.final if last else self.clean.entering[layer + 1], sources), layer + 1
            )
        middle = self._changed(entering + added, sources)
        entering = self._copies(entering, len(sources))
        return self._finish(finish_block(self.frame, layer, entering, middle, SILENT), layer + 1)

    def _finish(self, x: Residual, layer: int | None = None) -> Tensor:
        """Logits from a residual stream that enters `layer` (None: the final norm)."""
        x = x if layer is None else run_blocks(self.frame, x, first=layer)
        return unembed(self.anatomy, answer_rows(x, self.frame, self.batch.prompts))


def _port(graph: ComputationalGraph, place: int) -> tuple[int, int]:
    """Which of q, k, v (0, 1, 2) and which port a target is, from its place in its layer."""
    if place < graph.n_heads:
        return 0, place
    letter, port = divmod(place - graph.n_heads, graph.n_ports)
    return letter + 1, port
