from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from attribution import attribute
from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.viewer import linked, scores_by_position
from circuits.viewer.linked import linked_views
from circuits.viewer.positions import position_layout
from circuits.viewer.promoted import TOP_TOKENS
from interp.errors import InputError
from interp.graph import ComputationalGraph
from tests.tiny import shared, tiny_module, tiny_task


def nodes_of(model) -> list[str]:
    return [*ComputationalGraph.of(model).sources, "logits"]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_direct_effects_and_constants_add_up_to_the_answers_logits(name):
    model = shared(name, **({"final_logit_softcapping": None} if name == "gemma2" else {}))
    task = tiny_task(model)
    views = linked_views(model, task, nodes_of(model), example=1)
    prompts = task.select([1]).prompts(model)
    logits = model(prompts.clean, return_type="logits")[0, -1]
    expected = float(logits[prompts.correct[0]].mean() - logits[prompts.incorrect[0]].mean())
    assert views.logits == pytest.approx(expected, abs=1e-9)
    total = sum(effect.direct for effect in views.effects.values())
    assert total + views.rest == pytest.approx(expected, abs=1e-9)
    if name in ("llama", "gemma2"):  # no biases: nothing is left over
        assert views.rest == pytest.approx(0, abs=1e-9)


def test_a_direct_effect_is_what_the_logits_lose_without_the_node_at_a_held_norm():
    model = shared("llama")
    task = tiny_task(model)
    effect = linked_views(model, task, ["m1"]).effects["m1"]
    prompts = task.select([0]).prompts(model)
    held, written = {}, {}
    module = model.original_model
    read = [
        module.model.layers[1].mlp.register_forward_hook(lambda _, __, out: written.update(m1=out[0, -1])),
        module.model.norm.register_forward_hook(lambda _, inputs, __: held.update(x=inputs[0][0, -1])),
    ]
    with torch.no_grad():
        module(prompts.clean)
        for hook in read:
            hook.remove()
        scale = (held["x"].pow(2).mean() + module.config.rms_norm_eps).sqrt()
        moved = module.lm_head(written["m1"] / scale * module.model.norm.weight)
    expected = moved[prompts.correct[0]].mean() - moved[prompts.incorrect[0]].mean()
    assert effect.direct == pytest.approx(float(expected), abs=1e-9)
    top = (moved - moved.mean()).topk(TOP_TOKENS)
    assert [int(token) for token, _ in effect.promotes] == top.indices.tolist()
    assert [value for _, value in effect.promotes] == pytest.approx(top.values.tolist())


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_patterns_are_those_of_transformers(name):
    model, module = shared(name), tiny_module(name)
    task = tiny_task(model)
    heads = ["a2.h3", "a0.h1"]
    views = linked_views(model, task, [*heads, "m0"])
    attentions = module(task.select([0]).prompts(model).clean, output_attentions=True).attentions
    expected = torch.stack([attentions[2][0, 3], attentions[0][0, 1]])
    assert views.heads == heads
    assert np.abs(views.patterns / 255 - expected.detach().numpy()).max() < 0.5 / 255 + 1e-6


def test_only_as_many_patterns_are_kept_as_there_is_room_for(monkeypatch):
    model = shared("gpt2")
    monkeypatch.setattr(linked, "PATTERN_BYTES", 2 * 7 * 7 + 1)
    views = linked_views(model, tiny_task(model), ["a0.h0", "a1.h1", "a2.h2"])
    assert views.heads == ["a0.h0", "a1.h1"]
    assert views.left_out == 1


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_scores_by_position_add_up_to_the_scores_of_nodes(name):
    model = shared(name)
    task = tiny_task(model)
    split = scores_by_position(model, task, example=2)
    whole = attribute(model, task.select([2]), method="attribution-patching", quiet=True).values
    assert split.shape == (len(whole), 7)
    assert np.allclose(split.sum(1), whole.numpy(), atol=1e-9)
    assert not split[:, 0].any(), "nothing differs before the first corrupted token"


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_the_page_splits_by_the_setting_that_the_circuit_was_found_under(ablation, monkeypatch):
    model = shared("llama")
    task, seen = tiny_task(model), []
    scores = attribute(model, task, "eap", ablation=ablation, objective="log-probability", quiet=True)

    def split(*given, **settings):
        seen.append(scores_by_position(*given, **settings))
        return seen[-1]

    monkeypatch.setattr("circuits.viewer.data.scores_by_position", split)
    Circuit(scores, scores.mask(40)).to_html(model=model, task=task, example=1)
    # the mean of one prompt is that prompt: it is split under patch
    used = "patch" if ablation == "mean" else ablation
    one, objective = task.select([1]), "log-probability"
    whole = attribute(model, one, "attribution-patching", ablation=used, objective=objective, quiet=True).values
    assert np.allclose(seen[0].sum(1), whole.numpy(), atol=1e-9)


