"""Scores of features and errors by gradients, in a setting.

    score(feature p) = (f_p clean - f_p corrupted) dM/df_p        score(error) = (eps clean - eps corrupted) . dM/d eps

at every prompt, dictionary and position: dM/df_p is the gradient at the place that the dictionary writes to, along the
decoder's row p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.gradients import BatchScorer, GradientScorer
from attribution.sparse.gradients import n_points, site_gradients
from attribution.sparse.observed import Observer, Seen, mean_parts
from attribution.units.sinks import Rows, Sink
from interp.dictionaries.dictionary import Dictionary
from interp.kernels.batching import Batch, make_batches, plan, refuse_nan, run_batches
from interp.kernels.forward import answer_rows, unembed
from interp.setting import Setting


@dataclass
class BesideFeatures:
    """What is found beside the scores of features."""

    errors: Float[Tensor, "row dictionary pos"]
    explained: Float[Tensor, " row"]
    active: list[Bool[Tensor, " feature"]]  # of each dictionary, what was active in any run that was scored


def scorer_of(setting: Setting, method: GradientMethod, n_dictionaries: int) -> GradientScorer:
    """What takes gradients for all batches, within the memory that there is."""
    points = n_points(method, setting.graph.n_layers, n_dictionaries)
    planned = plan(
        setting.anatomy, len(setting), setting.prompts.longest, copies=max(2, points),
        batch_size=setting.run.batch_size, checkpointed=method.checkpointed, memory=setting.run.memory,
    )  # fmt: skip
    return GradientScorer(setting, method.path(setting.graph.n_layers), planned, method.backward(setting))


def score_features(
    setting: Setting,
    method: GradientMethod,
    dictionaries: Sequence[Dictionary],
    sink: Sink,
    mask: Bool[Tensor, "row pos"],
) -> BesideFeatures:
    """Score all features of all prompts into `sink`, where `mask` is True; errors beside them."""
    scorer = scorer_of(setting, method, len(dictionaries))
    means = mean_parts(setting, dictionaries)
    wide = torch.float64 if setting.anatomy.dtype == torch.float64 else torch.float32
    n, length = setting.prompts.clean.shape
    beside = BesideFeatures(
        torch.zeros(n, len(dictionaries), length, dtype=wide, device="cpu"),
        torch.zeros(n, dtype=wide, device="cpu"),
        [torch.zeros(one.n_features, dtype=torch.bool, device="cpu") for one in dictionaries],
    )

    def work(batch: Batch) -> None:
        runs = BatchScorer(scorer, batch)
        gradients = site_gradients(runs, dictionaries, method, means)
        indices = setting.prompts.rows_of(torch.tensor(batch.indices, device="cpu"))
        here = mask[indices, batch.start : batch.start + batch.n_positions]
        row, position = here.nonzero(as_tuple=True)
        rows = Rows(indices[row], position + batch.start)

        def see(index: int, seen: Seen) -> None:
            gradient, on = gradients[index], here.to(seen.features.device)
            scores = seen.feature_change * seen.one.coder.carried(gradient, seen.read)
            sink.add(index, rows, scores[on], seen.features[on])
            errors = (seen.error_change * gradient).sum(-1)[on]
            beside.errors[rows.prompts, index, rows.positions] = errors.to(beside.errors)
            beside.active[index] |= (seen.active[on] > 0).any(0).cpu()

        sink.begin()
        x = Observer(runs, dictionaries, means, see).run()
        logits = unembed(runs.anatomy, answer_rows(x, runs.frame, batch.prompts))
        values = setting.goal(logits, batch.prompts, logits)
        refuse_nan(values, setting.goal.name, batch)
        beside.explained[indices] = values[batch.prompts.prompt_of].to(beside.explained)
        sink.done()
        bar.advance(len(batch))

    with setting.run.progress(f"scoring features ({method.name})", len(setting)) as bar, torch.inference_mode(False):
        size, device = scorer.plan.batch_size, setting.anatomy.device
        run_batches(make_batches(setting.prompts, size, device, skip_prefix=setting.skip_prefix), work)
    return beside
