"""Rules put on a bridge by hooks: gradients against detach algebra in the transformers model, and what is left behind.

The reference runs the transformers module itself, without a bridge. Each operation that a rule is about is replaced
by an expression that plain autograd differentiates as the rule says: factors that a rule holds constant are detached.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad
from torch.overrides import TorchFunctionMode
from transformer_lens.hook_points import HookPoint

from attribution import RuleSet, applied, attribute, rule_set
from attribution.rules import AttentionFactors, Epsilon, Gamma, Half, HeldScale, Identity, pattern_held
from interp.errors import InputError
from tests.oracle import MODELS, TOLERANCE, error, mixed_task, model_of
from tests.tiny import mostly_slow, shared, stay_in_float64, tiny, tiny_module

TOKENS = torch.tensor([[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 32]])
WHOLE_ATTENTION = ("gptj", "opt")  # the bridge runs their attention in one piece

# parts of transformers modules, by how their paths end
QKV = ("q_proj", "k_proj", "v_proj", "c_attn", "query_key_value")
MLP_IN = ("mlp.up_proj", "mlp.fc_in", "fc1", "dense_h_to_4h", "mlp.c_fc")
MLP_OUT = ("mlp.down_proj", "mlp.fc_out", "fc2", "dense_4h_to_h", "mlp.c_proj")
ATTENTION_OUT = ("self_attn.o_proj", "attn.out_proj", "attention.dense", "attn.c_proj")

# rules, and what they mean in the algebra below
SETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gradient": ("gradient", {}),
    "relp": ("relp", {"norm": True, "act": True, "half": True}),
    "relp-ah": ("relp-ah", {"norm": True, "act": True, "half": True, "qkv": (0, 0, 1)}),
    "gim": ("gim", {"norm": True, "half": True, "qkv": (1 / 4, 1 / 4, 1 / 2), "temperature": 2.0}),
    "attnlrp": ("attnlrp", {"norm": True, "act": True, "half": True, "qkv": (1 / 4, 1 / 4, 1 / 2)}),
    "cp-lrp": ("cp-lrp", {"norm": True, "act": True, "half": True, "qkv": (0, 0, 1)}),
    "epsilon": (RuleSet.of(Epsilon(0.25)), {"epsilon": 0.25}),
    "cp-lrp and gamma": (
        rule_set("cp-lrp").plus(Gamma(0.5, 0.125)),
        {"norm": True, "act": True, "half": True, "qkv": (0, 0, 1), "gamma": 0.5, "epsilon": 0.125},
    ),
    "norms": (RuleSet.of(HeldScale()), {"norm": True}),
    "activations": (RuleSet.of(Identity()), {"act": True}),
    "products": (RuleSet.of(Half()), {"half": True}),
    "relp less norms, soft": (
        rule_set("relp").without("norm").plus(AttentionFactors(0.7, 0.6, 0.5, temperature=3.0)),
        {"act": True, "half": True, "qkv": (0.7, 0.6, 0.5), "temperature": 3.0},
    ),
}


# ---- the reference


def as_if(value, surrogate):
    """`value`, with the gradient of `surrogate`."""
    return surrogate + (value - surrogate).detach()


def part(x, factor):
    """`x`, with so much of its gradient."""
    return factor * x + ((1 - factor) * x).detach()


def norm(module, x, value):
    """A norm whose divisor is constant."""
    name = type(module).__name__
    centred = x if "RMS" in name else x - x.mean(-1, keepdim=True)
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    gain = 1 + module.weight if "Gemma" in name else module.weight
    scale = (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()
    return as_if(value, centred / scale * gain + (getattr(module, "bias", None) if "RMS" not in name else 0))


def linear(x, weight, bias, gamma, epsilon):
    """A linear layer with the gamma rule for inputs and outputs of any sign, stabilised (gamma = 0: epsilon rule)."""
    y, zero = F.linear(x, weight, bias), torch.zeros_like(x)
    above, below = torch.where(x >= 0, x, zero), torch.where(x < 0, x, zero)
    sides = []
    for same, other in ((torch.relu, lambda w: -(-w).relu()), (lambda w: -(-w).relu(), torch.relu)):
        side = above @ (weight + gamma * same(weight)).T + below @ (weight + gamma * other(weight)).T
        sides.append(side if bias is None else side + bias + gamma * same(bias))  # the bias is an input of one
    side = torch.where(y > 0, *sides)
    stabilised = side + epsilon * torch.where(side < 0, -1.0, 1.0).to(side)
    return as_if(y, side * (y / stabilised).detach())


class Algebra(TorchFunctionMode):
    """What is no module of its own: softmaxes, the product of gate and value, matrix products."""

    def __init__(self, temperature=None, half=False, gamma=0.0, epsilon=None):
        super().__init__()
        self.temperature, self.half, self.gamma, self.epsilon = temperature, half, gamma, epsilon
        self.gate = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        value, name = func(*args, **kwargs), getattr(func, "__name__", "")
        if name == "softmax" and self.temperature is not None:
            return as_if(value, (args[0] / self.temperature).softmax(-1) * self.temperature)
        if name in ("mul", "__mul__") and self.half and args[0] is self.gate:
            return part(value, 0.5)
        if self.epsilon is not None and func is F.linear:
            return linear(*args[:2], args[2] if len(args) > 2 else None, self.gamma, self.epsilon)
        if self.epsilon is not None and func is torch.addmm:  # GPT-2's projections
            return linear(args[1], args[2].T, args[0], self.gamma, self.epsilon)
        return value


def with_factors(projection, y, factors):
    """Queries, keys and values, as they come out of a projection, with parts of their gradients."""
    if projection in ("q_proj", "k_proj", "v_proj"):
        return part(y, factors["qkv".index(projection[0])])
    if projection == "c_attn":
        return torch.cat([part(x, f) for x, f in zip(y.chunk(3, -1), factors, strict=True)], -1)
    heads = y.unflatten(-1, (4, -1))  # GPT-NeoX: each head's query, key and value together
    return torch.cat([part(x, f) for x, f in zip(heads.chunk(3, -1), factors, strict=True)], -1).flatten(-2)


@functools.cache
def module_of(name):
    module = tiny_module(name).requires_grad_(False)
    if name == "mixtral":
        module.set_experts_implementation("eager")  # the default has no float64
    stay_in_float64(module)
    return module


class Reference:
    """One run of a transformers module under the algebra; `at` keeps tensors by the bridge's names."""

    def __init__(self, name, norm=False, act=False, qkv=None, **rest):
        self.norm, self.act, self.qkv, self.at = norm, act, qkv, {}
        self.any_rule = norm or act or qkv is not None or any(rest.values())
        self.mode = Algebra(**rest)
        module = module_of(name)
        handles = [
            part.register_forward_hook(functools.partial(self.hook, path)) for path, part in module.named_modules()
        ]
        try:
            with self.mode:
                self.logits = module(TOKENS).logits
        finally:
            for handle in handles:
                handle.remove()

    def hook(self, path, module, inputs, out):
        kind, last = type(module).__name__, path.rsplit(".", 1)[-1]
        block = "blocks." + next((word for word in path.split(".") if word.isdigit()), "")
        if last in ("wte", "embed_tokens", "embed_in"):
            out = out.detach().requires_grad_()
            self.at["embed.hook_out"] = out
        elif "Norm" in kind:
            if block == "blocks.":
                self.at["ln_final.hook_in"] = inputs[0]
            out = norm(module, inputs[0], out) if self.norm else out
        elif last in ("act", "act_fn", "activation_fn"):
            out = as_if(out, inputs[0] * (out / inputs[0]).detach()) if self.act else out
            self.mode.gate = out
        elif last in QKV:
            if last in ("q_proj", "k_proj", "v_proj"):
                self.at[f"{block}.attn.{last[0]}.hook_out"] = out
            out = out if self.qkv is None else with_factors(last, out, self.qkv)
        elif "Router" in kind and self.any_rule:
            out = tuple(x.detach() for x in out)
        elif last in ("self_attn", "attn", "attention"):
            self.at[f"{block}.attn.hook_out"] = out[0]
        elif last in ("mlp", "fc2"):
            self.at[f"{block}.mlp.hook_out"] = out[0] if isinstance(out, tuple) else out
        if path.endswith(MLP_IN):
            self.at[f"{block}.mlp.in.hook_out"] = out
        if path.endswith(MLP_OUT):
            self.at[f"{block}.mlp.out.hook_in"] = inputs[0]
        if path.endswith(ATTENTION_OUT):
            self.at[f"{block}.attn.o.hook_in"] = inputs[0]
        if last == "lm_head":
            self.at["unembed.hook_in"] = inputs[0]
        return out


