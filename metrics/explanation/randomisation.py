"""Model-parameter randomisation: does an explanation change when what the model has learnt is destroyed?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from interp import numbers
from interp.arrays import as_tensor, copied
from interp.errors import InputError, choose
from interp.interval import Interval, IntervalKeywords
from interp.keywords import check_keywords
from interp.progress import progress
from interp.running import door
from metrics.explanation.prediction import Array, Flags
from metrics.explanation.randomisation_result import MODES, Randomisation

Explain = Callable[[Any, Any, Any], Any]
Redraw = Callable[[Tensor, torch.Generator], Tensor]


def normal(values: Tensor, generator: torch.Generator) -> Tensor:
    """Normal draws with the mean and standard deviation of the values."""
    drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64, device="cpu")
    known = values.detach().cpu().double()
    return known.mean() + known.std(correction=0) * drawn


def permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    """The values in random order."""
    order = torch.randperm(values.numel(), generator=generator, device="cpu").to(values.device)
    return values.detach().flatten()[order].reshape(values.shape)


REDRAWS: dict[str, Redraw] = {"normal": normal, "permuted": permuted}


@numbers.checked(draws=numbers.COUNT)
@door
def randomisation(
    model: nn.Module,
    inputs: Any,
    explain: Explain | Mapping[str, Explain],
    *,
    target: Any = None,
    mode: str | Sequence[str] = MODES,
    layers: Sequence[str] | None = None,
    redraw: str | Redraw = "normal",
    draws: int = 3,
    real: Any = None,
    quiet: bool = False,
    **keywords: Unpack[IntervalKeywords],
) -> Randomisation:
    """Model-parameter randomisation test (Adebayo et al., NeurIPS 2018, "Sanity Checks for Saliency Maps").

    The parameters of a copy of the model are drawn anew, layer by layer, and each explanation is compared with that
    of the model as it was: Spearman's rank correlation over the elements of each sample, of the values and of their
    absolute values (a random layer can turn all signs). `cascading` draws from the output layer downwards, what was
    drawn staying so; `independent` draws one layer at a time, the others as trained.

    An explanation that hardly changes when all layers are random says nothing about what was learnt: it fails. To
    pass is necessary and not sufficient: random scores pass. Explanations that multiply by the input keep some
    likeness for the input's sake, so hand in the input's own |x| as a control beside them.

    Args:
        model: a torch module; a copy of it in evaluation mode is used.
        inputs: whatever the explainers take, as a tensor or array [n, ...].
        explain: `explain(model, inputs, target) -> attributions [n, ...]`, or several by name. Called with gradients
            enabled. It must be handed the model: one that knows a model of its own cannot change. Randomness of its
            own must be the same at each call.
        target: handed on as it is, the same for all models. None: the classes [n] that the model as it was predicts
            (the largest of `model(inputs)` [n, class]).
        mode: `cascading`, `independent`, or both.
        layers: names of submodules, from input to output; each is drawn as a whole. None: all modules that hold
            parameters of their own, in the order in which they were registered (look at the names: if that is not
            the order of the computation, name them).
        redraw: `normal` (mean and standard deviation of each parameter tensor are kept, so that activations stay in
            range), `permuted` (its values in another order), or a function (parameter, generator) -> values. A
            tensor of equal values, such as an untrained bias, stays as it is under both names. Buffers stay.
        draws: so many random models, over which each sample's correlations are averaged.
        real: False at elements that do not count, such as padding; shaped like one explanation.
        confidence, resamples, seed: of the bootstrap over samples; the seed is also that of the draws.
        quiet: no progress bar.

    Returns:
        `Randomisation`: `to_frame()`, `reading`, `figure()`. Costs one explanation of all inputs for each layer,
        mode, draw and explainer.

    Raises:
        InputError: a model without parameters, unknown layers, attributions that are NaN or of
            changing shape.

    >>> net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    >>> inputs = torch.arange(24.0).sin().reshape(6, 4)
    >>> found = randomisation(net, inputs, {"|x|": lambda model, x, target: x.abs()}, mode="cascading")
    >>> print(found.reading["|x|"])
    fails: with all layers random it is the same (rank correlation 1.000 [1.000, 1.000])
    """
    check_keywords("randomisation", keywords, IntervalKeywords)
    interval = Interval.of(keywords)
    modes = tuple(choose("mode", one, MODES) for one in ([mode] if isinstance(mode, str) else mode))
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch module whose parameters can be drawn anew; got {type(model).__name__}")
    named = dict(explain) if isinstance(explain, Mapping) else {getattr(explain, "__name__", "explanation"): explain}
    if not named or not all(callable(one) for one in named.values()):
        raise InputError("explain must be a function (model, inputs, target) -> attributions, or several by name")
    draw = REDRAWS[choose("redraw", redraw, REDRAWS)] if isinstance(redraw, str) else redraw
    clone = copy.deepcopy(model).eval()
    plan = _layers(clone, layers)
    if target is None:
        target = _predicted(clone, inputs)

    def explained() -> dict[str, Array]:
        return {name: _attributions(name, one, clone, inputs, target) for name, one in named.items()}

    original = explained()
    free = {name: _free(name, values, real) for name, values in original.items()}
    found: dict[tuple[str, str], list[Array]] = {(name, mode): [] for mode in modes for name in named}
    with progress("randomising parameters", len(modes) * draws * len(plan), quiet) as bar:
        for mode in modes:
            for i in range(draws):
                stages: dict[str, list[Array]] = {name: [] for name in named}
                for _ in _randomised(clone, plan, mode, draw, torch.Generator().manual_seed(interval.seed + i)):
                    for name, values in explained().items():
                        stages[name].append(_correlations(name, original[name], values, free[name]))
                    bar.advance()
                for name, rows in stages.items():
                    found[name, mode].append(np.stack(rows))
    return Randomisation(
        values={key: _mean(np.stack(rows)) for key, rows in found.items()},
        layers=tuple(reversed(plan)),
        interval=interval,
        draws=draws,
    )


def _layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, list[nn.Parameter]]:
    """Parameters to draw by name of their module, from input to output; "(model)" holds those of no submodule."""
    modules = dict(model.named_modules())
    if layers is None:
        plan = {name or "(model)": list(module.parameters(recurse=False)) for name, module in modules.items()}
    else:
        plan = {choose("layer", name, modules): list(modules[name].parameters()) for name in layers}
    plan = {name: parameters for name, parameters in plan.items() if parameters}
    if not plan:
        raise InputError("model has no parameters in its layers: there is nothing to draw anew")
    return plan


def _randomised(
    model: nn.Module,
    plan: Mapping[str, Sequence[nn.Parameter]],
    mode: str,
    draw: Redraw,
    generator: torch.Generator,
) -> Iterator[str]:
    """Stage by stage from the output layer, the model with one layer more, or another layer, drawn anew."""
    trained = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    for name in reversed(list(plan)):
        with torch.no_grad():
            for parameter in plan[name]:
                parameter.copy_(draw(parameter, generator))
        yield name
        if mode == "independent" or name == next(iter(plan)):
            with torch.no_grad():
                for parameter, values in trained:
                    parameter.copy_(values)


def _predicted(model: nn.Module, inputs: Any) -> Tensor:
    """The classes that the model predicts."""
    with torch.no_grad():
        logits = model(as_tensor(inputs))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        what = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"model(inputs) must give class scores [{len(inputs)}, class] for target=None; got {what}")
    return logits.argmax(1)


def _attributions(name: str, explain: Explain, model: nn.Module, inputs: Any, target: Any) -> Array:
    """Scores `[n, element]`."""
    with torch.enable_grad():
        given = explain(model, copied(inputs), target)
    values = given if isinstance(given, Tensor | np.ndarray) else getattr(given, "values", given)
    try:
        scores = np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"explain[{name!r}] must return numbers; got a {type(given).__name__}") from None
    if scores.ndim < 2 or len(scores) != len(inputs):
        raise InputError(
            f"explain[{name!r}] must return attributions [{len(inputs)}, ...]; got shape {list(scores.shape)}"
        )
    return scores.reshape(len(scores), -1)


def _free(name: str, scores: Array, real: Any) -> Flags:
    """Elements that count, `[n, element]`."""
    flags = np.ones(scores.shape, bool)
    if real is not None:
        given = np.asarray(real.detach().cpu() if isinstance(real, Tensor) else real)
        if given.dtype != bool or len(given) != len(scores) or given.size != scores.size:
            raise InputError(f"real must be bool, one for each of explain[{name!r}]'s {list(scores.shape)} elements")
        flags = given.reshape(scores.shape)
    _refuse_nan(name, scores, flags)
    if all(np.ptp(own[there]) == 0 if there.any() else True for own, there in zip(scores, flags, strict=True)):
        raise InputError(f"explain[{name!r}] is constant in every sample: there is no order to keep or lose")
    return flags


def _correlations(name: str, original: Array, values: Array, free: Flags) -> Array:
    """Spearman's correlation of the values and of their absolute values, `[2, n]`; NaN where either is constant."""
    if values.shape != original.shape:
        raise InputError(f"explain[{name!r}] gave {list(values.shape)} elements where it gave {list(original.shape)}")
    _refuse_nan(name, values, free)
    return np.stack([_spearman(change(original), change(values), free) for change in (lambda x: x, np.abs)])


def _refuse_nan(name: str, scores: Array, free: Flags) -> None:
    bad = int((~np.isfinite(scores) & free).sum())
    if bad:
        raise InputError(f"explain[{name!r}] returned {bad} values that are NaN or infinite")


def _spearman(first: Array, second: Array, free: Flags) -> Array:
    ranks = [_centred_ranks(values, free) for values in (first, second)]
    norms = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return np.asarray((ranks[0] * ranks[1]).sum(1) / np.where(norms > 0, norms, np.nan))


def _centred_ranks(values: Array, free: Flags) -> Array:
    ranks = rankdata(np.where(free, values, np.inf), axis=1)  # what does not count ranks last
    mean = np.where(free, ranks, 0).sum(1) / np.maximum(free.sum(1), 1)
    return np.where(free, ranks - mean[:, None], 0)


def _mean(values: Array) -> Array:
    """Mean over the first axis, NaN left out."""
    there = np.isfinite(values)
    count = there.sum(0)
    return np.asarray(np.where(there, values, 0).sum(0) / np.where(count > 0, count, np.nan))
