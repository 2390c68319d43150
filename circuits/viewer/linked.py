"""What the page shows beside the graph for one prompt: tokens, attention patterns, direct effects.

The direct effect of a node is what its output at the last position adds to the answer's logits through the final
norm, held at the scale it has in the clean run:

    direct(node) = centred(output) * gain / r(x)  .  (mean W_U[correct] - mean W_U[incorrect])

All direct effects and the constant parts (biases) add up to the difference of the answer's logits, before a soft
cap. Elhage et al. 2021, "A mathematical framework for transformer circuits"; nostalgebraist 2020, "logit lens".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from circuits.viewer.promoted import promoted, through_final_norm
from interp import numbers
from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.capture import SourceRecorder
from interp.kernels.contract import expand_sources
from interp.kernels.forward import attention_pattern, prepare, run_blocks
from interp.kernels.frame import Frame, PerHead, PerPort
from interp.kernels.source_means import zero_sources
from interp.parts import working
from interp.running import door
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from interp.token_text import token_texts

PATTERN_BYTES = 1_600_000  # of attention patterns in a page; base64 makes a third more of them


@dataclass(frozen=True)
class Effect:
    """What a node writes at the last position: on the answer, and the tokens it moves most, with their logits."""

    direct: float
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]


@dataclass(frozen=True)
class LinkedViews:
    """One prompt and what the nodes of a circuit do on it.

    `patterns` [head, query, key] hold the attention of `heads` in steps of 1/255; `left_out` heads had no room.
    `logits` is the difference of the answer's logits, `rest` what constants add to it.
    """

    example: int
    clean: list[str]
    corrupted: list[str]
    correct: list[str]
    incorrect: list[str]
    heads: list[str]
    patterns: UInt8[np.ndarray, "head query key"]
    left_out: int
    effects: dict[str, Effect]
    logits: float
    rest: float


class _Listener(SourceRecorder):
    """Keeps outputs at the last position and the attention patterns of all layers."""

    def __init__(self, frame: Frame, embedding: Tensor, rows: Tensor) -> None:
        super().__init__(embedding, rows)
        self.frame = frame
        self.patterns: list[Float[Tensor, "head query key"]] = []

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        self.patterns.append(attention_pattern(self.frame, layer, q, k, v)[0])
        return q, k, v


def check_example(task: Task, example: int) -> Task:
    """The task of that one prompt; raises `InputError` for a number that is none of its prompts."""
    example = numbers.whole("example", example)
    if not 0 <= example < len(task):
        raise InputError(f"example={example} is no prompt of the task {task.name!r}; it has 0 to {len(task) - 1}")
    return task.select([example])


def shown_prompt(model: Any, task: Task, example: int) -> Prompts:
    """One prompt up to its answer, as its views take it; raises as `check_example` does."""
    return check_example(task, example).prompts(model).until_answer()


@dataclass(frozen=True)
class Written:
    """One clean prompt, run: what every source writes at the last position, and where heads look.

    Attributes:
        anatomy, graph, prompts: of the model, and the one prompt.
        outputs: of each source.
        final: the residual stream in front of the final norm; beyond the sources it holds what biases add.
        patterns: of each layer.
        readout, constant: the direction behind the final norm that the answer reads, and what its bias adds.
    """

    anatomy: Anatomy
    graph: ComputationalGraph
    prompts: Prompts
    outputs: Float[Tensor, "source d_model"]
    final: Float[Tensor, "1 d_model"]
    patterns: list[Float[Tensor, "head query key"]]
    readout: Float[Tensor, " d_model"]
    constant: float

    def read(self, stream: Float[Tensor, "1 d_model"]) -> float:
        """The difference of the answer's logits that a residual stream gives through the final norm of its own."""
        return float(working(self.anatomy.final_norm(stream))[0] @ self.readout) + self.constant


def written_on(model: Any, task: Task, example: int) -> Written:
    """Run one prompt of a task. Cost: one forward pass. Raises as `check_example` does."""
    anatomy = anatomy_of(model)
    graph = ComputationalGraph.of_anatomy(anatomy)
    prompts = shown_prompt(model, task, example).to(anatomy.device)
    frame, last = prepare(anatomy, prompts.clean, 0, prompts.lengths), prompts.lengths - 1
    embedding = anatomy.embed(prompts.clean, frame.positions)
    listener = _Listener(frame, embedding, last)
    final = working(run_blocks(frame, embedding, listener)[0, last])
    readout, constant = _answer(anatomy, prompts)
    return Written(
        anatomy, graph, prompts, _outputs(anatomy, graph, listener), final, listener.patterns, readout, constant
    )