def explained(logits):
    """A number that depends on all prompts and on several positions."""
    return logits[0, -1, 7] - 2 * logits[1, -1, 3] + 0.5 * logits[1, 2, 11]


@functools.cache
def reference(name, rules):
    """The explained logits and, by hook point, their gradient."""
    found = Reference(name, **SETS[rules][1])
    at = found.at
    return found.logits.detach(), dict(zip(at, grad(explained(found.logits), list(at.values())), strict=True))


def possible(rules, names=MODELS):
    """Models whose bridge can take the rules."""
    return [name for name in names if not (name in WHOLE_ATTENTION and SETS[rules][1].get("temperature"))]


# ---- the bridge


def leaf(x, hook):
    return x.detach().requires_grad_()


@functools.cache
def plain_logits(name):
    """What the model gives before any rule was put on it."""
    return model_of(name)(TOKENS)


def gradients(model, points=("embed.hook_out",), plain=None):
    """By hook point: the gradient of what is explained, in a run whose logits are bitwise `plain`, where given."""
    kept = {}

    def keep(x, hook):
        kept[hook.name] = x
        return x

    hooks = [("embed.hook_out", leaf), *((point, keep) for point in points)]
    logits = model.run_with_hooks(TOKENS, fwd_hooks=hooks)
    assert plain is None or torch.equal(logits, plain)
    value = explained(logits)
    return dict(zip(points, grad(value, [kept[point] for point in points], allow_unused=True), strict=True))


