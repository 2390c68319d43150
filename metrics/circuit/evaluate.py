"""How well a circuit does the task alone: the objective with everything outside it ablated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.dictionaries.sets import FeatureKeywords
from interp.errors import InputError
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.interval import Estimate, Interval, IntervalKeywords
from interp.kernels.evaluate import CircuitValues
from interp.keywords import check_keywords
from interp.node_mask import NodeMask, node_masks
from interp.run import RunKeywords
from interp.running import door
from interp.setting import MaskObject, Setting, UnderKeywords
from interp.span_mask import SpanMask, span_masks
from interp.tasks.task import Task
from metrics.statistics import bootstrapped


class MeasureKeywords(UnderKeywords, RunKeywords, total=False):
    """The keywords of what runs circuits."""


class SpanKeywords(FeatureKeywords, total=False):
    """Which positions and dictionaries a bare tensor is over, which objects say themselves."""

    spans: Sequence[int | str] | None


class GrainKeywords(SpanKeywords, total=False):
    """The same, and what its nodes are."""

    level: str | None


class EvaluateKeywords(GrainKeywords, MeasureKeywords, total=False):
    """The keywords of `evaluate` and `measure`."""


class JudgeKeywords(MeasureKeywords, IntervalKeywords, total=False):
    """The keywords of what judges circuits, with intervals."""


@numbers.checked()
@door
def evaluate(model: Any, task: Task, circuit: Any, **keywords: Unpack[EvaluateKeywords]) -> Float[Tensor, " n"]:
    """The task's objective, prompt by prompt, with every edge (or node) outside the circuit ablated.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        circuit: bool `[source, target]` over the model's graph, or anything with such a `.mask` (a `Circuit`); a
            stack `[circuit, source, target]` evaluates many circuits at once and returns `[circuit, n]`. Or edges by
            position: what `scores.mask` gives of scores with spans, or bool `[span, source, target]` (a stack of these)
            with `spans=`. Or nodes: a `NodeCircuit`, what has `.mask`, `.level` and `.spans`, or a bool tensor and its
            `level`.
        level: of a bare tensor: `neuron` `[layer, d_mlp]`, `head` `[layer, head]`, `node` `[source]` or `feature`
            `[dictionary, feature]`; one axis more in front makes a stack. None: of edges.
        spans: of a bare tensor of nodes: absolute positions that are told apart, an axis of their own in front of the
            last: `[layer, span, d_mlp]`. Nodes at all other positions are ablated. Of edges: positions, names of the
            task's spans, and `"rest"` for all other positions, where without it all edges are ablated.
        dictionaries, errors: of features: what they are of, in order (a circuit that was found here knows; a file holds
            their digests alone), and whether what they leave of their outputs is `kept`, `ablated`, or `nodes` behind
            the features (None: as the circuit was found, or `kept`).
        ablation: what an edge outside gives: `patch` (the source's value in the corrupted prompt), `zero`, `zero-token`
            (the input keeps its learned position, as in MIB), `mean` or `mean-positional` over the task's clean
            prompts. None: the one that the circuit was found under (its `.setting`), or `patch` for a bare mask.
        objective: None: the one that the circuit was found under, or the task's own for a bare mask.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.

    Returns:
        float32 (float64 for a float64 model) on the CPU, in the order of the prompts.

    Raises:
        InputError: a mask of another shape or with edges that do not exist, unknown names, a NaN objective.
    """
    check_keywords("evaluate", keywords, EvaluateKeywords)
    setting, masks, single = _judging(model, task, circuit, keywords)
    values = setting.measure(masks)
    return values.circuits[0] if single else values.circuits


@numbers.checked()
@door
def measure(model: Any, task: Task, circuit: Any, **keywords: Unpack[EvaluateKeywords]) -> CircuitValues:
    """Objectives of the clean model (`.clean`), the empty circuit (`.empty`) and the circuit (`.circuits`) by prompt.

    The empty circuit of nodes ablates all nodes of the level: attention and embeddings stay live.

    Arguments as for `evaluate`, which gives the circuit's alone.
    """
    check_keywords("measure", keywords, EvaluateKeywords)
    setting, masks, _ = _judging(model, task, circuit, keywords)
    return setting.measure(masks)


def judging(
    model: Any, task: Task, circuit: Any, keywords: Mapping[str, Any]
) -> tuple[Setting, Bool[Tensor, "source target"] | MaskObject]:
    """The setting that a single circuit (a mask, or anything with `.mask`) is judged in, and its mask.

    What is not asked for is as the circuit was found.
    """
    setting, masks, single = _judging(model, task, circuit, keywords)
    if not single:
        raise InputError(f"circuit holds {len(masks)} circuits; this looks at one: give a mask [source, target]")
    return setting, masks[0] if isinstance(masks[0], NodeMask | SpanMask) else setting.graph.check_mask(masks[0])


def together(circuits: Sequence[Tensor | MaskObject]) -> Tensor | list[MaskObject]:
    """Circuits of one kind as a setting measures them: edges stacked."""
    objects = [one for one in circuits if isinstance(one, NodeMask | SpanMask)]
    return objects or torch.stack([one for one in circuits if isinstance(one, Tensor)])


def setting_of_scores(
    model: Any, task: Task, scores: Any, keywords: Mapping[str, Any]
) -> tuple[Setting, Float[Tensor, "source target"]]:
    """The setting that scores over edges are judged in, and their values; raises `InputError` for others."""
    # a tensor has a method of that name
    values = scores if isinstance(scores, Tensor) else getattr(scores, "values", None)
    if not isinstance(values, Tensor):
        raise InputError(f"scores must be a tensor [source, target] or have such .values; got {type(scores).__name__}")
    if values.ndim != 2:
        raise InputError(
            f"scores have shape {tuple(values.shape)}; this ablates edges at all positions at once: give their "
            ".edge_values, the sum over spans, or use metrics.faithfulness_curve, which takes both"
        )
    kv = graph_of_mask(anatomy_of(model), values).kv
    return Setting.of(model, task, {**keywords, "kv": kv}, scores), values


def _judging(
    model: Any, task: Task, circuit: Any, keywords: Mapping[str, Any]
) -> tuple[Setting, Bool[Tensor, "circuit source target"] | Sequence[MaskObject], bool]:
    if (by_span := span_masks(circuit, keywords.get("level"), keywords.get("spans"))) is not None:
        refuse_dictionaries(keywords, "edge")
        kv = graph_of_mask(anatomy_of(model), by_span[0].mask).kv
        stacked = isinstance(circuit, Tensor) and circuit.ndim == 4
        return Setting.of(model, task, {**keywords, "kv": kv}, circuit), by_span, not stacked
    nodes = node_masks(circuit, keywords.get("level"), keywords.get("spans"))
    refuse_dictionaries(keywords, nodes[0].level if nodes else "edge")
    if nodes is not None:
        stacked = isinstance(circuit, Tensor) and circuit.ndim > nodes[0].mask.ndim
        return Setting.of(model, task, keywords, circuit), nodes, not stacked
    masks, single = _masks(circuit)
    kv = graph_of_mask(anatomy_of(model), masks).kv
    return Setting.of(model, task, {**keywords, "kv": kv}, circuit), masks, single


def refuse_dictionaries(keywords: Mapping[str, Any], level: str) -> None:
    """Raise `InputError` for dictionaries beside what is of no features."""
    if level != "feature" and keywords.get("dictionaries") is not None:
        raise InputError(f"dictionaries are for features, and this is of {level}s: give level='feature' too")


def graph_of_mask(anatomy: Anatomy, mask: Tensor) -> ComputationalGraph:
    """The graph, per query head or per key-value head, that a mask or score of this shape belongs to."""
    kinds: tuple[KV, ...] = ("head", "group")
    graphs = [ComputationalGraph.of_anatomy(anatomy, kv) for kv in kinds]
    for graph in graphs:
        if tuple(mask.shape[-2:]) == graph.shape:
            return graph
    shapes = " or ".join(dict.fromkeys(str(graph.shape) for graph in graphs))
    raise InputError(
        f"mask of shape {tuple(mask.shape[-2:])} does not fit model={anatomy.name!r}, whose graph has {shapes} "
        "(sources, targets)"
    )


def _masks(mask: Any) -> tuple[Bool[Tensor, "circuit source target"], bool]:
    tensor = getattr(mask, "mask", mask)
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3):
        given = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(mask).__name__
        raise InputError(
            "circuit must be a bool tensor [source, target] or [circuit, source, target], or have such a .mask; "
            f"got {given}"
        )
    return (tensor[None], True) if tensor.ndim == 2 else (tensor, False)


@numbers.checked()
def faithfulness(values: CircuitValues, **keywords: Unpack[IntervalKeywords]) -> list[Estimate]:
    """Faithfulness of each circuit: a ratio of mean objectives, prompts resampled for the interval.

    NaN where the clean model does no better than the empty circuit to rounding: there is nothing to explain.
    """
    check_keywords("faithfulness", keywords, IntervalKeywords)
    return faithfulness_in(values, Interval.of(keywords))


def faithfulness_in(values: CircuitValues, interval: Interval) -> list[Estimate]:
    """`faithfulness` with its interval whole."""
    return bootstrapped(stacked(values), faithfulness_of_means, interval)


def faithfulness_values(values: CircuitValues) -> list[float]:
    """`faithfulness` without intervals."""
    return [float(one) for one in faithfulness_of_means(stacked(values).mean(-1)[None])[0]]


def faithfulness_errors(values: CircuitValues) -> list[float]:
    """Standard errors of `faithfulness` over prompts, by the delta method; 0 with a single prompt.

    f = mean c / mean g has the error of mean (c - f g) / mean g, c and g being what the circuit and the model are above
    the empty circuit.
    """
    clean, empty, *circuits = stacked(values)
    gap, n = clean - empty, len(clean)
    found = np.array(faithfulness_values(values))
    apart = np.array(circuits).reshape(-1, n) - empty - found[:, None] * gap
    spread = apart.std(axis=1, ddof=1) if n > 1 else np.zeros(len(apart))
    return [float(one) for one in spread / np.sqrt(n) / abs(gap.mean())]


def stacked(values: CircuitValues) -> NDArray[np.float64]:
    """Objectives as statistics of faithfulness take them: `[clean | empty | circuits..., n]`."""
    return torch.cat((values.clean[None], values.empty[None], values.circuits)).double().numpy()


def resolution_of(values: CircuitValues) -> float:
    """Differences of objectives that count as none: a ten-thousandth of what separates model and empty circuit."""
    return 1e-4 * float((values.clean - values.empty).double().abs().mean())


def faithfulness_of_means(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[resamples, clean | empty | circuits...]` mean objectives -> `[resamples, circuits]` faithfulness."""
    return (means[:, 2:] - means[:, 1:2]) / model_gap(means)[:, None]


def model_gap(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[resamples, clean | empty | ...]` -> how far the model is above the empty circuit; NaN where it is rounding."""
    clean, empty = means[:, 0], means[:, 1]
    gap = clean - empty
    return np.where(np.abs(gap) > 1e-9 * np.maximum(np.abs(clean), np.abs(empty)), gap, np.nan)
