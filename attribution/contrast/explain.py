"""`contrast_neurons`: neurons whose attribution differs between two kinds of answers, tested over questions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attribution.contrast.moments import Moments, benjamini_hochberg
from attribution.contrast.result import NeuronContrast
from attribution.edges.gradient import GradientMethod
from attribution.edges.mask_ig import MaskIG
from attribution.edges.method import Method
from attribution.engines import chosen_method
from attribution.paths import Credit
from attribution.units.explain import for_units
from attribution.units.scoring import score_mask, score_neurons
from attribution.units.sinks import Summed, summed_rows
from attribution.units.weights import full_circuit, node_scores_by_prompt, refuse_mixtures
from interp import numbers, ranks
from interp.errors import InputError
from interp.kernels.neurons import widths
from interp.keywords import check_keywords, chosen
from interp.resumed import Resumed
from interp.run import Run, RunKeywords
from interp.running import door
from interp.setting import GivenObjective, Setting
from interp.tasks.groups import read_groups
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


@numbers.checked(alpha=numbers.BETWEEN, draws=numbers.FROM_ZERO)
@door
def contrast_neurons(
    model: Any,
    questions: Task,
    method: str | Method | None = None,
    *,
    groups: Sequence[int] | None = None,
    alpha: float = 0.05,
    draws: int = 20,
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
    **keywords: Unpack[ContrastKeywords],
) -> NeuronContrast:
    """Find neurons whose attribution differs between two kinds of answers: true and false, refused and given, any two.

    The kinds are the task's correct and incorrect answers. Of each question and neuron

        D = attribution of p(correct answers) - attribution of p(incorrect answers)

    is tested over questions (or groups of them) by Student's t of its mean against 0, and p-values are corrected over
    all neurons (Benjamini and Hochberg 1995): "Truth Neurons", arXiv:2505.12182, after its abstract. Attribution is the
    activation times the gradient averaged from the baseline, all neurons 0, to the model as it is, summed over
    positions. Baseline, number of points, all layers at once and the correction are choices made here, where the
    abstract is silent.

    Use other questions to choose neurons than to judge them, and random ones beside (`metrics.neuron_effects`). Where
    the two kinds of answers differ in words, length or place, neurons of these differ too: see `tasks.truth`.

    Args:
        model: what `interp.load_model` returns.
        questions: a `Task` whose prompts have correct and incorrect answers; corrupted prompts are not read.
        method: None: `MaskIG(steps=20, quadrature="midpoint")`, along all neurons' weights at once. `eap` takes the
            gradient at the model as it is (one pass), `eap-ig-activations` each layer's own path (with
            `credit="own"`); these two want answers of one token.
        groups: a number for each question; the mean over those of one group is one observation of the test, so that
            what speaks for a word, and against it where another is true, cancels (`tasks.truth`: `[i // 2 for i in
            range(n)]`). None: each question by itself.
        alpha: the false discovery rate of `.survivors()`.
        draws: how often the answers of each group change sides by the toss of a coin, to see how many neurons survive
            by chance; costs no passes, and 8 bytes a neuron.
        seed: of these.
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
    together = read_groups(groups, len(questions))
    signs = _signs(draws, int(together.max()) + 1, seed)
    moments = _moments(setting, how, together, signs, resume)
    counts, full = widths(setting.anatomy), setting.nodes("neuron").full
    statistic, p_values = moments.t_test()
    return NeuronContrast(
        values=moments.mean,
        statistic=statistic,
        p=p_values,
        q=benjamini_hochberg(p_values, full),
        widths=counts,
        n_questions=len(questions),
        n_groups=moments.count,
        by_chance=[_survivors(one, full, alpha) for one in moments.draws()],
        alpha=alpha,
        method=how.name,
        objective=setting.goal.name,
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
        settings={**how.settings(), "seed": seed, "task": setting.task.to_dict()["sha256"]},
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
        refuse_mixtures(setting, "neuron")
    elif not isinstance(for_units(how), GradientMethod):
        raise InputError(f"method={how.name!r} patches neurons one at a time; use a gradient method, such as 'mask-ig'")
    how.check(setting)


def _signs(draws: int, n: int, seed: int) -> Float[Tensor, "draw group"]:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (draws, n), generator=generator, device="cpu") - 1.0