def check(found, expected):
    """Gradients at some hook points are those expected, whether the bridge shows heads apart or not."""
    for point, ours in found.items():
        theirs = expected[point]
        if float(theirs.abs().max()) == 0:
            assert ours is None or not ours.any(), point
        else:
            assert ours is not None, point
            assert error(ours.reshape(theirs.shape), theirs) < TOLERANCE, point


def hooks_on(model):
    """All hooks of a model: by module, how many of which kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "fwd_hooks", "bwd_hooks")
    return {path: [len(getattr(part, kind, ())) for kind in kinds] for path, part in model.named_modules()}


# ---- gradients


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_detach_algebra_and_logits_stay_bitwise(name, rules):
    if name not in possible(rules):
        pytest.skip("no access to the softmax")
    model = model_of(name)
    logits, expected = reference(name, rules)
    ends = ["embed.hook_out", "attn.hook_out"] + ["mlp.hook_out"] * (name != "opt")
    if "linear" not in rule_set(SETS[rules][0]).by_operation:
        ends += ["mlp.out.hook_in", "unembed.hook_in"]
    points = [point for point in expected if point.endswith(tuple(ends))]  # the others have a test of their own
    plain = plain_logits(name)
    assert error(plain, logits) < TOLERANCE
    with applied(model, SETS[rules][0]) as fitted:
        assert isinstance(fitted, RuleSet)
        assert torch.equal(model(TOKENS), plain)
        check(gradients(model, points, plain), expected)
    assert torch.equal(model(TOKENS), plain)


@pytest.mark.parametrize("rules", ["gradient", "relp", "gim", "epsilon"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_at_what_rules_read_are_whole(name, rules):
    # the tensors from which rules take their own gradient: a user who looks at them sees all of it
    if name not in possible(rules):
        pytest.skip("no access to the softmax")
    expected = reference(name, rules)[1]
    points = [p for p in expected if p.endswith(("ln_final.hook_in", "mlp.in.hook_out", "out.hook_in", "o.hook_in"))]
    points += ["unembed.hook_in"]
    with applied(model_of(name), SETS[rules][0]):
        check(gradients(model_of(name), points), expected)


@pytest.mark.parametrize("rules", ["relp", "attnlrp", "cp-lrp"])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("gpt2", "gpt_neox", "gpt_neox_sequential")])
def test_relevance_of_queries_keys_and_values_counts_their_factors(name, rules):
    expected = reference(name, rules)[1]
    points = [p for p in expected if p.endswith(("attn.q.hook_out", "attn.k.hook_out", "attn.v.hook_out"))]
    assert len(points) == 9
    with applied(model_of(name), rules):
        for _ in range(2):  # a second run in the same context
            check(gradients(model_of(name), points), expected)


@pytest.mark.parametrize("rules", ["gradient", "relp", "gim", "epsilon"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_backward_hooks_see_the_same_gradients(name, rules):
    model, expected, seen = model_of(name), reference(name, rules)[1], {}

    def see(gradient, hook):
        seen[hook.name] = gradient

    points = ["ln_final.hook_in", "unembed.hook_in"]
    points += [p for p in expected if p.endswith(("mlp.in.hook_out", "mlp.out.hook_in", "mlp.hook_out"))]
    hooks = {"fwd_hooks": [("embed.hook_out", leaf)], "bwd_hooks": [(p, see) for p in points]}
    with applied(model, SETS[rules][0]), model.hooks(**hooks):
        explained(model(TOKENS)).backward()
    assert seen.keys() == set(points)
    check(seen, expected)


def test_relevance_is_conserved_where_nothing_has_a_bias():
    # CP-LRP on a model without biases: activation times gradient sums to the logit at every layer
    model = model_of("mistral")
    points = ["embed.hook_out", *(f"blocks.{i}.hook_in" for i in range(3)), "ln_final.hook_in", "unembed.hook_in"]
    kept = {}

    def keep(x, hook):
        kept[hook.name] = x
        return x

    with applied(model, "cp-lrp"):
        hooks = [("embed.hook_out", leaf), *((point, keep) for point in points)]
        value = explained(model.run_with_hooks(TOKENS, fwd_hooks=hooks))
        found = grad(value, [kept[point] for point in points])
    for point, gradient in zip(points, found, strict=True):
        assert float((kept[point] * gradient).sum().detach()) == pytest.approx(float(value.detach()), abs=1e-10), point


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "opt"])
def test_logits_stay_bitwise_in_other_dtypes(name, dtype):
    model = shared(name, dtype)
    plain = model(TOKENS)
    for rules in ("relp", "attnlrp"):
        with applied(model, rules):
            assert torch.equal(model(TOKENS), plain)
            assert gradients(model)["embed.hook_out"].isfinite().all()


def test_epsilon_is_as_fine_as_the_model():
    # 0.3 has no exact float32
    model = model_of("llama")
    found = Reference("llama", epsilon=0.3)
    expected = grad(explained(found.logits), found.at["embed.hook_out"])[0]
    with applied(model, RuleSet.of(Epsilon(0.3))):
        check(gradients(model), {"embed.hook_out": expected})


@functools.cache
def rounded(name):
    """A model in float32 that has the weights of the one in half precision."""
    model = tiny(name, torch.float32)
    model.load_state_dict(shared(name, torch.bfloat16).state_dict())
    return model


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.5, 0.1)])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_linear_rules_work_in_half_precision(name, rule):
    found = []
    for model in (rounded(name), shared(name, torch.bfloat16)):
        with applied(model, RuleSet.of(HeldScale(), rule)):
            found.append(gradients(model)["embed.hook_out"].float().flatten())
    assert torch.cosine_similarity(*found, dim=0) > 0.9


def test_prompts_in_a_batch_do_not_see_each_other():
    model, kept = model_of("qwen3"), []

    def keep(x, hook):
        kept.append(leaf(x, hook))
        return kept[-1]

    with applied(model, "gim"):
        together = gradients(model)["embed.hook_out"]
        first, second = (model.run_with_hooks(row[None], fwd_hooks=[("embed.hook_out", keep)])[0] for row in TOKENS)
        alone = grad(explained(torch.stack([first, second])), kept)  # both runs are still open in one context
    assert error(torch.cat(alone), together) < TOLERANCE


# ---- what is left behind


@pytest.mark.parametrize("stop", [None, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", mostly_slow(["llama", "gpt2", "opt", "mixtral"], {"llama", "mixtral"}.__contains__))
def test_no_hook_is_left_however_the_context_ends(name, stop):
    model = model_of(name)
    expected = gradients(model)["embed.hook_out"]
    before = hooks_on(model)  # behind a first run, in which the bridge puts on hooks of its own
    flags = [p.requires_grad for p in model.parameters()]

    def interrupt(x, hook):
        raise stop

    def work():
        with applied(model, "relp"):
            assert hooks_on(model) != before
            changed = gradients(model)["embed.hook_out"]
            assert error(changed, expected) > 1e-3  # the rules do something
            if stop is not None:
                model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_in", interrupt)])
        return changed

    if stop is None:
        assert torch.equal(work(), work())
    else:
        with pytest.raises(stop):
            work()
    assert hooks_on(model) == before
    assert torch.equal(gradients(model)["embed.hook_out"], expected)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_a_run_that_breaks_off_does_not_disturb_the_next_in_the_same_context():
    model = model_of("llama")

    def interrupt(x, hook):
        raise KeyboardInterrupt

    with applied(model, "relp"):
        for point in ("blocks.1.mlp.out.hook_in", "blocks.1.ln2.hook_in", "blocks.2.attn.hook_pattern"):
            with pytest.raises(KeyboardInterrupt):
                model.run_with_hooks(TOKENS[:1], fwd_hooks=[(point, interrupt)])
        check(gradients(model), reference("llama", "relp")[1])


def test_a_context_that_cannot_be_entered_leaves_nothing():
    model = model_of("gptj")
    gradients(model)
    before = hooks_on(model)
    for rules in ("gim", RuleSet.of(AttentionFactors(temperature=0.5)), "relpp", 3):
        with pytest.raises(InputError), applied(model, rules):
            raise AssertionError("entered")
        assert hooks_on(model) == before


def test_other_models_and_later_ones_keep_their_gradients():
    model, twin = model_of("llama"), tiny("llama", seed=1)
    plain, expected = gradients(twin), gradients(twin, ["unembed.hook_in"])
    with applied(model, "attnlrp"):
        assert torch.equal(gradients(twin)["embed.hook_out"], plain["embed.hook_out"])
        later = tiny("llama", seed=1)  # made while rules are on
        assert torch.equal(gradients(later)["embed.hook_out"], plain["embed.hook_out"])
        with applied(twin, "relp"):  # each under its own rules
            check(gradients(model), reference("llama", "attnlrp")[1])
        assert torch.equal(gradients(twin, ["unembed.hook_in"])["unembed.hook_in"], expected["unembed.hook_in"])


def test_parameters_keep_what_they_have():
    model = tiny("gpt2")
    chosen = next(iter(model.parameters())).requires_grad_(True)
    chosen.grad = torch.ones_like(chosen)
    with applied(model, "relp"):
        gradients(model)
    assert chosen.requires_grad
    assert torch.equal(chosen.grad, torch.ones_like(chosen))
    assert sum(p.requires_grad for p in model.parameters()) == 1


# ---- nesting, and hooks of the model


def test_a_context_in_a_context_is_refused_and_the_outer_one_stays():
    model = model_of("llama")
    before = hooks_on(model)
    with applied(model, "relp"):
        with pytest.raises(InputError, match="model carries a hook"), applied(model, "gim"):
            raise AssertionError("entered")
        check(gradients(model), reference("llama", "relp")[1])
    assert hooks_on(model) == before


def test_hooks_of_the_model_are_refused_and_stay():
    model = tiny("llama")
    model.add_hook("blocks.1.hook_in", leaf)
    before = hooks_on(model)
    with pytest.raises(InputError, match=r"model carries a hook at blocks\.1\.hook_in"), applied(model, "relp"):
        raise AssertionError("entered")
    assert hooks_on(model) == before


def test_hooks_put_on_inside_stay_and_ours_go():
    model = tiny("llama")
    with applied(model, "relp"):
        model.add_hook("blocks.1.ln1.hook_in", leaf)
    own = {part for part in model.modules() if isinstance(part, HookPoint) and part.fwd_hooks}
    assert own == {model.blocks[1].ln1.hook_in}
    assert len(model.blocks[1].ln1.hook_in.fwd_hooks) == 1
    model.reset_hooks()
    with applied(model, "relp"):
        model.reset_hooks()  # takes ours off too; leaving must not mind
    assert not any(part.fwd_hooks for part in model.modules() if isinstance(part, HookPoint))


@pytest.mark.parametrize("name", WHOLE_ATTENTION)
def test_a_temperature_is_refused_where_the_softmax_cannot_be_reached(name):
    message = "take a softmax temperature, and the attention of .* gives no access to its softmax"
    with pytest.raises(InputError, match=message) as caught, applied(model_of(name), "gim"):
        raise AssertionError("entered")
    assert "rules='gim'" in str(caught.value)
    assert "\n" not in str(caught.value)
    with applied(model_of(name), rule_set("gim").plus(pattern_held())):  # the temperature was all that was wrong
        gradients(model_of(name))


def test_the_fitted_rules_are_yielded():
    with applied(model_of("gpt2"), "relp") as rules:
        assert rules.rules == (HeldScale(), Identity())  # no gate, no routing
    with applied(model_of("mixtral"), RuleSet.of(Half())) as rules:
        assert "routing" in rules.by_operation
    with pytest.raises(InputError, match="rules='rlp' is unknown"), applied(model_of("gpt2"), "rlp"):
        raise AssertionError("entered")
    with pytest.raises(InputError, match=r"must be a name .* or a RuleSet"), applied(model_of("gpt2"), Half()):
        raise AssertionError("entered")


def test_engines_refuse_to_run_inside():
    # they run the weights themselves: rules would be taken twice, or not at all
    model = model_of("gpt2")
    task = mixed_task(model)
    with applied(model, "relp"), pytest.raises(InputError, match="model carries a hook"):
        attribute(model, task, "eap", quiet=True)
