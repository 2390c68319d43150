"""Scores of features (and errors) as nodes: means over prompts, of each dictionary."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.edges.gradient import GradientMethod
from attribution.sparse.gradients import check_credit
from attribution.sparse.result import summed_errors
from attribution.sparse.scoring import score_features
from attribution.units.scoring import score_mask
from attribution.units.sinks import Summed
from interp.node_mask import Spans
from interp.setting import Setting


def mean_feature_scores(
    setting: Setting, method: GradientMethod, spans: Spans = None
) -> Float[Tensor, "dictionary ... feature"]:
    """Scores summed over positions, means over prompts, in the setting's dictionaries: [dictionary, feature].

    With `spans` those at these positions, [dictionary, span, feature]; where errors are nodes theirs stand last. Raises
    `InputError` for a credit that features cannot be given.
    """
    check_credit(method)
    assert setting.features is not None
    dictionaries = setting.features.on(setting.anatomy)
    widths = [one.n_features for one in dictionaries]
    over = ("prompt", "position") if spans is None else ("prompt",)
    shape = setting.prompts.n_rows, len(widths), setting.prompts.clean.shape[1], max(widths)
    sink = Summed(shape, over, torch.float64)
    beside = score_features(setting, method, dictionaries, sink, score_mask(setting, ()))
    values = sink.values
    if setting.features.errors == "nodes":
        values = torch.cat((values, summed_errors(beside.errors, over).to(values)[..., None]), -1)
    values = values / len(setting)
    return values if spans is None else values[:, list(spans)]
