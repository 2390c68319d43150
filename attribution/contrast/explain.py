"""`contrast_neurons`: neurons whose attribution differs between two kinds of answers, tested over questions."""

from __future__ import annotations

import os
import time
from typing import Any, TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.contrast.moments import Moments, benjamini_hochberg
from attribution.contrast.result import NeuronContrast
from attribution.edges.gradient import GradientMethod, MaskIG
from attribution.edges.method import Method
from attribution.engines import chosen_method
from attribution.paths import Credit
from attribution.resumed import Resumed
from attribution.units.by_prompt import neurons_by_prompt, refuse_mixtures
from attribution.units.explain import for_units
from attribution.units.scoring import score_mask, score_neurons
from attribution.units.sinks import Summed
from interp import numbers, ranks
from interp.errors import InputError
from interp.kernels.batching import in_order
from interp.kernels.neurons import widths
from interp.keywords import check_keywords, chosen
from interp.run import Run, RunKeywords
from interp.running import door
from interp.setting import GivenObjective, Setting
from interp.tasks.task import Task

USUAL = {"steps": 20, "quadrature": "midpoint"}  # of `mask-ig`
OBJECTIVE = "probability-difference"
_TOGETHER = 16  # questions whose scores are held at a time


class ContrastMethodKeywords(TypedDict, total=False):
    """What the methods of `contrast_neurons` may be told by keyword."""

    steps: int
    quadrature: str | None
    credit: Credit


class ContrastKeywords(ContrastMethodKeywords, RunKeywords, total=False):
    """The keywords of `contrast_neurons`."""

    objective: GivenObjective


@numbers.checked(alpha=numbers.BETWEEN)
@door
def contrast_neurons(
    model: Any,
    questions: Task,
    method: str | Method | None = None,
    *,
    alpha: float = 0.05,
    resume: str | os.PathLike[str] | None = None,
    **keywords: Unpack[ContrastKeywords],
) -> NeuronContrast:
    """Find neurons whose attribution differs between two kinds of answers: true and false, refused and given, any two.

    The kinds are the task's correct and incorrect answers. Of each question and neuron

        D = attribution of p(correct answers) - attribution of p(incorrect answers)

    is tested over questions by Student's t of its mean against 0, and p-values are corrected over all neurons
    (Benjamini and Hochberg 1995): "Truth Neurons", arXiv:2505.12182, of which an abstract alone was at hand. Attribution
    is the activation times the gradient averaged from the baseline, all neurons 0, to the model as it is, summed over
    positions; what the paper leaves open (baseline, number of points, all layers at once, correction) is a choice made
    here.

    Use other questions to choose neurons than to judge them, and random ones beside (`metrics.neuron_effects`). Where
    the two kinds of answers differ in words, length or place, neurons of these differ too: see `tasks.truth`.

    Args:
        model: what `interp.load_model` returns.
        questions: a `Task` whose prompts have correct and incorrect answers; corrupted prompts are not read.
        method: None: `MaskIG(steps=20, quadrature="midpoint")`, along all neurons' weights at once. `eap` takes the
            gradient at the model as it is (one pass), `eap-ig-activations` each layer's own path (with
            `credit="own"`); these two want answers of one token.
        alpha: the false discovery rate of `.survivors()`.
        resume: a file that holds what is done so far; started again with it, an interrupted run goes on.
        **keywords: `steps`, `quadrature`, `credit` of the method; `objective`: what is attributed, the difference of
            the answers' probabilities by default; `batch_size`, `memory`, `quiet` (`interp.run.Run`).

    Returns:
        `NeuronContrast`: `.values`, `.statistic`, `.p`, `.q` [layer, d_mlp], `.survivors()`, `.strongest(n)`.

    Cost: a forward and a backward pass for each point and question. Memory is bounded: sums of D and of its squares.

    Raises:
        InputError: fewer than two questions, questions without incorrect answers, methods without a meaning for
            neurons, mixtures of experts (but with `eap`), a damaged or foreign `resume`.
    """
    check_keywords("contrast_neurons", keywords, ContrastKeywords)
    started = time.perf_counter()
    setting = _setting(model, questions, keywords)
    told = chosen(keywords, ContrastMethodKeywords)
    how = chosen_method("mask-ig", {**USUAL, **told}) if method is None else chosen_method(method, told)
    _check(how, setting)
    moments = _moments(setting, how, resume)
    counts = widths(setting.anatomy)
    statistic, p_values = moments.t_test()
    return NeuronContrast(
        values=moments.mean,
        statistic=statistic,
        p=p_values,
        q=benjamini_hochberg(p_values, setting.nodes("neuron").full),
        widths=counts,
        n_questions=moments.count,
        alpha=alpha,
        method=how.name,
        objective=setting.goal.name,
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
        settings={**how.settings(), "task": setting.task.to_dict()["sha256"]},
    )


