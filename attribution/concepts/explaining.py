"""`explain` and `explain_all`: a network's output by at most K concepts, under two controls."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.concepts.losses import Decisions, Logits, Target
from attribution.concepts.path import Fitted, Problem, sparse_fits
from interp import numbers
from interp.concepts.explained import ConceptExplanation
from interp.concepts.heads import ConceptHeads
from interp.concepts.images import ConceptImages
from interp.concepts.reading import INPUTS, ConceptReading, read_concepts
from interp.errors import InputError, choose, short
from interp.keywords import check_keywords
from interp.run import RunKeywords
from interp.running import door

TARGETS = ("logits", "decisions")  # from the more to the less faithful


@numbers.checked(size=numbers.COUNT)
@door
def explain(
    model: Any,
    heads: ConceptHeads,
    images: ConceptImages,
    size: int,
    *,
    inputs: str = "probabilities",
    target: str = "logits",
    only: Sequence[str] | None = None,
    **keywords: Unpack[RunKeywords],
) -> ConceptExplanation:
    """Explain a network's output by at most `size` concepts (UFO, arXiv:2303.15632).

    A linear map W, b from concepts x to classes: the least mean loss(W x + b, target) with at most K columns of W that
    are not 0. Columns are chosen by a group-lasso path over concepts divided by their ranges, fitted again without the
    penalty, and exchanged while that lowers the loss. (The paper adds a penalty on the smallest columns that doubles
    from epoch 500 on, of 100 by default; a further term of its code, for concepts that heads learn well, has no
    gradient in W. Leave such concepts out with `only`.)

    Args:
        model: any torch module from images [n, channel, height, width] to logits [n, class].
        heads: of `train_heads`.
        images: to fit W on.
        size: K: fewer concepts are more understandable.
        inputs: what is read of each concept: `logits` or `probabilities` of its head, or the true `labels`; from the
            least to the most understandable.
        target: the network's `logits` (half the squared error, summed over classes), or its `decisions`
            (cross-entropy, with a ridge of 1e-4); the more and the less faithful.
        only: names of the concepts to choose from; None: all.
        **keywords: `batch_size`, `quiet`.

    Returns:
        `ConceptExplanation`: `.used`, `.weights`, `.to_frame()`, `.figure()`.

    Cost: a forward pass an image; a path of convex problems, and about `size` fits for each exchange.

    Raises:
        InputError: names that are unknown, images with other concepts than the heads.
    """
    check_keywords("explain", keywords, RunKeywords)
    choose("inputs", inputs, INPUTS), choose("target", target, TARGETS)
    reading = read_concepts(model, heads, images, **keywords)
    return _fitted(reading, heads, inputs, target, [size], _columns(only, heads.names))[0]


@numbers.checked(sizes=numbers.COUNT, n_random=numbers.COMMON["n_random"])
@door
def explain_all(
    model: Any,
    heads: ConceptHeads,
    images: ConceptImages,
    sizes: int | Sequence[int],
    *,
    inputs: Sequence[str] = INPUTS,
    targets: Sequence[str] = TARGETS,
    only: Sequence[str] | None = None,
    n_random: int = 0,
    seed: int = 0,
    **keywords: Unpack[RunKeywords],
) -> list[ConceptExplanation]:
    """`explain` for every size, kind of input and target, on one reading of the images.

    Args:
        model, heads, images, only: as for `explain`.
        sizes: K, or several; those of one input and target share their path.
        inputs, targets: kinds of input and target to combine.
        n_random: for each combination and size also so many explanations whose concepts are drawn at random.
        seed: of these draws.
        **keywords: `batch_size`, `quiet`.

    Returns:
        Explanations, for `metrics.concepts.concept_faithfulness`.

    Raises:
        InputError: as `explain`; no size, input or target.
    """
    check_keywords("explain_all", keywords, RunKeywords)
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    for name, given, known in (("inputs", inputs, INPUTS), ("targets", targets, TARGETS)):
        if isinstance(given, str) or not given:
            raise InputError(f"{name}={short(given)} must be some of {', '.join(known)}, in a list")
        for one in given:
            choose(name, one, known)
    if not sizes:
        raise InputError("sizes is empty; give at least one number of concepts")
    reading, columns = read_concepts(model, heads, images, **keywords), _columns(only, heads.names)
    found, drawn = [], random.Random(seed)
    for kind in inputs:
        for target in targets:
            found += _fitted(reading, heads, kind, target, sizes, columns)
            for size in sizes * n_random:
                some = sorted(drawn.sample(columns, min(size, len(columns))))
                found += _fitted(reading, heads, kind, target, [size], some, control=True)
    return found


def _fitted(
    reading: ConceptReading, heads: ConceptHeads, inputs: str, target: str, sizes: Sequence[int],
    columns: Sequence[int], control: bool = False,
) -> list[ConceptExplanation]:  # fmt: skip
    """An explanation of each size, by some columns; a control uses all of them."""
    started, read = time.perf_counter(), reading.inputs(inputs)
    means, ranges = read.mean(0), read.max(0).values - read.min(0).values
    moving = [at for at in columns if float(ranges[at]) > 0]
    scaled = (read[:, moving] - means[moving]) / ranges[moving]
    aim = _target(reading, target)
    fits = [Problem(scaled, aim).fit(range(len(moving)))] if control else sparse_fits(scaled, aim, sizes)
    found = []
    for size, fit in zip(sizes, fits, strict=True):
        weights = _unscaled(fit, moving, ranges)
        found.append(
            ConceptExplanation(
                weights=weights,
                bias=fit.bias - weights @ means,
                means=means,
                ranges=ranges,
                inputs=inputs,
                target=target,
                size=size,
                control=control,
                loss=fit.loss,
                names=heads.names,
                layer=heads.layer,
                n=len(read),
                seconds=time.perf_counter() - started,
            )
        )
    return found


def _target(reading: ConceptReading, target: str) -> Target:
    if target == "logits":
        return Logits(reading.logits)
    return Decisions(reading.decisions, reading.logits.shape[1])


def _unscaled(fit: Fitted, moving: Sequence[int], ranges: Float[Tensor, " concept"]) -> Float[Tensor, "class concept"]:
    """Weights of the concepts as they are."""
    weights = torch.zeros(len(fit.bias), len(ranges), dtype=torch.float64, device="cpu")
    weights[:, moving] = fit.weights / ranges[moving]
    return weights


def _columns(only: Sequence[str] | None, names: Sequence[str]) -> list[int]:
    if only is None:
        return list(range(len(names)))
    if isinstance(only, str) or not only:
        raise InputError(f"only={short(only)} must be names of concepts, in a list")
    return [names.index(choose("only", name, names)) for name in dict.fromkeys(only)]
