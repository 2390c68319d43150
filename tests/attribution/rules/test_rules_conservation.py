"""Relevance is neither made nor lost: rules that conserve do so exactly, and what leaks is the biases' own."""

from __future__ import annotations

import functools

import pytest
import torch

from attribution import applied, component_scores, rule_set, tokens
from attribution.rules import Epsilon, Gamma, Half, HeldScale, Identity, pattern_held
from interp.inspection import anatomy_of
from interp.parts import Affine, Norm
from tests import oracle
from tests.oracle import mixed_task
from tests.rule_oracle import NAMED, Ruled, epsilon_rule, gamma_rule
from tests.tiny import tiny

WITHOUT_BIASES = ("llama", "mistral", "qwen3", "gemma2", "gemma3", "mixtral")
WITH_BIASES = ("gpt2", "qwen2", "gpt_neox", "gptj", "opt", "gpt_neox_sequential")
EXACT = 1e-10
IDS = torch.tensor([[3, 9, 14, 2, 21, 40], [5, 51, 11, 25, 8, 17]])
SEEDS = range(20)


def biases(model):
    """Every bias of a model, once."""
    found = [module._parameters.get("bias") for module in model.modules()]
    return list({id(bias): bias for bias in found if bias is not None}.values())


@functools.cache
def trainable(name):
    """A model whose activations have gradients, and whose biases."""
    return tiny(name).requires_grad_(True)


def explained(model, rules, target):
    """The embeddings of `IDS` as a leaf, and the logits of `target` [n] that a bridge with surrogates makes of them."""
    with torch.no_grad():
        embeddings = oracle.run(model, IDS, keep=["blocks.0.hook_in"])[1]["blocks.0.hook_in"]
    leaf = embeddings.clone().requires_grad_()
    logits, _ = oracle.run(Ruled(model, rules), IDS, {"blocks.0.hook_in": lambda x: leaf})
    return leaf, logits[torch.arange(len(IDS)), -1, target]


def relevance(logits, leaf):
    """[n, pos]: activation times gradient."""
    return (leaf * torch.autograd.grad(logits.sum(), leaf)[0]).sum(-1).detach()


# ---- whole models


@pytest.mark.parametrize("rules", ["relp", "gim", "attnlrp", "cp-lrp"])
@pytest.mark.parametrize("name", oracle.MODELS)
def test_relevance_of_tokens_is_embedding_times_the_surrogates_gradient(name, rules):
    ours = tokens(oracle.model_of(name), IDS, method=rules, quiet=True)
    leaf, logits = explained(oracle.model_of(name), NAMED[rules], ours.target[:, 0])
    assert torch.allclose(ours.logits, logits, rtol=0, atol=EXACT)
    expected = relevance(logits, leaf)
    assert oracle.error(ours.values, expected) < EXACT


@pytest.mark.parametrize("name", WITHOUT_BIASES)
def test_cp_lrp_adds_up_to_the_logit_in_models_without_biases(name):
    model = oracle.model_of(name)
    assert not biases(model)
    ours = tokens(model, IDS, method="cp-lrp", quiet=True)
    assert ours.logits.abs().min() > 1e-2
    assert (ours.conservation - 1).abs().max() < EXACT
    assert (ours.values.sum(1) - ours.logits).abs().max() < EXACT
    leaf, logits = explained(model, NAMED["cp-lrp"], ours.target[:, 0])
    assert (relevance(logits, leaf).sum(1) - logits).abs().max() < EXACT


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral"])
def test_cp_lrp_adds_up_for_contrasts_and_prompts_of_different_length(name):
    ids = [row.tolist()[: 6 - 2 * i] for i, row in enumerate(IDS)]
    ours = tokens(oracle.model_of(name), ids, target=(7, 30), method="cp-lrp", quiet=True)
    if name == "gemma2":  # each capped logit is a sum, so the difference of two is one too
        assert anatomy_of(oracle.model_of(name)).cap is not None
    assert (ours.values.sum(1) - ours.logits).abs().max() < EXACT
    assert torch.equal(ours.values[1, 4:], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("name", WITH_BIASES)
def test_what_cp_lrp_leaks_is_what_the_biases_get(name):
    # every operation is linear in its inputs and its bias, so all of these together get the logit
    model = trainable(name)
    ours = tokens(model, IDS, method="cp-lrp", quiet=True)
    theirs = biases(model)
    _, logits = explained(model, NAMED["cp-lrp"], ours.target[:, 0])
    for row, logit in enumerate(logits):
        gradients = torch.autograd.grad(logit, theirs, retain_graph=True, allow_unused=True, materialize_grads=True)
        share = sum(float((bias * gradient).detach().sum()) for bias, gradient in zip(theirs, gradients, strict=True))
        assert abs(share) > 1e-2
        assert abs(float(ours.logits[row] - ours.values[row].sum()) - share) < EXACT


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "opt"])
def test_cp_lrp_is_exact_once_the_biases_are_zero(name):
    model = tiny(name)
    with torch.no_grad():
        for bias in biases(model):
            bias.zero_()
    assert (tokens(model, IDS, method="cp-lrp", quiet=True).conservation - 1).abs().max() < EXACT


