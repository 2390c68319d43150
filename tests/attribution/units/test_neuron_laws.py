"""Laws of scores of neurons, in float64 on every architecture: sums, differences, and what patching really does."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import attribute, neurons
from interp import ComputationalGraph
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, logit_difference, mixed_task, run, sub_layer
from tests.tiny import LAYERS, MLP, mostly_slow

METHODS = ("eap", "eap-ig", "clean-corrupted", "eap-ig-activations")
WITH_OUTPUT_BIAS = ("gpt2", "gpt_neox", "gptj", "opt", "gpt_neox_sequential")
POST_NORM = ("gemma2", "gemma3")
CHOSEN = [(0, 3), (1, 2, 7), (2, 4, 11), (2, 5), (1, 6, 0)]


@functools.cache
def prompts_of(name):
    prompts = mixed_task(oracle.model_of(name)).prompts(oracle.model_of(name))
    return [row[:length].tolist() for row, length in zip(prompts.clean, prompts.lengths, strict=True)]


@functools.cache
def last_logits(name):
    """By prompt: the logits at its last position, of a run of it alone."""
    return [oracle.model_of(name)(torch.tensor([ids]))[0, -1] for ids in prompts_of(name)]


def of_prompts(name, target=(3, 5), **settings):
    return neurons(oracle.model_of(name), prompts_of(name), target, quiet=True, **settings)


def of_task(name, **settings):
    model = oracle.model_of(name)
    return neurons(model, mixed_task(model), quiet=True, **settings)


# ---- what adds up


@pytest.mark.parametrize("target", [None, 7, (3, 5), [[3, 5, 8]] * 3], ids=["likely", "logit", "contrast", "sum"])
@pytest.mark.parametrize("name", MODELS)
def test_embeddings_and_biases_add_up_to_the_logit(name, target):
    found = of_prompts(name, target)
    sums = found.conservation()
    assert (sums["ratio"] - 1).abs().max() < TOLERANCE
    for row, logits in enumerate(last_logits(name)):
        expected = {
            None: lambda x: x.max(), 7: lambda x: x[7], (3, 5): lambda x: x[3] - x[5],
        }.get(target if not isinstance(target, list) else "sum", lambda x: x[3] + x[5] + x[8])(logits)  # fmt: skip
        assert float(found.explained[row]) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("name", ["phi3", "ministral3"])
def test_so_they_do_in_models_that_no_table_names(name):
    assert (of_prompts(name).conservation()["ratio"] - 1).abs().max() < TOLERANCE


@pytest.mark.parametrize("rules", ["gradient", "relp"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_rules_that_do_not_conserve_say_so(name, rules):
    assert (of_prompts(name, rules=rules).conservation()["ratio"] - 1).abs().min() > 1e-3


@pytest.mark.parametrize("rules", ["relp-ah", "gradient", "gim"])
@pytest.mark.parametrize(
    ("name", "method"), mostly_slow([(n, m) for n in MODELS for m in METHODS], lambda case: case[1] in METHODS[:2])
)
def test_a_tasks_neurons_add_up_to_the_score_of_their_mlp(name, method, rules):
    model = oracle.model_of(name)
    found = of_task(name, method=method, rules=rules)
    nodes = attribute(model, mixed_task(model), method, rules=rules, level="node", quiet=True).values
    assert error(found.values.sum((2, 3)).mean(0), nodes[mlps(model)]) < TOLERANCE
    assert error(found.embedding.sum(1).mean()[None], nodes[:1]) < TOLERANCE


@pytest.mark.parametrize("ablation", ["zero", "zero-token", "mean", "mean-positional"])
@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2", "mixtral", "llama"])
def test_so_they_do_under_other_ablations_with_the_biases_of_output_matrices(name, ablation):
    model = oracle.model_of(name)
    found = of_task(name, method="eap", ablation=ablation)
    nodes = attribute(model, mixed_task(model), "eap", ablation=ablation, level="node", quiet=True).values
    sums = found.values.sum((2, 3)).mean(0)
    if ablation.startswith("zero") and name in WITH_OUTPUT_BIAS:
        assert set(found.biases["place"]) == {"down"}
        sums = sums + torch.tensor(found.biases.groupby("layer")["score"].sum().to_numpy()) / 3
    else:
        assert found.biases.empty
    assert error(sums, nodes[mlps(model)]) < TOLERANCE


def mlps(model):
    graph = ComputationalGraph.of(model)
    return [graph.mlp_source(layer) for layer in range(LAYERS)]


def test_integrated_along_its_own_output_an_mlp_accounts_for_what_patching_it_does():
    model, task = oracle.model_of("llama"), mixed_task(oracle.model_of("llama"))
    found = of_task("llama", method="eap-ig-activations", credit="own", steps=12, quadrature="gauss-legendre")
    patched = attribute(model, task, "activation-patching", quiet=True).values[mlps(model)]
    assert error(found.values.sum((2, 3)).mean(0), patched) < 1e-4


def test_of_a_mixture_the_neurons_of_experts_that_are_not_chosen_are_silent():
    found = of_prompts("mixtral")
    by_expert = found.activations.unflatten(-1, (3, MLP))
    assert found.values.shape[-1] == 3 * MLP
    assert not found.values[found.activations == 0].any()
    heard = by_expert.abs().sum(-1) > 0
    assert (heard.sum(-1)[found.mask[:, None].expand(-1, LAYERS, -1)] == 2).all()  # experts for each token


# ---- what neurons really do


@pytest.mark.parametrize("name", MODELS)
def test_exact_is_what_the_model_does_when_one_neuron_is_patched(name):
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    found = of_task(name, method="exact", only=CHOSEN)
    clean = logit_difference(model(prompts.clean), prompts)[0]
    assert torch.allclose(found.explained, clean.detach(), rtol=1e-9)
    for place, values in zip(CHOSEN, patched(name), strict=True):
        expected = clean - values
        rows = found.kept[(found.kept["layer"] == place[0]) & (found.kept["neuron"] == place[-1])]
        if len(place) == 3:
            assert (rows["position"] == place[1]).all()
            seen = (prompts.first_difference <= place[1]) & (place[1] < prompts.lengths)
            assert rows["prompt"].tolist() == sorted(rows["prompt"], key=rows["prompt"].tolist().index)
            assert set(rows["prompt"]) == set(seen.nonzero()[:, 0].tolist())
        for row in rows.itertuples():
            assert row.score == pytest.approx(float(expected[row.prompt]), rel=1e-9, abs=1e-12)


@torch.no_grad()
def patched(name):
    """[place, n]: the objective with one neuron of the clean run as it is in the corrupted one, at one position or all.

    All at once: copy i of the prompts is the one in which the i-th place is patched.
    """
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    points = [point for point in neuron_points(model) if point in model.hook_dict]
    clean, other = (run(model, tokens, keep=points)[1] for tokens in (prompts.clean, prompts.corrupted))
    edits = {}
    for copy, (layer, *position, neuron) in enumerate(CHOSEN):
        where = torch.zeros(prompts.clean.shape, dtype=torch.float64)
        where[:, position or slice(None)] = 1
        if name in POST_NORM or name == "mixtral":
            point = sub_layer(model, "mlp", layer)
            change = written(model, clean, layer, neuron) - written(model, other, layer, neuron)
        else:
            point = f"blocks.{layer}.mlp.out.hook_in"
            change = torch.zeros_like(clean[point])
            change[..., neuron] = (clean[point] - other[point])[..., neuron]
        edits.setdefault(point, [0.0] * len(CHOSEN))[copy] = change * where[..., None]

    def lowered(x, changes):
        return torch.cat([part - less for part, less in zip(x.chunk(len(CHOSEN)), changes, strict=True)])

    edits = {point: functools.partial(lowered, changes=changes) for point, changes in edits.items()}
    return logit_difference(run(model, prompts.clean.repeat(len(CHOSEN), 1), edits)[0], prompts)


def neuron_points(model):
    """The hook points that say what neurons of the layers in `CHOSEN` are, and write."""
    names = ("mlp.hook_in", "mlp.out.hook_in", "ln2_post.hook_in")
    return [f"blocks.{layer}.{name}" for layer in range(LAYERS) for name in names]


def written(model, kept, layer, neuron):
    """What a neuron adds to the residual stream, by the modules' own weights: an expert's, or behind a norm."""
    block = model.blocks[layer]
    if hasattr(block, "ln2_post"):
        hidden, out = (kept[f"blocks.{layer}.{name}.hook_in"] for name in ("mlp.out", "ln2_post"))
        norm = block.ln2_post.original_component
        divisor = (out.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        weight = block.mlp.out.original_component.weight[:, neuron]
        return hidden[..., [neuron]] / divisor * weight * (1 + norm.weight)
    module, x, (expert, own) = block.mlp.original_component, kept[f"blocks.{layer}.mlp.hook_in"], divmod(neuron, MLP)
    chances = (x @ module.gate.weight.T).softmax(-1)
    best, chosen = chances.topk(2)
    share = torch.where(chosen == expert, best / best.sum(-1, keepdim=True), 0.0).sum(-1, keepdim=True)
    gate, up = (x @ half.T for half in module.experts.gate_up_proj[expert].chunk(2))
    return (module.experts.act_fn(gate) * up)[..., [own]] * share * module.experts.down_proj[expert][:, own]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mixtral"])
def test_plain_gradients_are_finite_differences(name):
    model, ids = oracle.model_of(name), prompts_of(name)[0]
    found = neurons(model, [ids], (3, 5), "gradient", quiet=True)
    step, places = 1e-5, [(0, 0, 3), (1, 3, 8), (2, 6, 1), (0, 5, 20)]
    moves = [(*place, by) for place in places for by in (step, -step)]  # one in each copy of the prompt

    def moved(x, at):
        x = x.clone()
        for copy, (layer, position, neuron, by) in enumerate(moves):
            if layer == at:
                x[copy, position, neuron] += by
        return x

    edits = {f"blocks.{layer}.mlp.out.hook_in": functools.partial(moved, at=layer) for layer in range(LAYERS)}
    with torch.no_grad():
        logits = run(model, torch.tensor([ids] * len(moves)), edits)[0][:, -1]
    up, down = (logits[:, 3] - logits[:, 5]).view(-1, 2).T
    for place, slope in zip(places, (up - down) / (2 * step), strict=True):
        expected = found.activations[0][place] * slope
        assert float(found.values[0][place]) == pytest.approx(float(expected), rel=1e-5, abs=1e-9)


def test_exact_of_prompts_silences_a_neuron():
    model, ids = oracle.model_of("qwen3"), prompts_of("qwen3")[0]
    found = neurons(model, [ids], 7, method="exact", only=[(1, 4, 6)], quiet=True)

    def silence(x):
        x = x.clone()
        x[:, 4, 6] = 0.0
        return x

    tokens = torch.tensor([ids])
    without = run(model, tokens, {"blocks.1.mlp.out.hook_in": silence})[0][0, -1, 7]
    assert found.kept["score"].tolist() == pytest.approx([float(model(tokens)[0, -1, 7] - without)], rel=1e-9)