def _survivors(moments: Moments, tested: Bool[Tensor, "layer d_mlp"], alpha: float) -> int:
    return int((benjamini_hochberg(moments.t_test()[1], tested) <= alpha).sum())


def _moments(
    setting: Setting,
    how: Method,
    together: Int[np.ndarray, " n"],
    signs: Float[Tensor, "draw group"],
    resume: str | os.PathLike[str] | None,
) -> Moments:
    """Sums over all groups, a few questions at a time; what is done stands in the file."""
    if ranks.count() > 1:
        raise InputError("contrast_neurons runs in one process; start it without torchrun")
    empty = Moments.of_none(*setting.nodes("neuron").full.shape, draws=len(signs))
    done = torch.tensor(0, device="cpu")
    start = {"total": empty.total, "squares": empty.squares, "flipped": empty.flipped, "done": done}
    file = Resumed(resume, start, _fingerprint(setting, how, together, signs))
    with setting.run.progress(f"contrasting answers ({how.name})", len(setting)) as bar:
        try:
            for number, part in enumerate(_parts(together)):
                if number >= int(file.state["done"]):
                    before = _so_far(file)
                    groups, within = np.unique(together[part], return_inverse=True)
                    found = before.with_more(
                        _by_group(_by_question(setting.select(part), how), within), signs[:, groups]
                    )
                    file.put(
                        total=found.total, squares=found.squares, flipped=found.flipped,
                        done=torch.tensor(number + 1, device="cpu"),
                    )  # fmt: skip
                bar.advance(len(part))
        finally:
            file.save()
    return replace(_so_far(file), count=int(together.max()) + 1)


def _so_far(file: Resumed) -> Moments:
    """The sums in a file; of how many, it need not know before the end."""
    return Moments(file.state["total"], file.state["squares"], file.state["flipped"], 0)


def _parts(together: Int[np.ndarray, " n"]) -> Iterator[list[int]]:
    """Numbers of questions that are scored at once: some groups, each whole."""
    order = np.argsort(together, kind="stable")
    part: list[int] = []
    for group in np.split(order, np.flatnonzero(np.diff(together[order])) + 1):
        part += group.tolist()
        if len(part) >= _TOGETHER:
            yield part
            part = []
    if part:
        yield part


def _by_group(
    values: Float[Tensor, "n layer d_mlp"], within: Int[np.ndarray, " n"]
) -> Float[Tensor, "group layer d_mlp"]:
    """Means over the questions of each group."""
    place = torch.from_numpy(within)
    sums = values.new_zeros(int(place.max()) + 1, *values.shape[1:]).index_add(0, place, values)
    return sums / torch.bincount(place)[:, None, None]


def _by_question(setting: Setting, how: Method) -> Float[Tensor, "n layer d_mlp"]:
    """D of some questions, summed over positions."""
    if isinstance(how, MaskIG):
        return node_scores_by_prompt(setting, full_circuit(setting, "neuron"), how.points)
    assert isinstance(how, GradientMethod)
    counts = widths(setting.anatomy)
    shape = setting.prompts.n_rows, len(counts), setting.prompts.clean.shape[1], max(counts)
    sink = Summed(shape, ("position",), torch.float64)
    score_neurons(setting.under(run=setting.run.hushed()), how, sink, score_mask(setting, ()), paired=True)
    return summed_rows(sink.values, setting.prompts)


def _fingerprint(
    setting: Setting, how: Method, together: Int[np.ndarray, " n"], signs: Float[Tensor, "draw group"]
) -> dict[str, Any]:
    return {
        "what": "contrast_neurons",
        **setting.to_dict(),
        "method": how.name,
        **how.settings(),
        "groups": together.tolist(),
        "signs": signs.sum(1).tolist(),
        "weights": setting.anatomy.weights_digest(),
    }