@pytest.mark.parametrize("name", WITHOUT_BIASES)
def test_attnlrp_leaks_in_attention_alone(name):
    model = oracle.model_of(name)
    assert (tokens(model, IDS, method="attnlrp", quiet=True).conservation - 1).abs().max() > 1e-3
    held = rule_set("attnlrp").plus(pattern_held())
    ours = tokens(model, IDS, method="gradient-x-input", rules=held, quiet=True)
    assert (ours.values.sum(1) - ours.logits).abs().max() < EXACT


@pytest.mark.parametrize("missing", ["norm", "activation", "product", "attention"])
def test_every_rule_of_cp_lrp_is_needed(missing):
    model = oracle.model_of("llama")
    ours = tokens(model, IDS, method="gradient-x-input", rules=rule_set("cp-lrp").without(missing), quiet=True)
    assert (ours.values.sum(1) - ours.logits).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("linear", "theirs"), [(Gamma(0.5, 0.0), gamma_rule(0.5, 0.0)), (Gamma(3.0, 0.0), gamma_rule(3.0, 0.0))]
)
@pytest.mark.parametrize("name", ["llama", "gemma3", "mixtral"])
def test_the_gamma_rule_moves_relevance_and_loses_none(name, linear, theirs):
    model = oracle.model_of(name)
    ours = tokens(model, IDS, method="gradient-x-input", rules=rule_set("cp-lrp").plus(linear), quiet=True)
    assert (ours.values.sum(1) - ours.logits).abs().max() < 1e-9  # small outputs of large terms amplify rounding
    leaf, logits = explained(model, NAMED["cp-lrp"].but(linear=theirs), ours.target[:, 0])
    assert oracle.error(ours.values, relevance(logits, leaf)) < 1e-9
    assert oracle.error(ours.values, tokens(model, IDS, method="cp-lrp", quiet=True).values) > 1e-2


def test_the_epsilon_rule_loses_what_it_says_and_nothing_as_epsilon_vanishes():
    model = oracle.model_of("llama")
    lost = []
    for epsilon in (1e-2, 1e-4, 1e-12):
        rules = rule_set("cp-lrp").plus(Epsilon(epsilon))
        ours = tokens(model, IDS, method="gradient-x-input", rules=rules, quiet=True)
        lost.append(float((ours.values.sum(1) - ours.logits).abs().max()))
    assert lost[0] > lost[1] > 1e-6
    assert lost[2] < 1e-8


# ---- layers


def residual_points(model):
    return [f"blocks.{i}.{point}" for i in range(len(model.blocks)) for point in ("hook_in", "ln2.hook_in")]


def relevance_at(model, rules, points):
    """By hook point of the residual stream: its relevance at every position; and the logits explained."""
    kept = {}

    def keep(x, hook):
        kept[hook.name] = x
        return x

    with applied(model, rules):
        logits = model.run_with_hooks(IDS, fwd_hooks=[(point, keep) for point in points])[:, -1]
    target = logits.argmax(1, keepdim=True)
    value = logits.gather(1, target)[:, 0]
    gradients = torch.autograd.grad(value.sum(), [kept[point] for point in points])
    return {p: (kept[p] * g).sum(-1) for p, g in zip(points, gradients, strict=True)}, value


@pytest.mark.parametrize("name", [name for name in WITHOUT_BIASES if name != "gemma2"])  # a cap behind all hooks
def test_every_layer_holds_the_whole_relevance_under_cp_lrp(name):
    model = trainable(name)
    found, value = relevance_at(model, "cp-lrp", points := residual_points(model))
    for point in points:
        assert (found[point].sum(1) - value).abs().max() < EXACT


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mixtral"])
def test_mlps_keep_relevance_at_its_position_and_attention_moves_it(name):
    model = trainable(name)
    for rules in ("cp-lrp", "attnlrp"):
        found, _ = relevance_at(model, rules, residual_points(model))
        for i in range(len(model.blocks) - 1):
            middle, after = found[f"blocks.{i}.ln2.hook_in"], found[f"blocks.{i + 1}.hook_in"]
            assert (middle - after).abs().max() < EXACT
            moved, leaked = found[f"blocks.{i}.hook_in"] - middle, found[f"blocks.{i}.hook_in"].sum(1) - middle.sum(1)
            assert moved.abs().max() > 1e-3
            assert (leaked.abs().max() < EXACT) == (rules == "cp-lrp")


