"""Mistakes seen in the field's code (the list at the end of the design's methods), each one as a test of ours.

Numbers are those of that list. Rules that stay on (8) come with the rules; greedy selection (5) is in
test_selection.py; padding and batch sizes (3, 6) are tested engine by engine too.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from attribution import Scores, attribute, methods, neurons
from attribution.edges.gradient import GradientMethod
from attribution.edges.named import METHODS as NAMED
from attribution.edges.patched import Exact
from interp import ComputationalGraph, Task
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.ablation import ABLATIONS, Ablator
from interp.kernels.batching import make_batches
from interp.objectives import get_objective
from interp.setting import Setting
from interp.tasks.notes import notes
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.state import state
from tests.tiny import tiny

METHODS = ("eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "exact")
NODE_METHODS = ("attribution-patching", "activation-patching")
FEW = ["input->a0.h0<v>", "m0->a2.h1<q>", "a1.h0->m1", "m2->logits"]


def scored(model, task, method, **settings):
    few = {"edges": FEW} if method == "exact" else {}
    return attribute(model, task, method, quiet=True, **few, **settings).values


# ---- 1. mean ablation: every source its own mean, over all real positions


@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("ablation", ["mean", "mean-positional"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_trap_1_means_are_per_source_over_all_real_positions(name, ablation, batch_size):
    model = oracle.model_of(name)
    anatomy, prompts = anatomy_of(model), mixed_task(model).prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts, batch_size)
    expected = oracle.ablated_outputs(model, prompts, ablation)
    (batch,) = make_batches(prompts, 3, anatomy.device, skip_prefix=False)
    rows = torch.arange(3 * 7)
    means = ablator.sources(batch, batch.frame(anatomy), rows)
    order = list(batch.indices)
    real = prompts.mask[order].flatten()
    compared = [(means.embedding, "input")]
    for layer in range(3):
        heads = torch.einsum("rhk,hkd->hrd", means.heads[layer], anatomy.head_weights(layer))
        compared += [(heads[head], f"a{layer}.h{head}") for head in range(4)]
        compared.append((means.mlps[layer], f"m{layer}"))
    for ours, source in compared:
        assert error(ours[real], expected[source][order].flatten(0, 1)[real]) < TOLERANCE, source
    if ablation == "mean":
        assert (means.embedding == means.embedding[0]).all()
    else:
        assert not means.embedding[0].allclose(means.embedding[3])
    assert not means.mlps[0].allclose(means.mlps[1])  # not one vector for all sources


def test_trap_1_padding_is_in_no_mean():
    # the same prompts beside a longer one: what is padding then must not count
    model = oracle.model_of("gpt2")
    anatomy = anatomy_of(model)
    prompts = mixed_task(model).prompts(model)
    short = prompts.select([1])
    by_hand = torch.stack([oracle.source_outputs(model, short.clean)["m1"][0].sum(0)])
    total = sum(oracle.source_outputs(model, prompts.select([i]).clean)["m1"][0].sum(0) for i in range(3))
    means = Ablator.of(anatomy, "mean", prompts).means
    assert means is not None
    assert error(means.by_position.mlps[1][0], total / int(prompts.lengths.sum())) < TOLERANCE
    alone = Ablator.of(anatomy, "mean", short).means
    assert alone is not None
    assert error(alone.by_position.mlps[1][0], by_hand[0] / 5) < TOLERANCE


# ---- 2. node scores of MLPs


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_trap_2_an_mlps_score_is_from_the_gradient_at_its_output(name):
    model = oracle.model_of(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    delta = oracle.differences(model, prompts)
    at_output = oracle.output_gradients(model, prompts)
    at_input = oracle.input_gradients(model, prompts, {}, ["m1"])
    nodes = attribute(model, mixed_task(model), "attribution-patching", quiet=True).values
    right, wrong = ((delta["m1"] * g["m1"]).sum() / 3 for g in (at_output, at_input))
    assert abs(right - wrong) > 1e-3
    assert float(nodes[graph.sources.index("m1")]) == pytest.approx(float(right), rel=1e-9)


# ---- 3. scores that scale with the batch, ragged last batches


@pytest.mark.parametrize("method", [*METHODS, *NODE_METHODS])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, None])
def test_trap_3_saying_everything_twice_changes_no_score(method, batch_size):
    model = oracle.model_of("llama")
    task = mixed_task(model)
    twice = task.select([0, 1, 2, 2, 1, 0])
    expected = scored(model, task, method)
    assert error(scored(model, twice, method, batch_size=batch_size), expected) < TOLERANCE


# ---- 4 and 11. edges that do not exist


@pytest.mark.parametrize(
    ("shape", "per_head", "per_group"),
    [
        pytest.param((12, 12, 12), 32_491, 32_491, id="GPT-2"),
        pytest.param((24, 14, 2), 179_749, None, id="Qwen2.5-0.5B"),
        pytest.param((26, 8, 4), 74_218, None, id="Gemma-2-2B"),
        pytest.param((32, 32, 8), 1_592_881, 805_681, id="Llama-3.1-8B"),
        pytest.param((30, 9, 3), 123_211, None, id="SmolLM2-135M"),
    ],
)
def test_trap_11_real_models_have_the_published_numbers_of_edges(shape, per_head, per_group):
    layers, heads, groups = shape
    assert ComputationalGraph(layers, heads, groups).n_edges == per_head
    grouped = ComputationalGraph(layers, heads, groups, kv="group").n_edges
    assert per_group is None or grouped == per_group
    by_formula = sum((heads + 2 * groups) * (1 + i * (heads + 1)) + 1 + i * (heads + 1) + heads for i in range(layers))
    assert grouped == by_formula + 1 + layers * (heads + 1)
    parallel = ComputationalGraph(layers, heads, groups, parallel=True).n_edges
    assert parallel == per_head - layers * heads


@pytest.mark.parametrize("edge", [("m11", "a0.h0<q>"), ("a3.h1", "a3.h2<k>"), ("m4", "m4"), ("a9.h0", "m8")])
def test_trap_4_a_mask_with_an_edge_that_does_not_exist_is_refused_by_name(edge):
    graph = ComputationalGraph(12, 12)
    mask = graph.edge_mask.clone()
    mask[graph.sources.index(edge[0]), graph.targets.index(edge[1])] = True
    with pytest.raises(InputError, match=f"1 edges that do not exist, the first being {edge[0]}->{edge[1]}"):
        graph.check_mask(mask)
    assert graph.check_mask(graph.edge_mask).equal(graph.edge_mask)
    assert graph.n_edges == 32_491  # the mask that is shared was not changed


def test_trap_4_nodes_select_no_edge_that_does_not_exist():
    graph = ComputationalGraph(12, 12)
    everything = Scores(torch.ones(len(graph.sources)), graph, method="any", level="node")
    mask = everything.mask(len(graph.sources) - 1, pruned=False)  # all heads and MLPs
    assert not (mask & ~graph.edge_mask).any()
    assert int(mask.sum()) == 32_491


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama"])
def test_trap_4_no_engine_scores_an_edge_that_does_not_exist(name, method):
    model = oracle.model_of(name)
    edges = {"sample": 30} if method == "exact" else {}
    scores = attribute(model, mixed_task(model), method, quiet=True, **edges)
    assert (scores.values[~scores.graph.edge_mask] == 0).all()
    assert (scores.values != 0).sum() >= (15 if method == "exact" else 0.8 * scores.graph.n_edges)


# ---- 6. misaligned prompts


def test_trap_6_prompts_of_different_length_are_told_and_refused_where_positions_must_be_the_same():
    task = Task.from_tokens(
        "t", [[5, 6, 7], [5, 6, 7]], [[5, 6, 8], [5, 6, 8]], [[1], [1]], [[2], [2]],
        attention_mask=[[1, 1, 1], [1, 1, 1]], corrupted_attention_mask=[[1, 1, 1], [0, 1, 1]],
    )  # fmt: skip
    model = oracle.model_of("gpt2")
    (note,) = notes(task.prompts(model))
    assert note.startswith("1 of 2 corrupted prompts are of another length than the clean one, by up to 1 token")
    told = "prompt 1 has 3 clean and 2 corrupted tokens, and"
    with pytest.raises(InputError, match=f"{told} scores of neurons compare"):
        neurons(model, task)
    with pytest.raises(InputError, match=f"{told} circuits of neurons compare"):
        Setting(model, task).nodes("neuron")


@pytest.mark.parametrize("method", ["eap", "eap-ig", "exact"])
def test_trap_6_padding_on_either_side_is_no_part_of_a_prompt(method):
    model = oracle.model_of("gpt2")
    clean, corrupted = [[5, 6, 7, 8], [9, 3, 4, 11]], [[5, 16, 7, 18], [9, 13, 4, 11]]
    answers = [[1], [2]], [[3], [4]]
    plain = scored(model, Task.from_tokens("plain", clean, corrupted, *answers), method)
    for before, after in ((3, 0), (0, 3), (1, 2)):
        padded = [
            [[50] * before + row + [51] * after for row in tokens]  # what stands there must not matter
            for tokens in (clean, corrupted)
        ]
        mask = [[0] * before + [1] * 4 + [0] * after] * 2
        task = Task.from_tokens("padded", *padded, *answers, attention_mask=mask)
        assert error(scored(model, task, method), plain) < TOLERANCE
    # left padding of one version and right padding of the other: the real tokens face each other
    task = Task.from_tokens(
        "both", [[50, *row] for row in clean], [[*row, 51] for row in corrupted], *answers,
        attention_mask=[[0, 1, 1, 1, 1]] * 2, corrupted_attention_mask=[[1, 1, 1, 1, 0]] * 2,
    )  # fmt: skip
    assert error(scored(model, task, method), plain) < TOLERANCE


# ---- 7. signs


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gptj"])
def test_trap_7_every_engine_gives_an_edge_that_helps_a_positive_score(name, ablation):
    # of the edges into the logits, which only the last norm bends, the one whose corruption lowers (and the one
    # whose corruption raises) the bridge's own objective most: that far, no approximation may err in the sign
    model = oracle.model_of(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    edges = [f"{source}->logits" for source in graph.sources]
    effects = oracle.edge_effects(model, prompts, edges, [ablation])[0]
    falls = dict(zip(edges, effects.tolist(), strict=True))
    helpful, harmful = max(falls, key=falls.__getitem__), min(falls, key=falls.__getitem__)
    assert falls[helpful] > 0.05 > -0.05 > falls[harmful]
    for row in methods().query("level == 'edge'").to_dict("records"):
        # rules that hold a norm's scale leave out what it does here: test_rules_edges.py judges those; mask-ig
        # shares out what all edges do together, which is not what each does alone, and edge-pruning gives odds
        method = NAMED.make(row["method"])
        plain = isinstance(method, Exact) or (isinstance(method, GradientMethod) and method.rules is None)
        if ablation in row["ablations"] and plain:
            few = {"edges": [helpful, harmful]} if row["method"] == "exact" else {}
            values = attribute(model, mixed_task(model), row["method"], ablation=ablation, quiet=True, **few).values
            assert values[graph.edge_index(helpful)] > 0 > values[graph.edge_index(harmful)], row["method"]


@pytest.mark.parametrize("method", NODE_METHODS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_trap_7_so_do_the_engines_for_nodes(method, ablation):
    # the last MLP is read by the logits alone: as a node it is what it is as an edge
    model = oracle.model_of("gpt2")
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    falls = float(oracle.edge_effects(model, prompts, ["m2->logits"], [ablation]))
    value = attribute(model, mixed_task(model), method, ablation=ablation, quiet=True).values[-1]
    assert graph.sources[-1] == "m2"
    assert abs(falls) > 0.03
    assert float(value) * falls > 0


@pytest.mark.parametrize("method", [*METHODS, *NODE_METHODS])
def test_trap_7_the_opposite_objective_has_the_opposite_scores(method):
    model = oracle.model_of("llama")

    def opposite(logits, prompts, clean):
        return -get_objective("logit-difference")(logits, prompts)

    task = mixed_task(model)
    assert error(-scored(model, task, method, objective=opposite), scored(model, task, method)) < TOLERANCE


# ---- 9. what one model leaves behind for others, and for itself


class Boom(Exception):
    pass


def explode(logits, prompts, clean):
    raise Boom


def interrupted(logits, prompts, clean):
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["done", "failed", "interrupted"])
@pytest.mark.parametrize("method", [*METHODS, *NODE_METHODS])
def test_trap_9_attribute_leaves_the_model_as_it_was(method, how):
    model, other = oracle.model_of("llama"), oracle.model_of("gemma2")
    task = mixed_task(model)
    tokens = task.prompts(model).clean
    expected = model(tokens), other(tokens)
    before = state(model), state(other)
    objective = {"done": None, "failed": explode, "interrupted": interrupted}[how]
    with contextlib.suppress(Boom, KeyboardInterrupt):
        scored(model, task, method, objective=objective)
        assert how == "done"
    assert model(tokens).equal(expected[0])
    assert other(tokens).equal(expected[1])
    assert (state(model), state(other)) == before
    assert torch.is_grad_enabled()
    for parameter in model.parameters():
        assert parameter.grad is None


def test_trap_9_two_models_of_one_class_do_not_share_what_is_known_of_them():
    one, two = tiny("llama"), tiny("llama", seed=1)
    task = mixed_task(one)
    alone = scored(two, task, "eap")
    scored(one, task, "eap")
    assert scored(two, task, "eap").equal(alone)
    assert not scored(one, task, "eap").allclose(alone, atol=1e-3)


def test_trap_9_gradients_may_be_off_or_parameters_thawed():
    model = tiny("gpt2")
    task = mixed_task(model)
    expected = scored(model, task, "eap-ig")
    with torch.no_grad():
        assert scored(model, task, "eap-ig").equal(expected)
        assert not torch.is_grad_enabled()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert error(scored(model, task, "eap-ig"), expected) < TOLERANCE
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# ---- 10. only the first batch


@pytest.mark.parametrize("method", [*METHODS, *NODE_METHODS])
def test_trap_10_every_batch_counts_as_much_as_the_first(method):
    model = oracle.model_of("gpt2")
    task = mixed_task(model)
    single = [scored(model, task.select([i]), method) for i in range(3)]
    for one, other in ((0, 1), (1, 2)):
        assert not single[one].allclose(single[other], atol=1e-4)
    assert error(scored(model, task, method, batch_size=1), sum(single) / 3) < TOLERANCE
