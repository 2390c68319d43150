"""Edge scores under backward rules against `detach` surrogates in the bridge, and what must not change them."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from attribution import RuleSet, attribute, methods, rule_set, rule_sets
from attribution.rules import AttentionFactors, Epsilon, Gamma, Half, HeldRouting, HeldScale, Identity, pattern_held
from interp import ComputationalGraph
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.ablation import Ablator
from interp.kernels.forward import prepare, run_blocks, unembed
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.rule_oracle import NAMED, Ruled, Rules, edge_scores, epsilon_rule, gamma_rule, gradients, parts_of
from tests.tiny import mostly_slow, tiny

SETS = ("relp", "relp-ah", "gim", "attnlrp", "cp-lrp")
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral")
PAIRS = [("gpt2", "relp"), ("gemma2", "attnlrp"), ("mixtral", "gim"), ("qwen3", "cp-lrp")]
GIM_EPSILON = rule_set("gim").plus(Epsilon(0.05))


def scores(name, rules, method="eap", task=None, **settings):
    model = oracle.model_of(name)
    return attribute(model, task or mixed_task(model), method, rules=rules, quiet=True, **settings).values


by_target = functools.cache(gradients)
reference = functools.cache(scores)


def slow_scores(name, rules, ablation="patch"):
    return edge_scores(name, [(1.0, by_target(name, rules))], ablation)


def test_the_rule_sets_tested_here_are_all_that_there_are():
    # tests/attribution/decompx/test_decompose_edges.py tests the maps of DecompX
    assert set(rule_sets()["name"]) - {"decompx"} == set(NAMED) == {"gradient", *SETS}


# ---- the same numbers as surrogates in the bridge


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("name", MODELS)
def test_every_rule_set_on_every_architecture(name, rules):
    named = set(methods()["method"])
    ours = scores(name, None, method=rules) if rules in named else scores(name, rules)
    expected = slow_scores(name, NAMED[rules])
    assert error(ours, expected) < TOLERANCE
    assert error(reference(name, "gradient"), expected) > 1e-2  # the surrogates do something


@pytest.mark.parametrize("rules", ["relp", "gim", "attnlrp", "cp-lrp"])
def test_a_named_method_is_eap_with_the_rules_of_that_name(rules):
    assert torch.equal(scores("gemma3", None, method=rules), scores("gemma3", rules))
    recorded = attribute(oracle.model_of("llama"), mixed_task(oracle.model_of("llama")), rules, quiet=True).settings
    assert recorded["rules"]["name"] == rules


def test_the_set_without_rules_is_plain_eap():
    for name in ("gpt2", "mixtral"):
        assert torch.equal(scores(name, "gradient"), scores(name, None))


ALONE = {
    "norm": (HeldScale(), Rules(norm=True)),
    "activation": (Identity(), Rules(activation=True)),
    "product": (Half(), Rules(product=True)),
    "routing": (HeldRouting(), Rules()),
    "held": (pattern_held(), Rules(attention="held")),
    "factors": (AttentionFactors(0.3, 1.7, -2.0), Rules(factors=(0.3, 1.7, -2.0))),
    "softened": (AttentionFactors(0.25, 0.25, 0.5, temperature=5.0), Rules(attention="halved", temperature=5.0)),
    "epsilon": (Epsilon(0.05), Rules(linear=epsilon_rule(0.05))),
    "gamma": (Gamma(0.4, 1e-3), Rules(linear=gamma_rule(0.4, 1e-3))),
}


@pytest.mark.parametrize("rule", ALONE)
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_every_rule_alone(name, rule):
    ours, theirs = ALONE[rule]
    assert error(scores(name, RuleSet.of(ours)), slow_scores(name, theirs)) < TOLERANCE


@pytest.mark.parametrize("rule", ["activation", "product", "routing", "gamma"])
def test_every_rule_alone_inside_experts(rule):
    # a mixture's routing is held wherever there is a rule
    ours, theirs = ALONE[rule]
    assert error(scores("mixtral", RuleSet.of(ours)), slow_scores("mixtral", theirs.but(routing=True))) < TOLERANCE


LINEAR = {
    "epsilon": (Epsilon(0.05), epsilon_rule(0.05)),
    "gamma": (Gamma(0.4, 1e-3), gamma_rule(0.4, 1e-3)),
    "gamma without epsilon": (Gamma(1.5, 0.0), gamma_rule(1.5, 0.0)),
}


@pytest.mark.parametrize(
    ("name", "rules", "linear"),
    [
        ("gpt2", "attnlrp", "gamma"),
        ("gpt_neox", "cp-lrp", "epsilon"),
        ("gptj", "gim", "gamma"),
        ("opt", "attnlrp", "gamma without epsilon"),  # ReLU: inputs of exactly zero
        ("qwen3", "gradient", "gamma"),
        ("qwen2", "attnlrp", "epsilon"),
        ("gemma3", "relp", "gamma"),
        ("mistral", "gradient", "epsilon"),
    ],
)
def test_rules_for_linear_layers_beside_others(name, rules, linear):
    ours, theirs = LINEAR[linear]
    expected = slow_scores(name, NAMED[rules].but(linear=theirs))
    assert error(scores(name, rule_set(rules).plus(ours)), expected) < TOLERANCE
    assert error(slow_scores(name, NAMED[rules]), expected) > 1e-2


@pytest.mark.parametrize("rule", [Epsilon(0.0), Gamma(0.0, 0.0)], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "opt", "mixtral"])
def test_rules_for_linear_layers_that_ask_for_nothing_are_the_gradient(name, rule):
    # not a tautology: gradients at q, k and v take another way
    held = "attnlrp" if name == "mixtral" else "gradient"
    assert error(scores(name, rule_set(held).plus(rule)), slow_scores(name, NAMED[held])) < TOLERANCE


@pytest.mark.parametrize(
    ("changed", "theirs"),
    [
        (rule_set("attnlrp").without("product"), NAMED["attnlrp"].but(product=False)),
        (rule_set("relp").without("norm", "activation"), NAMED["relp"].but(norm=False, activation=False)),
        (rule_set("cp-lrp").plus(AttentionFactors(temperature=3.0)), NAMED["relp"].but(temperature=3.0)),
        (rule_set("gim").plus(Identity()).without("attention"), NAMED["relp"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_sets_that_users_compose(name, changed, theirs):
    assert error(scores(name, changed), slow_scores(name, theirs)) < TOLERANCE


# ---- paths, ablations, levels


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_rules_along_the_path_of_integrated_gradients(name, rules):
    points = [(0.5, by_target(name, NAMED[rules], alpha)) for alpha in (0.0, 0.5)]
    assert error(scores(name, rules, "eap-ig", steps=2), edge_scores(name, points)) < TOLERANCE


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_rules_at_the_clean_and_the_corrupted_run(name, rules):
    points = [(0.5, by_target(name, NAMED[rules], alpha)) for alpha in (0.0, 1.0)]
    assert error(scores(name, rules, "clean-corrupted"), edge_scores(name, points)) < TOLERANCE


def test_rules_for_linear_layers_along_a_path():
    # norms not held: their rank-one part is kept point by point
    points = [(0.5, by_target("gpt2", Rules(linear=LINEAR["gamma"][1]), alpha)) for alpha in (0.0, 0.5)]
    ours = scores("gpt2", RuleSet.of(LINEAR["gamma"][0]), "eap-ig", steps=2)
    assert error(ours, edge_scores("gpt2", points)) < TOLERANCE


@pytest.mark.parametrize("credit", ["all", "own"])
@pytest.mark.parametrize(("name", "rules"), [("gpt2", "attnlrp"), ("llama", "gim")])
def test_rules_along_the_paths_of_sub_layers(name, rules, credit):
    model, prompts, graph = parts_of(name)
    corrupted, delta = oracle.source_outputs(model, prompts.corrupted), oracle.differences(model, prompts)
    targets = ["a1.h3<k>", "a2.h1<v>", "m2"]
    ours = scores(name, rules, "eap-ig-activations", steps=1, quadrature="midpoint", credit=credit)
    expected = torch.zeros_like(ours)
    for site in ("input", "a0", "m0", "a1", "m1", "a2", "m2"):
        edits, own = oracle.site_edits(model, prompts, corrupted, site, 0.5)
        here = oracle.input_gradients(Ruled(model, NAMED[rules]), prompts, edits, targets)
        for source in own if credit == "own" else graph.sources:
            for target in targets:
                value = (delta[source] * here[target]).sum() / len(prompts)
                expected[graph.sources.index(source), graph.targets.index(target)] += (
                    value if credit == "own" else value / 7
                )
    columns = [graph.targets.index(target) for target in targets]
    assert error(ours[:, columns], (expected * graph.edge_mask)[:, columns]) < TOLERANCE


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-positional"])
@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_rules_under_other_ablations(name, rules, ablation):
    expected = slow_scores(name, NAMED[rules], ablation)
    assert error(scores(name, rules, ablation=ablation), expected) < TOLERANCE


@pytest.mark.parametrize("rules", ["gim", "cp-lrp"])
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2", "mixtral"])
def test_a_nodes_score_is_the_modified_gradient_at_its_output(name, rules):
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    slopes, delta = oracle.output_gradients(Ruled(model, NAMED[rules]), prompts), oracle.differences(model, prompts)
    expected = torch.stack([(delta[source] * slopes[source]).sum() / len(prompts) for source in delta])
    assert error(scores(name, None, rules, level="node"), expected) < TOLERANCE
    assert error(scores(name, rules, "attribution-patching"), expected) < TOLERANCE


@pytest.mark.parametrize("rules", ["gim", GIM_EPSILON], ids=repr)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_a_groups_score_is_the_sum_over_its_query_heads(name, rules):
    per_head, per_group = (scores(name, rules, kv=kv) for kv in ("head", "group"))
    head, group = (ComputationalGraph.of(oracle.model_of(name), kv=kv) for kv in ("head", "group"))
    expected = torch.zeros(group.shape, dtype=per_head.dtype)
    for column, target in enumerate(head.targets):
        _, layer, letter, at = oracle.place_of(target)
        into = f"a{layer}.h{at // 2}<{letter}>" if letter in ("k", "v") else target
        expected[:, group.targets.index(into)] += per_head[:, column]
    assert error(per_group, expected) < TOLERANCE


# ---- what must not change scores


@pytest.mark.parametrize(
    "settings",
    mostly_slow(
        [{"batch_size": 1}, {"batch_size": 2, "checkpointed": True}, {"memory": 1 << 20}, {"checkpointed": True}],
        lambda one: "memory" in one or len(one) == 2,
    ),
    ids=str,
)
@pytest.mark.parametrize("rules", ["attnlrp", GIM_EPSILON], ids=repr)
@pytest.mark.parametrize(("name", "method"), [("gpt2", "eap-ig"), ("gemma2", "eap"), ("mixtral", "clean-corrupted")])
def test_batches_and_checkpointing_change_nothing(name, method, rules, settings):
    assert error(scores(name, rules, method, **settings), reference(name, rules, method)) < TOLERANCE


@pytest.mark.parametrize("rules", ["gim", GIM_EPSILON], ids=repr)
@pytest.mark.parametrize("name", ["opt", "gemma3", "mixtral"])
def test_padding_and_the_shared_prefix_change_nothing(name, rules, monkeypatch):
    task = mixed_task(oracle.model_of(name))
    together = scores(name, rules)
    assert error(together, sum(scores(name, rules, task=task.select([i])) for i in range(3)) / 3) < TOLERANCE
    last = scores(name, rules, task=task.select([1]))  # differs at its last token alone
    monkeypatch.setattr(Ablator, "skip_prefix", False)
    assert error(last, scores(name, rules, task=task.select([1]))) < TOLERANCE


@pytest.mark.parametrize("rules", ["gradient", *SETS, GIM_EPSILON, RuleSet.of(Gamma(0.5))], ids=repr)
@pytest.mark.parametrize("name", mostly_slow(MODELS, {"gpt2", "gemma2", "mixtral"}.__contains__))
def test_the_forward_pass_is_what_it_was(name, rules):
    anatomy = anatomy_of(oracle.model_of(name))
    tokens = mixed_task(oracle.model_of(name)).prompts(oracle.model_of(name)).clean
    plain = prepare(anatomy, tokens, 0, torch.full((len(tokens),), tokens.shape[1]))
    ruled = replace(plain, backward=rule_set(rules, oracle.model_of(name)))
    logits = []
    for frame in (plain, ruled):
        x = anatomy.embed(tokens, frame.positions).detach().requires_grad_()
        logits.append(unembed(anatomy, run_blocks(frame, x)[:, -1], frame.backward))
    assert torch.equal(*logits)
    assert logits[1].requires_grad


def test_rules_leave_the_model_as_it_was():
    model = tiny("llama")
    task = mixed_task(model)
    before = attribute(model, task, "eap", quiet=True).values
    attribute(model, task, "gim", quiet=True)
    assert torch.equal(attribute(model, task, "eap", quiet=True).values, before)
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- no rule is silently off


@pytest.mark.parametrize("operation", ["norm", "activation", "product", "attention"])
@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("name", mostly_slow(MODELS, {"gemma2", "mixtral"}.__contains__))
def test_removing_a_rule_changes_scores_where_the_model_has_the_operation(name, rules, operation):
    whole = rule_set(rules, oracle.model_of(name))
    if operation not in rule_set(rules).by_operation:
        assert whole.without(operation).rules == whole.rules
    elif operation == "product" and name not in GATED:
        assert operation not in whole.by_operation
        assert torch.equal(reference(name, rules), reference(name, rule_set(rules).without(operation)))
    elif operation == "activation" and name == "opt":  # ReLU(x) / x is ReLU's own slope
        assert operation in whole.by_operation
        assert error(reference(name, whole.without(operation)), reference(name, rules)) < TOLERANCE
    else:
        assert operation in whole.by_operation
        assert error(reference(name, whole.without(operation)), reference(name, rules)) > 1e-2


@pytest.mark.parametrize("name", mostly_slow(MODELS, {"gpt2", "gemma2", "mixtral"}.__contains__))
def test_routing_is_held_in_mixtures_alone_and_there_by_every_rule(name):
    model = oracle.model_of(name)
    for rules in (rule_set("relp"), RuleSet.of(HeldScale()), rule_set("gim").without("routing")):
        assert ("routing" in rules.for_anatomy(anatomy_of(model)).by_operation) == (name == "mixtral")
    assert rule_set("gradient", model).rules == ()
    held, plain = reference(name, RuleSet.of(HeldRouting())), reference(name, "gradient")
    assert error(held, plain) > 1e-2 if name == "mixtral" else torch.equal(held, plain)


def test_scores_say_which_rules_made_them():
    model = oracle.model_of("gpt2")
    made = attribute(model, mixed_task(model), "eap-ig", rules="attnlrp", quiet=True).settings["rules"]
    factors = "AttentionFactors(query=0.25, key=0.25, value=0.5, temperature=None)"
    assert made == {"name": "attnlrp", "rules": ["HeldScale()", "Identity()", factors]}
    assert "rules" not in attribute(model, mixed_task(model), "eap", quiet=True).settings


# ---- bad input


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("eap", {"rules": "relpp"}, "rules='relpp' is unknown; did you mean 'relp'"),
        ("eap", {"rules": HeldScale()}, "rules must be a name .* or a RuleSet; got HeldScale"),
        ("eap", {"rules": ["relp"]}, "got list"),
        ("exact", {"rules": "relp"}, "rules is no setting of method='exact'"),
        ("activation-patching", {"rules": "relp"}, "rules is no setting of method='activation-patching'"),
        ("relp", {"rules": "gim"}, "rules is no setting of method='relp'"),
        *((method, {"objective": "kl"}, "'kl' has a gradient of zero") for method in ("relp", "gim", "cp-lrp")),
        ("eap", {"rules": "attnlrp", "objective": "kl"}, "'kl' has a gradient of zero"),
        ("attnlrp", {"objective": "accuracy"}, "'accuracy' has no gradient"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_right_are_refused(method, settings, message):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match=message):
        attribute(model, mixed_task(model), method, quiet=True, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionFactors(temperature=0.0), "temperature=0.0"),
        (lambda: AttentionFactors(temperature=-2.0), "temperature=-2.0"),
        (lambda: AttentionFactors(temperature=float("nan")), "temperature=nan"),
        (lambda: Epsilon(-1e-6), "epsilon=-1e-06"),
        (lambda: Epsilon(float("nan")), "epsilon=nan"),
        (lambda: Gamma(-0.25), "gamma=-0.25"),
        (lambda: Gamma(0.25, -1e-9), "epsilon=-1e-09"),
        (lambda: RuleSet.of(HeldScale(), HeldScale()), "two rules for norm"),
        (lambda: RuleSet.of(Epsilon(), Gamma()), "two rules for linear"),
        (lambda: RuleSet.of("relp"), "must hold rules"),
        (lambda: RuleSet.of(HeldScale), "must hold rules"),
        (lambda: rule_set("relp").plus(Half(), Half()), "two rules for product"),
        (lambda: rule_set("relp").without("norms"), "operation='norms' is unknown; did you mean 'norm'"),
    ],
)
def test_settings_of_rules_that_cannot_be_right_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
