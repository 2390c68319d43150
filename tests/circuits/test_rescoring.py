"""Scores made again inside what is left: against exact removal, and in the recursive curve."""

from __future__ import annotations

import pytest
import torch

from attribution.edges.mask_ig import MaskIG
from circuits import rescorer
from interp import ComputationalGraph, Task
from interp.errors import InputError
from metrics import evaluate, recursive_curve, removal_scores
from tests.oracle import error
from tests.tiny import shared, tiny, tiny_task

SHARES = (0.05, 0.2, 0.5)


@pytest.fixture(scope="module")
def model():
    return shared("gpt2", n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def task(model):
    return tiny_task(model, n=6)


@pytest.mark.parametrize("kv", ["head", "group"])
def test_where_the_corruption_is_small_gradients_inside_what_is_left_are_removal(kv):
    model = tiny("llama", num_hidden_layers=2)
    embedding = model.original_model.get_input_embeddings().weight
    with torch.no_grad():  # ids from 26 up are almost the ids from 0 up
        embedding[26:52] = embedding[:26] + 1e-3 * embedding[26:52]
    clean = torch.tensor([[3, 9, 14, 2, 21], [5, 5, 11, 25, 8]])
    task = Task.from_tokens("near", clean, clean + torch.tensor([0, 26, 26, 26, 0]), [[4], [6]], [[7], [9]])
    graph = ComputationalGraph.of(model, kv)
    left = graph.edge_mask & (torch.rand(graph.shape, generator=torch.Generator().manual_seed(0)) < 0.8)
    exact = removal_scores(model, task, quiet=True)(left)
    found = rescorer(model, task)
    assert error(found(left) * left, exact) < 1e-2
    assert error(found(graph.edge_mask) * left, exact) > 1e-2  # not what the whole model's scores say


@pytest.mark.parametrize("method", ["eap", "mask-ig"])
def test_the_curve_asks_again_at_every_share(model, task, method):
    asked = []
    score = rescorer(model, task, method)

    def counting(left):
        asked.append(int(left.sum()))
        return score(left)

    curve = recursive_curve(model, task, counting, SHARES, n_random=2, quiet=True)
    n = ComputationalGraph.of(model).n_edges
    assert asked == [n, *(n - removed for removed in curve.removed[1:-1])]
    assert error(curve.values.circuits[-1], evaluate(model, task, curve.masks[-1], quiet=True)) < 1e-12


def test_settings_are_handed_on(model, task):
    graph = ComputationalGraph.of(model)
    left = graph.edge_mask.clone()
    zero, patch = (rescorer(model, task, ablation=ablation)(left) for ablation in ("zero", "patch"))
    assert not torch.allclose(zero, patch)
    with pytest.raises(InputError, match="inside is no setting of method='eap-ig'"):
        rescorer(model, task, "eap-ig")(left)
    assert torch.equal(rescorer(model, task, MaskIG(steps=2))(left), rescorer(model, task, "mask-ig", steps=2)(left))