def test_nodes_stand_at_the_positions_where_they_matter():
    graph = ComputationalGraph(1, 2)
    circuit = Circuit(Scores(torch.zeros(graph.shape), graph, method="eap"), graph.edge_mask)
    positions = np.array([[3.0, -1, 0], [0, 0, 1], [0, 0, -2], [0.1, 0, 5]])
    layout = position_layout(circuit, positions)
    marks = list(zip(layout.node, layout.position, layout.score, strict=True))
    assert marks == [(0, 0, 3.0), (0, 1, -1.0), (1, 2, 1.0), (2, 2, -2.0), (3, 2, 5.0), (4, 2, 0.0)]
    assert [layout.main[node] for node in range(5)] == [0, 2, 3, 4, 5]
    x = layout.x
    assert x[2] < x[3] < x[4], "heads left, the MLP right"
    assert layout.y[2:4] == [0, 0]
    assert 0 < layout.y[4] < 1 == layout.y[5]


@pytest.mark.parametrize("shared_tokens", [280, 0])
def test_of_many_positions_empty_runs_are_folded_and_the_first_mark_is_in_sight(shared_tokens: int):
    graph = ComputationalGraph(1, 2)
    circuit = Circuit(Scores(torch.zeros(graph.shape), graph, method="eap"), graph.edge_mask)
    positions = np.zeros((4, 300))
    for place in range(shared_tokens, 300):
        positions[place % 4, place] = 1.0
    layout = position_layout(circuit, positions)
    assert len(layout.columns) == 300
    assert layout.columns == sorted(layout.columns)
    if shared_tokens:
        assert layout.columns[279] < 2.0  # what both prompts begin with
        assert layout.opening is None
    marked = layout.columns[min(layout.position)]
    start, end = layout.opening or (-0.3, layout.width)
    assert start < marked < end <= max(layout.width + 0.3, 24.0)


def embedded(page: str) -> dict:
    return json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])


def circuit_of(model) -> Circuit:
    graph = ComputationalGraph.of(model)
    return Circuit(Scores(torch.ones(graph.shape) * graph.edge_mask, graph, method="eap"), graph.edge_mask)


def test_the_page_holds_one_prompt():
    model = shared("gpt2")
    task = tiny_task(model)
    data = embedded(circuit_of(model).to_html(model=model, task=task, example=1))
    assert data["linked"]["example"] == 1
    assert len(data["linked"]["clean"]) == 7
    assert data["layouts"]["position"]["columns"][1] == data["linked"]["clean"]
    assert set(data["linked"]["effects"]) == set(ComputationalGraph.of(model).sources)
    # an objective that is flat at the clean run says nothing by position
    flat = embedded(circuit_of(model).to_html(model=model, task=task.with_objective("kl")))
    assert flat["layouts"]["position"] is None
    assert flat["linked"] is not None


def test_what_does_not_fit_is_refused():
    model, other = shared("gpt2"), shared("gpt2", n_layer=2)
    task, circuit = tiny_task(model), circuit_of(model)
    with pytest.raises(InputError, match="go together"):
        circuit.to_html(model=model)
    with pytest.raises(InputError, match="another graph"):
        circuit.to_html(model=other, task=task)
    with pytest.raises(InputError, match="0 to 2"):
        circuit.to_html(model=model, task=task, example=3)
    with pytest.raises(InputError, match="a row for each of the graph's 16 sources"):
        circuit.to_html(positions=np.zeros((3, 4)))
    with pytest.raises(InputError, match="not finite"):
        circuit.to_html(positions=np.full((16, 4), np.nan))