def _setting(model: Any, questions: Task, keywords: Any) -> Setting:
    objective = keywords.get("objective") or OBJECTIVE
    setting = Setting(model, questions, ablation="zero", objective=objective, run=Run.of(keywords))
    for index, example in enumerate(questions.examples):
        if not example.incorrect:
            raise InputError(f"question {index} has no incorrect answer, and both kinds are compared; give it one")
    if len(questions) < 2:
        raise InputError(f"questions has {len(questions)}; a test of their mean needs at least two")
    return setting


def _check(how: Method, setting: Setting) -> None:
    if isinstance(how, MaskIG):
        if how.inside is not None or how.positions is not None:
            raise InputError("method='mask-ig' contrasts neurons of the whole model; leave inside and positions out")
        refuse_mixtures(setting)
    elif not isinstance(for_units(how), GradientMethod):
        raise InputError(f"method={how.name!r} patches neurons one at a time; use a gradient method, such as 'mask-ig'")
    how.check(setting)


def _moments(setting: Setting, how: Method, resume: str | os.PathLike[str] | None) -> Moments:
    """Sums over all questions, a few of them at a time; what is done stands in the file."""
    if ranks.count() > 1:
        raise InputError("contrast_neurons runs in one process; start it without torchrun")
    order, full = in_order(setting.prompts), setting.nodes("neuron").full
    parts = [order[first : first + _TOGETHER] for first in range(0, len(order), _TOGETHER)]
    empty = Moments.of_none(*full.shape)
    start = {"total": empty.total, "squares": empty.squares, "done": torch.tensor(0, device="cpu")}
    file = Resumed(resume, start, _fingerprint(setting, how))
    with setting.run.progress(f"contrasting answers ({how.name})", len(setting)) as bar:
        try:
            for number, part in enumerate(parts):
                if number >= int(file.state["done"]):
                    before = Moments(file.state["total"], file.state["squares"], 0)
                    found = before.with_more(_by_question(setting.select(part), how))
                    file.put(total=found.total, squares=found.squares, done=torch.tensor(number + 1, device="cpu"))
                bar.advance(len(part))
        finally:
            file.save()
    return Moments(file.state["total"], file.state["squares"], len(setting))


def _by_question(setting: Setting, how: Method) -> Float[Tensor, "n layer d_mlp"]:
    """D of some questions, summed over positions."""
    if isinstance(how, MaskIG):
        return neurons_by_prompt(setting, how.points)
    assert isinstance(how, GradientMethod)
    counts = widths(setting.anatomy)
    shape = len(setting), len(counts), setting.prompts.clean.shape[1], max(counts)
    sink = Summed(shape, ("position",), torch.float64)
    score_neurons(setting.under(run=setting.run.hushed()), how, sink, score_mask(setting, ()), paired=True)
    return sink.values


def _fingerprint(setting: Setting, how: Method) -> dict[str, Any]:
    return {
        "what": "contrast_neurons",
        **setting.to_dict(),
        "method": how.name,
        **how.settings(),
        "weights": setting.anatomy.weights_digest(),
    }