@pytest.mark.parametrize("name", WITHOUT_BIASES)
def test_scores_of_the_residual_stream_against_nothing_add_up_to_the_objective(name):
    model = oracle.model_of(name)
    task = mixed_task(model)
    prompts = task.prompts(model)
    expected = oracle.logit_difference(model(prompts.clean), prompts)[0]
    found = component_scores(model, task, "cp-lrp", ablation="zero", quiet=True).values
    assert (found["resid_pre"].sum(2) - expected[:, None]).abs().max() < EXACT
    # what enters and what all layers add is the last residual stream, which makes the logits
    first = found["resid_pre"][:, 0].sum(1)
    assert (first - expected).abs().max() < EXACT


# ---- single operations


@pytest.fixture
def draw(seed):
    """Draws leaves of any shape, the same ones whatever tests ran before."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_held_norm_conserves_up_to_its_bias(draw, kind):
    module = torch.nn.LayerNorm(6, dtype=torch.float64) if kind == "layer" else torch.nn.RMSNorm(6, 0.1).double()
    for parameter in module.parameters():
        parameter.data = draw(6).detach()
    x, g = draw(2, 6), draw(2, 6).detach()
    norm = Norm(module, kind, module.eps)
    y = HeldScale()(norm, x)
    assert torch.allclose(y, module(x), rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(y, x, g)
    own = (y - getattr(module, "bias", 0.0)) * g
    assert ((x * gradient).sum(-1) - own.sum(-1)).abs().max() < 1e-12
    # the plain gradient of a norm is at right angles to its input, but for eps
    plain = torch.autograd.grad(module(x), x, g)[0]
    assert ((x * plain).sum(-1) - own.sum(-1)).abs().max() > 1e-2


@pytest.mark.parametrize("function", [torch.relu, torch.nn.functional.gelu, torch.nn.functional.silu, torch.tanh])
@pytest.mark.parametrize("seed", SEEDS[:5])
def test_activations_conserve_element_by_element(draw, function):
    x, g = draw(50), draw(50).detach()
    y = Identity()(function, x)
    (gradient,) = torch.autograd.grad(y, x, g)
    assert torch.equal(y, function(x))
    assert (x * gradient - y * g).abs().max() < 1e-14


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_products_conserve_and_share_evenly(draw):
    a, b, g = draw(50), draw(50), draw(50).detach()
    gradients = torch.autograd.grad(Half()(a, b), (a, b), g)
    for factor, gradient in zip((a, b), gradients, strict=True):
        assert (factor * gradient - a * b * g / 2).abs().max() < 1e-14


def pulled(rule, x, weight, bias, g):
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    module.weight.data = weight.detach()
    if bias is not None:
        module.bias.data = bias.detach()
    y = rule(Affine(module), x)
    assert torch.equal(y, module(x))
    return y, torch.autograd.grad(y, x, g)[0]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_layers_conserve_up_to_bias_and_epsilon(draw, with_bias):
    x, weight, g = draw(4, 7), draw(5, 7).detach(), draw(4, 5).detach()
    x.data[0, :3] = 0.0  # ReLUs give zeros
    bias = draw(5).detach() if with_bias else None
    b = torch.zeros(5, dtype=torch.float64) if bias is None else bias
    for epsilon, gamma in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.25), (0.2, 0.7), (0.0, 1000.0)):
        y, gradient = pulled(Gamma(gamma, epsilon) if gamma else Epsilon(epsilon), x, weight, bias, g)
        # terms of the output's sign weigh more; what is left of R = y g is the inputs' part of all terms
        terms = x[:, None] * weight
        inputs = (terms * (1 + gamma * ((terms > 0) == (y[..., None] > 0)).double())).sum(-1)
        total = inputs + b * (1 + gamma * ((b > 0) == (y > 0)).double())
        arrives = y * g * inputs / (total + epsilon * total.sign())
        assert ((x * gradient).sum(-1) - arrives.sum(-1)).abs().max() < EXACT
        if epsilon == 0 and not with_bias:
            assert ((x * gradient).sum(-1) - (y * g).sum(-1)).abs().max() < EXACT


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_mixture_conserves_at_every_position_while_routing_is_held(draw):
    mixture = anatomy_of(oracle.model_of("mixtral")).blocks[1].mlp
    x, g = draw(2, 5, 16), draw(2, 5, 16).detach()
    for name in ("cp-lrp", "gim", "gradient"):
        rules = rule_set(name).plus(Identity()) if name == "gim" else rule_set(name)
        y = mixture(x, rules)
        (gradient,) = torch.autograd.grad(y, x, g)
        leak = ((x * gradient).sum(-1) - (y * g).sum(-1)).abs()
        assert leak.max() < 1e-12 if name != "gradient" else leak.min() > 1e-4


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_the_oracle_itself_gives_the_plain_gradient_where_it_is_told_nothing(draw):
    x, weight = draw(3, 4), draw(2, 4).detach()
    plain = torch.autograd.grad((x @ weight.T).sum(), x)[0]
    for nothing in (epsilon_rule(0.0), gamma_rule(0.0, 0.0)):
        assert torch.allclose(torch.autograd.grad(nothing(weight, None, x).sum(), x)[0], plain, atol=1e-14)
