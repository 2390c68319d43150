"""Gradient methods: their scores against autograd on the bridge, and what must not change them."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from attribution import attribute
from attribution.paths import activation_path, input_path
from interp import ComputationalGraph, Task, load_model
from interp.errors import InputError
from interp.kernels.ablation import ABLATIONS, Ablator
from interp.objectives import Objective
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.tiny import mostly_slow, tiny, tiny_module, tiny_task

ACTIVATION_CASES = [("gpt2", "patch"), ("llama", "mean"), ("gptj", "zero"), ("gemma2", "mean-positional")]
FEW = ("gpt2", "gemma2", "mixtral")  # models of every run; the others are slow tests


def scores(name, method, task=None, model=None, **settings):
    model = model or oracle.model_of(name)
    return attribute(model, task or mixed_task(model), method, quiet=True, **settings).values


@functools.cache
def reference(name, method, **settings):
    """The same, computed once."""
    return scores(name, method, **settings)


@functools.cache
def gradients_at(name, alpha):
    """By target, in the run whose embedding is `alpha` clean and the rest corrupted."""
    model = oracle.expanded(name)
    prompts = mixed_task(model).prompts(model)
    clean, corrupted = (oracle.source_outputs(model, tokens) for tokens in (prompts.clean, prompts.corrupted))
    edits = oracle.input_edits(clean, corrupted, alpha)
    return oracle.input_gradients(model, prompts, edits, ComputationalGraph.of(model).targets)


def slow_scores(name, points, ablation="patch"):
    """[source, target]: differences times weighted gradients, mean over prompts; zero where no edge exists."""
    model = oracle.expanded(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    delta = oracle.differences(model, prompts, ablation)
    deltas = torch.stack([delta[source].flatten() for source in graph.sources])
    gradients = torch.stack(
        [sum(weight * point[target] for weight, point in points).flatten() for target in graph.targets]
    )
    return deltas @ gradients.T / len(prompts) * graph.edge_mask


# ---- the same numbers as a slow path


@pytest.mark.parametrize("name", MODELS)
def test_eap_is_autograds_gradient_times_the_difference(name):
    assert error(reference(name, "eap"), slow_scores(name, [(1.0, gradients_at(name, 1.0))])) < TOLERANCE


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gptj", "gemma2"])
def test_eap_under_other_ablations_is_the_same_gradient_times_another_difference(name, ablation):
    expected = slow_scores(name, [(1.0, gradients_at(name, 1.0))], ablation)
    assert error(scores(name, "eap", ablation=ablation), expected) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_clean_corrupted_averages_the_gradients_at_both_ends(name):
    expected = slow_scores(name, [(0.5, gradients_at(name, 1.0)), (0.5, gradients_at(name, 0.0))])
    assert error(scores(name, "clean-corrupted"), expected) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_average_over_runs_with_interpolated_embeddings(name):
    expected = slow_scores(name, [(0.5, gradients_at(name, 0.0)), (0.5, gradients_at(name, 0.5))])
    assert error(scores(name, "eap-ig", steps=2), expected) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_eap_is_the_slope_of_the_objective_along_an_edge(name):
    # central differences of the bridge's own objective: no gradient at all in the reference. Their error is
    # eps^2 times a third derivative, plus rounding over eps; together about 1e-9 here
    model, eps = oracle.expanded(name), 1e-5
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    edges = ["input->a0.h1<q>", "input->a0.h2<k>", "a0.h3->a1.h0<v>", "m1->a2.h1<k>", "m0->m2", "a1.h1->logits"]
    delta = oracle.differences(model, prompts)
    cases = [(edge, sign * eps * delta[edge.split("->")[0]]) for sign in (-1, 1) for edge in edges]
    up, down = oracle.edges_moved(model, prompts, cases).mean(1).chunk(2)
    slopes = (up - down) / (2 * eps)
    ours = reference(name, "eap")
    chosen = torch.stack([ours[graph.edge_index(edge)] for edge in edges])
    assert chosen.abs().max() > 1e-4
    assert (chosen - slopes).abs().max() < 1e-6 * ours.abs().max()


@functools.cache
def site_gradients(name, ablation, alphas):
    """By site of a layer-wise path: its sources, and by alpha the gradients at a few targets."""
    model = oracle.expanded(name)
    prompts = mixed_task(model).prompts(model)
    corrupted = oracle.ablated_outputs(model, prompts, ablation)
    targets = ["a1.h0<q>", "a1.h3<q>", "a1.h1<k>", "a1.h2<v>", "m1", "logits"]
    result = {}
    for site in ("input", "a0", "m0", "a1", "m1", "a2", "m2"):
        runs = [oracle.site_edits(model, prompts, corrupted, site, alpha) for alpha in alphas]
        points = [oracle.input_gradients(model, prompts, edits, targets) for edits, _ in runs]
        result[site] = (runs[0][1], points)
    return targets, result


@pytest.mark.parametrize(("name", "ablation"), ACTIVATION_CASES)
def test_activation_paths_with_credit_all_average_every_pair_over_every_site(name, ablation):
    model = oracle.expanded(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    targets, sites = site_gradients(name, ablation, (0.5, 1.0))
    delta = oracle.differences(model, prompts, ablation)
    ours = scores(name, "eap-ig-activations", steps=2, ablation=ablation)
    points = [point for _, both in sites.values() for point in both]
    assert len(points) == 14
    expected = torch.zeros_like(ours)
    for target in targets:
        mean = sum(point[target] for point in points) / len(points)
        for row, source in enumerate(graph.sources):
            expected[row, graph.targets.index(target)] = (delta[source] * mean).sum() / len(prompts)
    columns = [graph.targets.index(target) for target in targets]
    assert error(ours[:, columns], (expected * graph.edge_mask)[:, columns]) < TOLERANCE


@pytest.mark.parametrize(("name", "ablation"), ACTIVATION_CASES)
def test_activation_paths_with_credit_own_score_a_source_in_its_own_passes(name, ablation):
    model = oracle.expanded(name)
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    targets, sites = site_gradients(name, ablation, (0.5, 1.0))
    delta = oracle.differences(model, prompts, ablation)
    ours = scores(name, "eap-ig-activations", steps=2, ablation=ablation, credit="own")
    expected = torch.zeros_like(ours)
    for sources, points in sites.values():
        for source in sources:
            for target in targets:
                mean = sum(point[target] for point in points) / len(points)
                at = graph.sources.index(source), graph.targets.index(target)
                expected[at] = (delta[source] * mean).sum() / len(prompts)
    columns = [graph.targets.index(target) for target in targets]
    assert error(ours[:, columns], (expected * graph.edge_mask)[:, columns]) < TOLERANCE


@pytest.mark.parametrize("credit", ["all", "own"])
@pytest.mark.parametrize("quadrature", ["left", "midpoint", "gauss-legendre"])
def test_activation_paths_take_every_quadrature_under_patch(quadrature, credit):
    # one step of each rule is one point per site
    alpha = {"left": 0.0, "midpoint": 0.5, "gauss-legendre": 0.5}[quadrature]
    model = oracle.model_of("gpt2")
    prompts, graph = mixed_task(model).prompts(model), ComputationalGraph.of(model)
    corrupted, delta = oracle.source_outputs(model, prompts.corrupted), oracle.differences(model, prompts)
    ours = scores("gpt2", "eap-ig-activations", steps=1, quadrature=quadrature, credit=credit)
    gradients, own = [], 0
    for site in ("input", "a0", "m0", "a1", "m1", "a2", "m2"):
        edits, sources = oracle.site_edits(model, prompts, corrupted, site, alpha)
        gradients.append(oracle.input_gradients(model, prompts, edits, ["m2"])["m2"])
        own = site if "a1.h2" in sources else own
    mean = sum(gradients) / 7 if credit == "all" else gradients[3]
    assert own == "a1"
    expected = float((delta["a1.h2"] * mean).sum() / len(prompts))
    assert math.isclose(float(ours[graph.edge_index("a1.h2->m2")]), expected, rel_tol=1e-9)


@pytest.mark.parametrize("quadrature", ["left", "right", "midpoint", "gauss-legendre"])
def test_quadratures_integrate_what_they_should(quadrature):
    (points,) = input_path(4, quadrature).groups
    alphas = torch.tensor([point.alpha for point in points], dtype=torch.float64)
    weights = torch.tensor([point.weight for point in points], dtype=torch.float64)
    assert float(weights.sum()) == pytest.approx(1)
    assert ((alphas >= 0) & (alphas <= 1)).all()
    line = float((weights * alphas).sum())
    assert line == pytest.approx({"left": 0.375, "right": 0.625}.get(quadrature, 0.5))
    if quadrature == "gauss-legendre":  # exact up to degree 2n - 1
        assert float((weights * alphas**7).sum()) == pytest.approx(1 / 8)
    assert (alphas == 0).any() == (quadrature == "left")
    assert (alphas == 1).any() == (quadrature == "right")


@pytest.mark.parametrize("credit", ["all", "own"])
def test_activation_paths_visit_every_sub_layer(credit):
    path = activation_path(3, 5, "right", credit)
    assert path.n_points == 5 * 7
    per_group = 1.0 if credit == "own" else 1 / 7
    assert [sum(point.weight for point in group) for group in path.groups] == pytest.approx([per_group] * 7)
    assert {point.alpha for group in path.groups for point in group} == {0.2, 0.4, 0.6, 0.8, 1.0}


# ---- what sums of scores must be


@pytest.mark.parametrize("name", MODELS)
def test_node_scores_are_the_gradient_at_the_nodes_output_times_the_difference(name):
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    slopes = oracle.output_gradients(model, prompts)
    delta = oracle.differences(model, prompts)
    expected = torch.stack([(delta[source] * slopes[source]).sum() / len(prompts) for source in delta])
    nodes = attribute(model, mixed_task(model), "attribution-patching", quiet=True)
    assert nodes.level == "node"
    assert error(nodes.values, expected) < TOLERANCE
    assert error(reference(name, "eap").sum(1), expected) < TOLERANCE  # what a node does, its edges do together


@pytest.mark.parametrize(("name", "steps"), [("gpt2", 40), ("gpt_neox", 80), ("gptj", 80), ("gemma3", 160)])
def test_edges_out_of_the_input_add_up_to_the_whole_effect_under_integrated_gradients(name, steps):
    # by the fundamental theorem of calculus, as far as the quadrature is exact: these models are smooth, and its
    # error falls exponentially with the steps
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    clean, corrupted = (
        oracle.logit_difference(model(tokens), prompts).mean() for tokens in (prompts.clean, prompts.corrupted)
    )
    ours = scores(name, "eap-ig", steps=steps, quadrature="gauss-legendre")
    assert abs(float(clean - corrupted)) > 1e-2
    assert float(ours[0].sum()) == pytest.approx(float(clean - corrupted), abs=1e-8)


@pytest.mark.parametrize(
    ("name", "ablation", "steps"),
    [("gpt2", "patch", 40), ("gpt2", "mean", 40), ("gpt_neox", "mean-positional", 80), ("gptj", "patch", 80)],
)
def test_with_credit_own_edges_out_of_a_node_add_up_to_the_effect_of_patching_the_node(name, ablation, steps):
    model = oracle.model_of(name)
    graph = ComputationalGraph.of(model)
    ours = scores(
        name, "eap-ig-activations", steps=steps, quadrature="gauss-legendre", credit="own", ablation=ablation
    ).sum(1)
    patched = attribute(model, mixed_task(model), "activation-patching", ablation=ablation, quiet=True).values
    alone = [i for i, source in enumerate(graph.sources) if ".h" not in source]  # heads go together on this path
    assert patched[alone].abs().max() > 1e-3
    assert error(ours[alone], patched[alone]) < 1e-7


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations", "clean-corrupted"])
def test_scores_agree_with_exact_patching_where_the_corruption_is_small(method):
    model = nearly_corrupted("llama")
    exact = exact_where_the_corruption_is_small("llama")
    approximate = scores("", method, small_task(model), model, **({"credit": "own"} if "act" in method else {}))
    assert error(approximate, exact) < 1e-2


# ---- what must not change scores


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral"])
@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_grouped_equals_expanded(name, method):
    grouped = oracle.model_of(name)
    assert ComputationalGraph.of(grouped).n_kv_heads == 2
    assert ComputationalGraph.of(oracle.expanded(name)).n_kv_heads == 4
    expanded = scores(name, method, model=oracle.expanded(name))
    assert error(reference(name, method, kv="head"), expanded) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral"])
@pytest.mark.parametrize("method", ["eap", "eap-ig", "clean-corrupted", "eap-ig-activations"])
def test_a_groups_score_is_the_sum_over_its_query_heads(name, method):
    model = oracle.model_of(name)
    per_head, per_group = (reference(name, method, kv=kv) for kv in ("head", "group"))
    head, group = ComputationalGraph.of(model), ComputationalGraph.of(model, kv="group")
    expected = torch.zeros(group.shape, dtype=per_head.dtype)
    for column, target in enumerate(head.targets):
        _, layer, letter, at = oracle.place_of(target)
        name_of_group = f"a{layer}.h{at // 2}<{letter}>" if letter in ("k", "v") else target
        expected[:, group.targets.index(name_of_group)] += per_head[:, column]
    assert error(per_group, expected) < TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1},
        {"batch_size": 2, "checkpointed": True},
        {"batch_size": 3, "memory": 1 << 20, "checkpointed": False},
        {"memory": 1 << 20, "checkpointed": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "method", "further"),
    [
        *mostly_slow(((name, "eap-ig", {}) for name in MODELS), lambda case: case[0] in FEW),
        *((name, "eap-ig-activations", {"steps": 3}) for name in ("gpt2", "gemma2")),
        ("llama", "eap-ig-activations", {"steps": 2, "ablation": "mean", "credit": "own"}),
        ("llama", "eap", {"ablation": "mean-positional"}),
        ("mixtral", "clean-corrupted", {"objective": "kl"}),
        ("gptj", "eap-ig", {"objective": "kl"}),
    ],
)
def test_batches_stacks_and_checkpointing_change_nothing(name, method, further, settings):
    assert error(scores(name, method, **further, **settings), reference(name, method, **further)) < TOLERANCE


@pytest.mark.parametrize("quadrature", ["left", "right", "midpoint", "gauss-legendre"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 2, "memory": 1 << 20}], ids=str)
def test_long_paths_are_contracted_in_pieces_and_lose_nothing(quadrature, settings, monkeypatch):
    whole = reference("llama", "eap-ig", steps=20, quadrature=quadrature)  # stacked, in one piece
    monkeypatch.setattr("attribution.gradients._POINTS_KEPT", 8)
    in_pieces = scores("llama", "eap-ig", steps=20, quadrature=quadrature, **settings)
    assert error(in_pieces, whole) < TOLERANCE


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"memory": 1 << 20}], ids=str)
@pytest.mark.parametrize("method", ["eap-ig", "eap-ig-activations"])
def test_kl_knows_the_clean_run_however_points_are_stacked(method, settings):
    # "right" visits the clean run last, when points before it already want its logits
    def minus_kl(logits, prompts, clean):
        target = clean.softmax(1)
        return (target * (logits.log_softmax(1) - target.log())).sum(1)

    settings = {**settings, "quadrature": "right", "steps": 5}
    model = oracle.model_of("llama")
    task = mixed_task(model)
    ours = attribute(model, task, method, objective="kl", quiet=True, **settings).values
    by_hand = attribute(model, task, method, objective=minus_kl, quiet=True, quadrature="right", steps=5).values
    assert error(ours, by_hand) < TOLERANCE


@pytest.mark.parametrize("name", mostly_slow(MODELS, FEW.__contains__))
def test_padding_changes_nothing_and_every_prompt_weighs_the_same(name):
    model = oracle.model_of(name)
    task = mixed_task(model)
    one_by_one = [scores(name, "eap-ig", task.select([i]), steps=2) for i in range(3)]
    assert error(reference(name, "eap-ig", steps=2), sum(one_by_one) / 3) < TOLERANCE


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("batch_size", [2, None])
def test_the_order_of_prompts_changes_nothing(ablation, batch_size):
    task = mixed_task(oracle.model_of("gpt2"))
    for order in ([2, 1, 0], [1, 0, 2]):
        turned = scores("gpt2", "eap", task.select(order), ablation=ablation, batch_size=batch_size)
        assert error(turned, reference("gpt2", "eap", ablation=ablation)) < TOLERANCE


@pytest.mark.parametrize("name", mostly_slow(MODELS, FEW.__contains__))
@pytest.mark.parametrize("chosen", [(1, 2), (1,), (0, 1, 2)], ids=["from 3", "the last alone", "from 1"])
def test_skipping_the_shared_prefix_changes_nothing(name, chosen, monkeypatch):
    task = mixed_task(oracle.model_of(name), chosen)
    skipped = scores(name, "eap-ig", task, steps=2)
    monkeypatch.setattr(Ablator, "skip_prefix", False)
    assert error(skipped, scores(name, "eap-ig", task, steps=2)) < TOLERANCE


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    calls = []

    def hungry(logits, prompts, clean):
        calls.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("pretended")
        return logits[:, 3] - logits[:, 4]

    def frugal(logits, prompts, clean):
        return logits[:, 3] - logits[:, 4]

    expected = scores("llama", "eap", objective=frugal)
    assert error(scores("llama", "eap", objective=hungry), expected) < TOLERANCE
    assert max(calls) == 3


def test_a_single_prompt_that_does_not_fit_is_a_sentence():
    def hungry(logits, prompts, clean):
        raise torch.OutOfMemoryError("pretended")

    with pytest.raises(InputError, match="single prompt does not fit into memory"):
        scores("llama", "eap", objective=hungry)


# ---- precision


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "exact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_finite_float32_scores_close_to_float32(method, dtype):
    task = tiny_task(oracle.model_of("llama"), n=4)
    sample = {"sample": 60} if method == "exact" else {}
    half = scores("", method, task, half_precision(dtype), **sample)
    single = scores("", method, task, half_precision(dtype, widened=True), **sample)
    assert half.dtype == single.dtype == torch.float32
    assert half.isfinite().all()
    assert float(torch.corrcoef(torch.stack((half.flatten(), single.flatten())))[0, 1]) > 0.95


def test_float32_scores_are_float64_scores_to_float32_precision():
    task = mixed_task(oracle.model_of("gemma3"))
    single = scores("", "eap-ig", task, tiny("gemma3", torch.float32))
    # 24 bits, losing two or three digits in softmaxes and norms of large random weights
    assert error(single.double(), reference("gemma3", "eap-ig")) < 1e-4


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "eapig"}, "method='eapig' is unknown; did you mean 'eap-ig'"),
        ({"ablation": "pach"}, "ablation='pach' is unknown; did you mean 'patch'"),
        ({"ablation": "mean positional"}, "did you mean 'mean-positional'"),
        ({"method": "eap-ig", "ablation": "mean"}, "method='eap-ig' follows a path between two prompts.*'mean'"),
        (
            {"method": "eap-ig", "ablation": "zero"},
            "use ablation='patch', or a method such as 'eap', 'mask-ig' or 'exact'",
        ),
        ({"method": "clean-corrupted", "ablation": "mean-positional"}, "method='clean-corrupted'"),
        ({"method": "eap", "objective": "kl"}, "'kl' has a gradient of zero at the clean run.*'eap-ig'"),
        ({"method": "attribution-patching", "objective": "kl"}, "'kl' has a gradient of zero"),
        ({"objective": "accuracy"}, "'accuracy' has no gradient"),
        ({"objective": "logit-diff"}, "did you mean 'logit-difference'"),
        ({"kv": "heads"}, "kv='heads' is unknown; did you mean 'head'"),
        ({"steps": 0}, "steps=0 must be a whole number of at least 1"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"quadrature": "gauss"}, "quadrature='gauss' is unknown"),
        ({"method": "eap-ig-activations", "credit": "mine"}, "credit='mine' is unknown"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_size": -1}, "batch_size=-1 must be a whole number of at least 1"),
        ({"memory": 1000}, "memory=1000 must be a whole number of at least 1048576"),
        ({"edges": ["input->m0"]}, "edges is no setting of method='eap-ig'"),
        ({"sample": 3}, "sample is no setting of method='eap-ig'"),
        ({"resume": "file"}, "resume is no setting of method='eap-ig'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_right_are_refused(settings, message):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match=message):
        attribute(model, mixed_task(model), quiet=True, **settings)


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations"])
def test_a_nan_objective_is_refused_and_the_prompt_named(method):
    # the shortest prompts come first in a batch: the message must name prompt 0 of the task all the same
    culprit = mixed_task(oracle.model_of("gpt2")).prompts(oracle.model_of("gpt2")).correct[0, 0]

    def broken(logits, prompts, clean):
        return torch.where(prompts.correct[:, 0] == culprit, torch.nan, logits[:, 0])

    with pytest.raises(InputError, match="objective='broken' is NaN on prompt 0"):
        scores("gpt2", method, objective=broken)


@pytest.mark.parametrize("how", ["constant", "detached"])
def test_an_objective_without_a_gradient_is_refused(how):
    def flat(logits, prompts, clean):
        return logits.detach()[:, 0] if how == "detached" else torch.zeros(len(prompts))

    with pytest.raises(InputError, match=r"objective='flat'.*gradient"):
        scores("gpt2", "eap", objective=flat)


def test_an_objective_of_the_wrong_shape_is_refused():
    def total(logits, prompts, clean):
        return logits.sum()

    with pytest.raises(InputError, match="'total' returned"):
        scores("gpt2", "eap", objective=total)


def test_kl_is_accepted_where_its_gradient_does_not_vanish():
    for method in ("eap-ig", "clean-corrupted", "eap-ig-activations"):
        assert scores("gpt2", method, objective="kl").abs().max() > 1e-6


def test_an_objective_of_ones_own_equals_the_built_in():
    def mine(logits, prompts, clean):
        rows = torch.arange(len(prompts))
        correct = (
            logits[rows, prompts.correct[:, 0]]
            + torch.where(
                prompts.correct_mask.all(1),
                logits[rows, prompts.correct[:, -1]] - logits[rows, prompts.correct[:, 0]],
                0,
            )
            * 0.5
        )
        incorrect = (
            logits[rows, prompts.incorrect[:, 0]]
            + torch.where(
                prompts.incorrect_mask.all(1),
                logits[rows, prompts.incorrect[:, -1]] - logits[rows, prompts.incorrect[:, 0]],
                0,
            )
            * 0.5
        )
        return correct - incorrect

    for objective in (mine, Objective("mine", mine)):
        assert error(scores("llama", "eap", objective=objective), reference("llama", "eap")) < TOLERANCE


# ---- helpers


@functools.cache
def half_precision(dtype, widened=False):
    """A tiny Llama in half precision, or the same weights in float32."""
    module = tiny_module("llama", dtype)
    return load_model(module.float() if widened else module)


@functools.cache
def nearly_corrupted(name):
    """A model in which token t + 26 is embedded almost as token t is."""
    model = tiny(name)
    weight = model.embed.original_component.weight
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        noise = torch.randn(26, weight.shape[1], generator=generator, dtype=weight.dtype)
        weight[26:52] = weight[:26] + 1e-4 * noise
    return model


@functools.cache
def exact_where_the_corruption_is_small(name):
    model = nearly_corrupted(name)
    return scores("", "exact", small_task(model), model)


def small_task(model):
    """Prompts whose corrupted tokens are embedded almost as the clean ones are."""
    clean = torch.tensor([[3, 9, 14, 2, 21], [5, 5, 11, 25, 8]])
    corrupted = clean.clone()
    corrupted[:, 1:4] += 26
    return Task.from_tokens("small", clean, corrupted, [[4], [6]], [[7], [9]])