@door
@torch.no_grad()
def linked_views(
    model: Any,
    task: Task,
    nodes: Sequence[str],
    example: int = 0,
    others: Sequence[str] = (),
    room: int | None = None,
) -> LinkedViews:
    """Patterns and direct effects of `nodes`, the strongest first, on one clean prompt. Cost: one forward pass.

    Behind them stand the patterns of `others`, as far as there is `room` (bytes; None: `PATTERN_BYTES`).
    """
    run = written_on(model, task, example)
    anatomy, prompts = run.anatomy, run.prompts
    through = through_final_norm(anatomy, run.outputs, run.final)
    direct = (through @ run.readout).tolist()
    logits = run.read(run.final)
    node = {name: index for index, name in enumerate(run.graph.sources)}
    heads, patterns, left_out = _patterns(run.patterns, [name for name in (*nodes, *others) if ".h" in name], room)
    written = [name for name in nodes if name in node]
    return LinkedViews(
        example=example,
        clean=_texts(model, prompts.clean[0]),
        corrupted=_texts(model, prompts.corrupted[0]),
        correct=_texts(model, _known(prompts.correct)),
        incorrect=_texts(model, _known(prompts.incorrect)),
        heads=heads,
        patterns=patterns,
        left_out=left_out,
        effects=_effects(model, anatomy, through, direct, {name: node[name] for name in written}),
        logits=logits,
        rest=logits - sum(direct),
    )


@door
@torch.no_grad()
def corrupted_patterns(
    model: Any, task: Task, heads: Sequence[str], example: int = 0
) -> UInt8[np.ndarray, "head query key"]:
    """The attention of `heads` on one corrupted prompt, in steps of 1/255. Cost: one forward pass."""
    anatomy = anatomy_of(model)
    prompts = shown_prompt(model, task, example).to(anatomy.device)
    frame = prepare(anatomy, prompts.corrupted, 0, prompts.lengths)
    embedding = anatomy.embed(prompts.corrupted, frame.positions)
    listener = _Listener(frame, embedding, prompts.lengths - 1)
    run_blocks(frame, embedding, listener)
    return _bytes(listener.patterns, heads)


def _outputs(anatomy: Anatomy, graph: ComputationalGraph, listener: _Listener) -> Float[Tensor, "source d_model"]:
    """What each source writes at the last position."""
    sources = listener.sources.minus(zero_sources(anatomy, 1, anatomy.dtype))  # in at least float32
    written = sources.embedding.new_empty(len(graph.sources), 1, anatomy.d_model)
    expand_sources(anatomy, graph, sources, slice(0, 1), slice(0, len(graph.sources)), written)
    return written[:, 0]


def _answer(anatomy: Anatomy, prompts: Prompts) -> tuple[Float[Tensor, " d_model"], float]:
    """The direction in front of the unembedding that the answer reads, and what its bias adds."""
    weight, bias = anatomy.unembed.weight, anatomy.unembed.bias
    direction, constant = working(weight.new_zeros(weight.shape[1])), 0.0
    for ids, sign in ((_known(prompts.correct), 1), (_known(prompts.incorrect), -1)):
        if len(ids):
            direction = direction + sign * working(weight[ids]).mean(0)
            constant += 0.0 if bias is None else sign * float(working(bias[ids]).mean())
    return direction, constant


def _known(ids: Int[Tensor, "1 k"]) -> Int[Tensor, " k"]:
    return ids[0][ids[0] >= 0]


def _patterns(
    layers: list[Float[Tensor, "head query key"]], heads: list[str], room: int | None
) -> tuple[list[str], UInt8[np.ndarray, "head query key"], int]:
    """The patterns of as many heads as there is room for, the first ones."""
    kept = heads[: (PATTERN_BYTES if room is None else room) // layers[0].shape[-1] ** 2]
    return kept, _bytes(layers, kept), len(heads) - len(kept)


def _bytes(layers: list[Float[Tensor, "head query key"]], heads: Sequence[str]) -> UInt8[np.ndarray, "head query key"]:
    length = layers[0].shape[-1]
    patterns = np.zeros((len(heads), length, length), dtype=np.uint8)
    for place, name in enumerate(heads):
        layer, head = (int(part) for part in name[1:].split(".h"))
        patterns[place] = (layers[layer][head] * 255).round().byte().cpu().numpy()
    return patterns


def _effects(
    model: Any, anatomy: Anatomy, through: Float[Tensor, "source d_model"], direct: list[float], rows: dict[str, int]
) -> dict[str, Effect]:
    moved = promoted(model, anatomy, through[list(rows.values())])
    return {name: Effect(direct[row], *ends) for (name, row), ends in zip(rows.items(), moved, strict=True)}


def _texts(model: Any, ids: Int[Tensor, " pos"]) -> list[str]:
    return token_texts(getattr(model, "tokenizer", None), ids.tolist())
