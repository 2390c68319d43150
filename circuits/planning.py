"""`plan`: what scoring the edges of a model would take, from its configuration alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from attribution.edges.gradient import GradientMethod
from attribution.engines import chosen_method
from circuits.cost import resident
from interp import numbers, tasks
from interp.anatomy import Anatomy
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels import batching
from interp.kernels.contract import chunk_rows, most_targets
from interp.models import check_dtype, configured
from interp.running import door
from interp.streaming.modules import stream_of

_LIBRARIES = 0.5e9  # bytes that Python, torch and the rest take, where the system does not say


@dataclass(frozen=True)
class ScoringPlan:
    """What `plan` found; memory in bytes.

    Attributes:
        model, task, method: what it is for.
        edges: how many edges are scored.
        forward, backward: passes per prompt.
        n, tokens: prompts, and positions of the longest.
        batch_size, copies: prompts, and points of the method's path, that run at once.
        checkpointed: whether activations are computed again in the backward pass.
        process: what the libraries take.
        weights: what is held of the weights at a time.
        captures: sources and gradients that are kept of one batch.
        batch: activations of one batch.
        contraction: buffers of the contraction.
        read: bytes that are read from the files; 0 where weights are loaded.
    """

    model: str
    task: str
    method: str
    edges: int
    forward: float
    backward: float
    n: int
    tokens: int
    batch_size: int
    copies: int
    checkpointed: bool
    process: float
    weights: float
    captures: float
    batch: float
    contraction: float
    read: float

    @property
    def peak(self) -> float:
        """The most that is held at a time: activations and contraction come one after the other."""
        return self.process + self.weights + self.captures + max(self.batch, self.contraction)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**dataclasses.asdict(self), "peak": self.peak}

    def __str__(self) -> str:
        parts = ("process", "weights", "captures", "batch", "contraction")
        lines = [
            f"{self.method} on {self.model}, {self.n} prompts of {self.tokens} tokens ({self.task})",
            f"  edges         {self.edges:,}",
            f"  passes        {self.forward:g} forward, {self.backward:g} backward for each prompt",
            f"  batch size    {self.batch_size}"
            + (f", {self.copies} points of the path at once" if self.copies > 1 else "")
            + (", activations computed again" if self.checkpointed else ""),
            *(f"  {name:13s} {getattr(self, name) / 1e9:.2f} GB" for name in parts),
            f"  peak memory   {self.peak / 1e9:.2f} GB",
        ]
        return "\n".join(lines + ([f"  read          {self.read / 1e9:.1f} GB"] if self.read else []))


@numbers.checked(n=numbers.COUNT, tokens=numbers.COUNT)
@door
def plan(
    source: str,
    task: str | None = None,
    *,
    n: int = 64,
    method: str = "eap-ig",
    steps: int | None = None,
    tokens: int | None = None,
    weights: str = "loaded",
    dtype: str | torch.dtype | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
) -> ScoringPlan:
    """What `attribute` would take on a CPU: edges, passes, memory by part, bytes read; no weights are needed.

    Args:
        source: a model as `interp.load_model` takes it by name, of which only the configuration and the tokenizer are
            read: a folder may hold these alone.
        task: a task's name; its prompts, as the model's tokenizer splits them, say how many tokens there are, and how
            many of the first are the same in the corrupted prompt, which runs leave out.
        n: prompts.
        method, steps: as for `attribute`; a method that takes gradients along a path.
        tokens: positions of the longest prompt, where there is no tokenizer or no task; all are then run.
        weights: "loaded" or "streamed".
        dtype, batch_size, memory: as for `load_model` and `attribute`.

    Raises `InputError` for what those refuse, for other methods, and where nothing says how long prompts are.

    >>> print(plan("meta-llama/Llama-3.1-8B", "ioi", weights="streamed"))  # doctest: +SKIP
    """
    choose("weights", weights, ("loaded", "streamed"))
    scorer = chosen_method(method, {"steps": steps}, "edge")
    if not isinstance(scorer, GradientMethod):
        raise InputError(
            f"method={method!r} takes no gradients along a path, so its memory is not known beforehand; plan for "
            "'eap', 'eap-ig', 'eap-ig-activations', 'clean-corrupted', 'relp' or another rule"
        )
    model = configured(source, check_dtype(dtype) or torch.float32)
    length, run = _lengths(model, task, n, tokens)
    hollow, stream = anatomy_of(model), stream_of(model)
    streams = weights == "streamed"
    anatomy = dataclasses.replace(hollow, streams=streams)
    graph = ComputationalGraph.of_anatomy(anatomy)
    points = scorer.path(graph.n_layers).n_points
    planned = batching.plan(
        anatomy, n, length, copies=points, batch_size=batch_size, checkpointed=scorer.checkpointed, memory=memory
    )
    size = _Size(anatomy, graph, min(n, planned.batch_size) * run, planned, points)
    passes, batches = scorer.passes(graph), -(-n // planned.batch_size)
    # a stack of copies is one pass; what is not on the path has one of its own
    runs = 2 * -(-points // planned.copies) + passes.forward - points
    read = batches * (runs * stream.n_stored() + size.contractions * size.n_chunks * stream.n_stored("attn"))
    vectors = sum(one.numel() for one in model.original_model.parameters() if not one.is_meta)
    held = stream.held_bytes / anatomy.parameter().element_size() if streams else stream.n_all
    return ScoringPlan(
        model=str(source), task=task or "-", method=scorer.name, edges=graph.n_edges,
        forward=passes.forward, backward=passes.backward, n=n, tokens=length,
        batch_size=min(n, planned.batch_size), copies=planned.copies, checkpointed=planned.checkpointed,
        process=resident() or _LIBRARIES, weights=(held + vectors) * anatomy.parameter().element_size(),
        captures=size.captures, batch=size.batch, contraction=size.contraction,
        read=2 * read if streams else 0.0,
    )  # fmt: skip


def _lengths(model: Any, task: str | None, n: int, tokens: int | None) -> tuple[int, int]:
    """Positions of the longest prompt, and how many are run: those that all prompts share with their corrupted versions
    are run once, alone.
    """
    if tokens is not None:
        length = numbers.whole("tokens", tokens, numbers.COUNT)
        return length, length
    if task is None or model.tokenizer is None:
        raise InputError("nothing says how long prompts are; give tokens=, or a task and a model with a tokenizer")
    prompts = tasks.get(task, n=n, seed=0, model=model).prompts(model)
    return prompts.longest, prompts.longest - int(prompts.first_run.min())


@dataclass(frozen=True)
class _Size:
    """Bytes of what one batch of `rows` positions keeps."""

    anatomy: Anatomy
    graph: ComputationalGraph
    rows: int
    planned: batching.Plan
    points: int

    @property
    def _wide(self) -> int:
        """Bytes of a number in the precision of sums."""
        return max(4, self.anatomy.parameter().element_size())

    @property
    def _ports(self) -> int:
        return self.graph.targets_per_layer - 1

    @property
    def captures(self) -> float:
        """Sources of the clean and the corrupted run and their differences; gradients; norms' rank-one parts."""
        a = self.anatomy
        sources = a.d_model + a.n_layers * (a.n_heads * a.d_head + a.d_model)
        gradients = a.d_model + a.n_layers * (self._ports * a.d_head + a.d_model)
        kept = min(self.points, 16) * a.n_layers * (self._ports + a.d_model)
        return float(self.rows * self._wide * (3 * sources + gradients + kept))

    @property
    def batch(self) -> float:
        """What autograd keeps of stacked copies: of all layers, or of one and the residual stream at each."""
        a = self.anatomy
        block = 5 * a.d_model + 6 * a.n_heads * a.d_head + 4 * a.d_mlp
        floats = block + a.n_layers * a.d_model if self.planned.checkpointed else a.n_layers * block
        return float(self.rows * self.planned.copies * floats * a.parameter().element_size())

    @property
    def _expanded(self) -> int:
        """Sources, and the targets of some layers, that are expanded to `d_model` at a time."""
        return len(self.graph.sources) + most_targets(self.graph)

    @property
    def _chunk(self) -> int:
        return chunk_rows(self.anatomy, self._expanded, self.rows, self._wide)

    @property
    def n_chunks(self) -> int:
        """In how many parts rows are contracted."""
        return -(-self.rows // self._chunk)

    @property
    def contractions(self) -> int:
        """How often the gradients of a batch are contracted: every sixteen points."""
        return -(-self.points // 16)

    @property
    def contraction(self) -> float:
        """Buffers of what is expanded, and scores."""
        scores = 3 * len(self.graph.sources) * self.graph.shape[1]
        return float(self._wide * (self._chunk * self._expanded * self.anatomy.d_model + scores))
