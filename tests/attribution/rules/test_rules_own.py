"""Rules of a user's own: of a foreign class they act like ours where they do the same, and act or are refused else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from attribution import RuleSet, attribute, relevance
from attribution.components import component_scores
from attribution.rules import (
    AttentionFactors,
    Epsilon,
    Gamma,
    HeldGate,
    HeldRouting,
    HeldScale,
    Identity,
    LinearRule,
    Rule,
    pattern_held,
)
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.backward import replace_gradient
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import tiny, tiny_task

OURS = {
    "norm": HeldScale(),
    "activation": Identity(),
    "product": HeldGate(),
    "attention": AttentionFactors(0.3, 1.7, -2.0),
    "linear": Gamma(0.4, 1e-3),
    "routing": HeldRouting(),
}


def foreign(rule, **more):
    """A rule of no class of ours that does what `rule` does, and states nothing about itself."""
    told = {"operation": rule.operation, "__call__": lambda self, *given: rule(*given), **more}
    return dataclass(frozen=True)(type(f"My{type(rule).__name__}", (Rule,), told))()


def scores(name, *rules, method="eap", **settings):
    model = oracle.model_of(name)
    return attribute(model, mixed_task(model), method, rules=RuleSet.of(*rules), quiet=True, **settings).values


# ---- equal to ours


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("gpt2", "norm"),
        ("gemma2", "norm"),
        ("gpt2", "activation"),
        ("llama", "product"),
        ("gemma2", "attention"),
        ("gpt2", "linear"),
        ("qwen3", "linear"),
        ("mixtral", "routing"),
        ("mixtral", "linear"),
    ],
)
def test_a_foreign_rule_that_does_what_ours_does_gives_its_scores(name, operation):
    ours, plain = scores(name, OURS[operation]), scores(name)
    assert error(scores(name, foreign(OURS[operation])), ours) < TOLERANCE
    assert error(plain, ours) > 1e-2


def test_all_foreign_rules_together_along_a_path():
    rules = [OURS[operation] for operation in ("norm", "activation", "product", "linear", "attention")]
    ours = scores("gemma2", *rules, method="eap-ig", steps=3)
    assert error(scores("gemma2", *map(foreign, rules), method="eap-ig", steps=3), ours) < TOLERANCE


def test_a_foreign_rule_with_a_temperature():
    ours = AttentionFactors(0.25, 0.25, 0.5, temperature=5.0)
    theirs = foreign(ours, temperature=5.0)
    assert error(scores("llama", theirs), scores("llama", ours)) < TOLERANCE
    assert error(scores("llama", foreign(ours)), scores("llama", ours)) > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_foreign_rules_in_node_scores_and_in_a_models_own_gradients(name):
    model = oracle.model_of(name)
    ours = [OURS[operation] for operation in ("norm", "activation", "attention", "linear")]
    theirs = [foreign(rule) for rule in ours]
    at = ["blocks.*.hook_in", "blocks.*.attn.hook_rot_q", "blocks.*.attn.hook_pattern"]
    at = at if name == "gemma2" else [at[0], at[2]]
    found = [
        relevance(model, [[3, 5, 8, 2, 9]], rules=RuleSet.of(*r), at=at, quiet=True).values for r in (ours, theirs)
    ]
    for hook, value in found[0].items():
        assert error(found[1][hook], value) < TOLERANCE
        assert float(value.abs().max()) > 0
    nodes = [
        component_scores(model, mixed_task(model), rules=RuleSet.of(*r), quiet=True).values for r in (ours, theirs)
    ]
    for kind, value in nodes[0].items():
        assert error(nodes[1][kind], value) < TOLERANCE


# ---- other than ours


@dataclass(frozen=True)
class PlainNorm(HeldScale):
    """A sub-class of a rule that holds the divisor, which does not."""

    def __call__(self, norm, x):
        return norm(x)


@dataclass(frozen=True)
class Lent(Rule):
    """A norm whose gradient is that of another one."""

    factor: float
    operation = "norm"

    def __call__(self, norm, x):
        return replace_gradient(norm(x), self.factor * HeldScale()(norm, x))


@dataclass(frozen=True)
class GammaPull(Epsilon):
    def pull(self, *given):
        return Gamma(0.4, 1e-3).pull(*given)


@dataclass(frozen=True)
class GammaCall(Epsilon):
    def __call__(self, affine, x):
        return Gamma(0.4, 1e-3)(affine, x)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_sub_class_with_a_call_of_its_own_is_asked_that(name):
    assert error(scores(name, PlainNorm()), scores(name)) < TOLERANCE
    assert error(scores(name, HeldScale()), scores(name)) > 1e-2
    for rule in (GammaPull(), GammaCall()):
        assert error(scores(name, rule), scores(name, Gamma(0.4, 1e-3))) < TOLERANCE


def test_a_norm_rule_that_differs_acts_on_every_target():
    """At each target a factor of 1/2; behind it as many more as there are norms on the way to the logits."""
    model = oracle.model_of("llama")
    last = anatomy_of(model).n_layers - 1
    own, halved = scores("llama", HeldScale(), pattern_held()), scores("llama", Lent(0.5), pattern_held())
    graph = attribute(model, mixed_task(model), quiet=True).graph
    assert error(halved[:, -1], 0.5 * own[:, -1]) < TOLERANCE
    # the last MLP is read by the final norm alone, behind its own
    mlp = graph.mlp_target(last)
    assert error(halved[:, mlp], 0.25 * own[:, mlp]) < TOLERANCE
    nothing = scores("llama", Lent(0.0))
    assert float(nothing.abs().max()) == 0 < float(own.abs().max())


def test_a_norm_rule_beside_a_linear_rule_takes_its_gradient():
    assert error(scores("qwen3", PlainNorm(), Gamma(0.4, 1e-3)), scores("qwen3", Gamma(0.4, 1e-3))) < TOLERANCE
    ours = scores("qwen3", HeldScale(), Gamma(0.4, 1e-3))
    assert error(scores("qwen3", foreign(HeldScale()), foreign(Gamma(0.4, 1e-3))), ours) < TOLERANCE


@dataclass(frozen=True)
class Coupled(Rule):
    """The factor on the gradient of queries is their own size."""

    operation = "attention"

    def __call__(self, q, k, v):
        return replace_gradient(q, q * q.detach().abs()), k, v


def test_an_attention_rule_that_is_more_than_constants_acts_in_the_engines_and_is_refused_as_hooks():
    assert error(scores("llama", Coupled()), scores("llama")) > 1e-3
    with pytest.raises(InputError, match="does more than multiply"):
        relevance(oracle.model_of("llama"), [[3, 5, 8]], rules=RuleSet.of(Coupled()), quiet=True)


@dataclass(frozen=True)
class Halved(Rule):
    operation = "product"

    def __call__(self, a, b):
        return 0.5 * a * b


@dataclass(frozen=True)
class Short(Rule):
    operation = "activation"

    def __call__(self, x):
        return x


@dataclass(frozen=True)
class Mute(Rule):
    operation = "norm"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Halved, "changes what the product gives, and a rule must change gradients alone"),
        (Short, r"must be callable with \(function, x\)"),
        (Mute, r"has no __call__\(norm, x\)"),
    ],
)
def test_rules_that_cannot_act_are_refused(rule, message):
    model = oracle.model_of("llama")
    with pytest.raises(InputError, match=message):
        scores("llama", rule())
    with pytest.raises(InputError, match=message):
        relevance(model, [[3, 5, 8]], rules=RuleSet.of(rule()), quiet=True)


def test_a_linear_rule_without_a_pull_cannot_be_made():
    with pytest.raises(TypeError, match="pull"):
        type("Lazy", (LinearRule,), {})()


@dataclass(frozen=True)
class Wide(Rule):
    operation = "product"

    def __call__(self, a, b):
        return a.double() * b.double()


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_a_rule_in_another_dtype_is_refused(name):
    model = tiny(name, torch.float32)
    with pytest.raises(InputError, match=r"Wide\(\) gives torch.float64 for the product of a model in torch.float32"):
        attribute(model, tiny_task(model), "eap", rules=RuleSet.of(Wide()), quiet=True)
