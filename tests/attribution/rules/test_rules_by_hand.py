"""Every backward rule on numbers small enough to work out on paper: all expectations are literals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attribution import RuleSet, rule_set
from attribution.rules import AttentionFactors, Epsilon, Gamma, Half, HeldRouting, HeldScale, Identity, pattern_held
from interp.errors import InputError
from interp.kernels.backward import PLAIN
from interp.kernels.forward import attend, softmax
from interp.mlps import Dense, Gated, Mixture
from interp.parts import Affine, Norm

LOG3 = math.log(3)
HALF_PRECISION = [torch.bfloat16, torch.float16]


def leaf(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def gradient_of(y, x, at_output):
    (gradient,) = torch.autograd.grad(y, x, torch.tensor(at_output, dtype=y.dtype))
    return gradient


def same(ours, expected):
    assert torch.allclose(ours, torch.tensor(expected, dtype=ours.dtype), rtol=1e-12, atol=1e-15), ours.tolist()


def norm_of(kind, weight, bias=None, eps=0.0, offset=0.0):
    module = nn.Module()
    for name, values in (("weight", weight), ("bias", bias)):
        parameter = None if values is None else nn.Parameter(torch.tensor(values, dtype=torch.float64))
        module.register_parameter(name, parameter)
    return Norm(module, kind, eps, offset)


def linear(weight, bias=None):
    module = nn.Linear(len(weight[0]), len(weight), bias is not None, dtype=torch.float64)
    module.weight.data = torch.tensor(weight, dtype=torch.float64)
    if bias is not None:
        module.bias.data = torch.tensor(bias, dtype=torch.float64)
    return Affine(module)


def bent(x):
    """x^2 + 4 x: its slope is 2 x + 4, and bent(x) / x is x + 4."""
    return x * x + 4 * x


# ---- norms


def test_a_held_rms_norm():
    # mean square of (1, 7) is 25, r = 5: y = (10, 5) * (1, 7) / 5 = (2, 7); gradient (10, 5) * (3, 1) / 5 = (6, 1);
    # relevance 1 * 6 + 7 * 1 = 13 = 2 * 3 + 7 * 1
    x, norm = leaf([1.0, 7.0]), norm_of("rms", [10.0, 5.0])
    y = HeldScale()(norm, x)
    same(y, [2.0, 7.0])
    same(gradient_of(y, x, [3.0, 1.0]), [6.0, 1.0])
    # without the rule also - x (y . g) / (2 r^2) = - (1, 7) * 13 / 50
    same(gradient_of(PLAIN.norm(norm, x), x, [3.0, 1.0]), [5.74, -0.82])


@pytest.mark.parametrize("dtype", HALF_PRECISION)
def test_a_held_rms_norm_in_half_precision(dtype):
    x = leaf([1.0, 7.0], dtype)
    y = HeldScale()(norm_of("rms", [10.0, 5.0]), x)
    assert y.dtype == dtype
    assert gradient_of(y, x, [3.0, 1.0]).tolist() == [6.0, 1.0]


def test_a_held_norm_counts_eps_and_gemmas_offset():
    # r = sqrt(25 + 11) = 6; the gain is 1 + (5, 11) = (6, 12): y = (1, 14), gradient (6, 12) / 6
    x = leaf([1.0, 7.0])
    y = HeldScale()(norm_of("rms", [5.0, 11.0], eps=11.0, offset=1.0), x)
    same(y, [1.0, 14.0])
    same(gradient_of(y, x, [1.0, 1.0]), [1.0, 2.0])


def test_a_held_norm_without_a_gain():
    x = leaf([1.0, 7.0])
    same(gradient_of(HeldScale()(norm_of("rms", None), x), x, [10.0, 5.0]), [2.0, 1.0])


def test_a_held_layer_norm():
    # centred (-3, 3), r = 3: y = (3, 6) * (-1, 1) + (1, 1) = (-2, 7); (3, 6) * (4, 1) / 3 = (4, 2), less its mean
    # 3: (1, -1); relevance 1 - 7 = -6 = (-2 - 1) * 4 + (7 - 1) * 1: the mean is no constant, the bias gets its own
    x = leaf([1.0, 7.0])
    y = HeldScale()(norm_of("layer", [3.0, 6.0], [1.0, 1.0]), x)
    same(y, [-2.0, 7.0])
    same(gradient_of(y, x, [4.0, 1.0]), [1.0, -1.0])


# ---- activations


def test_the_identity_rule():
    # bent(x) / x = x + 4, and 4 in the limit at zero; tangents would be (6, -4, 4, 8)
    x = leaf([1.0, -4.0, 0.0, 2.0])
    y = Identity()(bent, x)
    same(y, [5.0, 0.0, 0.0, 12.0])
    same(gradient_of(y, x, [1.0, 1.0, 1.0, 10.0]), [5.0, 0.0, 4.0, 60.0])


def test_the_identity_rule_on_relu_is_its_slope():
    x = leaf([-2.0, 3.0, 0.0])
    same(gradient_of(Identity()(torch.relu, x), x, [5.0, 5.0, 5.0]), [0.0, 5.0, 0.0])


@pytest.mark.parametrize(
    ("function", "limit"),
    [(nn.functional.silu, 0.5), (nn.functional.gelu, 0.5), (torch.tanh, 1.0), (bent, 4.0)],
)
@pytest.mark.parametrize(
    ("dtype", "tiny"),
    [
        (torch.float64, [0.0, -0.0, 5e-324, -1e-310, 1e-300, 1e-20, -1e-17]),
        (torch.float32, [0.0, -0.0, 1e-45, -1e-40, 1e-37, 1e-20, -1e-9]),
        (torch.bfloat16, [0.0, -0.0, 1e-40, -1e-39, 1e-37, 1e-20, -1e-9]),
        (torch.float16, [0.0, -0.0, 6e-8, -6e-8, 1.2e-7, 1e-6, -1e-5]),  # 6e-8 is the smallest that there is
    ],
)
def test_near_zero_the_identity_rule_is_the_slope_at_zero(function, limit, dtype, tiny):
    x = leaf(tiny, dtype)
    gradient = gradient_of(Identity()(function, x), x, [1.0] * 7)
    assert gradient.dtype == dtype
    assert gradient.tolist() == pytest.approx([limit] * 7, rel=2e-5)


def test_in_half_precision_the_ratio_is_taken_in_single():
    # 0.1 is 0.10009765625 in bfloat16; silu(x) / x = 1 / (1 + exp(-x)) = 0.52500, whose nearest bfloat16 is
    # 134 / 256; the ratio of the rounded silu (0.05249) would be 0.5244 and could round elsewhere
    x = leaf([0.1, -20.0, 3.0], torch.bfloat16)
    gradient = gradient_of(Identity()(nn.functional.silu, x), x, [1.0, 1.0, 1.0]).tolist()
    assert gradient[0] == 0.5234375
    assert gradient[1] == pytest.approx(2.0611536e-9, rel=4e-3)  # 1 / (1 + exp(20))
    assert gradient[2] == pytest.approx(0.9525741, rel=4e-3)


def test_far_below_zero_activations_pass_nothing_and_no_nan():
    x = leaf([-1e4, -80.0])
    for function in (nn.functional.gelu, nn.functional.silu):
        gradient = gradient_of(Identity()(function, x), x, [1.0, 1.0])
        assert gradient.abs().max() < 1e-30


# ---- products


def test_the_half_rule():
    # y = 3 * 4; gradients 2 * 4 / 2 and 2 * 3 / 2; relevance 12 each, 24 = 12 * 2 together
    a, b = leaf(3.0), leaf(4.0)
    y = Half()(a, b)
    assert float(y.detach()) == 12.0
    assert [float(g) for g in torch.autograd.grad(y, (a, b), torch.tensor(2.0, dtype=torch.float64))] == [4.0, 3.0]


def test_a_square_is_a_product_too():
    x = leaf([3.0])
    same(gradient_of(Half()(x, x), x, [1.0]), [3.0])


# ---- whole MLPs

IDENTITY, HALF = RuleSet.of(Identity()), RuleSet.of(Half())


def test_two_layers_under_the_identity_rule():
    # up: (1 + 2, 1 - 2) = (3, -1); bent: (21, -3); down: 21 - 6 = 15. Back: (1, 2), times (7, 3): (7, 6), through
    # up: (13, 1). Relevance 13 + 2 = 15. Tangents (10, 2) would give (10, 4), so (14, 6)
    x = leaf([1.0, 2.0])
    mlp = Dense(linear([[1.0, 1.0], [1.0, -1.0]]), linear([[1.0, 2.0]]), bent)
    same(mlp(x, IDENTITY), [15.0])
    same(gradient_of(mlp(x, IDENTITY), x, [1.0]), [13.0, 1.0])
    same(gradient_of(mlp(x, rule_set("gradient")), x, [1.0]), [14.0, 6.0])
    same(gradient_of(mlp(x), x, [1.0]), [14.0, 6.0])


def test_norm_and_two_layers():
    # norm: (1, 7) -> (2, 7); up: (9, -5); bent: (117, 5); down: 127. Back: (1, 2), times (13, -1): (13, -2), through
    # up: (11, 15), times (10, 5) / 5: (22, 15). Relevance 22 + 105 = 127
    x, rules = leaf([1.0, 7.0]), rule_set("cp-lrp")
    mlp = Dense(linear([[1.0, 1.0], [1.0, -1.0]]), linear([[1.0, 2.0]]), bent)
    y = mlp(rules.norm(norm_of("rms", [10.0, 5.0]), x), rules)
    same(y, [127.0])
    same(gradient_of(y, x, [1.0]), [22.0, 15.0])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # gate 4, up 5, bent 32, hidden 160 = y; halves: 5 / 2 to the activation, 32 / 2 to up; bent(4) / 4 = 8:
        # gate gets 20, and (20, 20) + 16 * (2, -1); relevance 3 * 52 + 4 = 160
        ("relp", [52.0, 4.0]),
        ("attnlrp", [52.0, 4.0]),
        # GIM keeps the tangent, 2 * 4 + 4 = 12: gate gets 30
        ("gim", [62.0, 14.0]),
        (HALF, [62.0, 14.0]),
        # identity alone: gate gets 5 * 8 = 40, up 32
        (IDENTITY, [104.0, 8.0]),
        # gate gets 5 * 12 = 60, up 32
        ("gradient", [124.0, 28.0]),
    ],
)
def test_a_gated_mlp(rules, expected):
    x = leaf([3.0, 1.0])
    mlp = Gated(linear([[1.0, 1.0]]), linear([[2.0, -1.0]]), linear([[1.0]]), bent)
    y = mlp(x, rule_set(rules))
    same(y, [160.0])
    same(gradient_of(y, x, [1.0]), expected)


# ---- attention


def test_the_factors_of_attention():
    q, k, v = leaf(2.0), leaf(3.0), leaf(5.0)
    scaled = AttentionFactors(0.25, 0.5, 2.0)(q, k, v)
    assert [float(x.detach()) for x in scaled] == [2.0, 3.0, 5.0]
    gradients = torch.autograd.grad(scaled[0] * scaled[1] + scaled[2], (q, k, v))
    assert [float(g) for g in gradients] == [0.75, 1.0, 2.0]  # 3 / 4, 2 / 2, 2


def test_the_softmax_at_a_temperature():
    # p = (1, 9) / 10, and (1, 3) / 4 at temperature 2: g = (8, 0) has the mean 2 under it, (6 / 4, -2 * 3 / 4);
    # its own Jacobian gives 0.1 * (8 - 0.8) = 0.72. No division by the temperature
    scores = leaf([0.0, 2 * LOG3])
    for temperature, expected in ((2.0, [1.5, -1.5]), (1.0, [0.72, -0.72]), (None, [0.72, -0.72])):
        pattern = softmax(scores, temperature)
        same(pattern, [0.1, 0.9])
        same(gradient_of(pattern, scores, [8.0, 0.0]), expected)


@pytest.mark.parametrize(
    ("rules", "queries", "keys", "values"),
    [
        # the second query sees keys (0, 2 log 3), values (10, 0): pattern (0.1, 0.9), output 1. Values get the
        # pattern; the pattern gets (10, 0), its scores (0.1 * 9, 0.9 * -1), keys that times the query 1, the query
        # -0.9 * 2 log 3
        ("gradient", [0.0, -1.8 * LOG3], [0.9, -0.9], [0.1, 0.9]),
        ("relp", [0.0, -1.8 * LOG3], [0.9, -0.9], [0.1, 0.9]),
        ("cp-lrp", [0.0, 0.0], [0.0, 0.0], [0.1, 0.9]),
        ("relp-ah", [0.0, 0.0], [0.0, 0.0], [0.1, 0.9]),
        ("attnlrp", [0.0, -0.45 * LOG3], [0.225, -0.225], [0.05, 0.45]),
        # at temperature 2 (0.25 * (10 - 2.5), 0.75 * -2.5) = (1.875, -1.875); a quarter; values as above
        ("gim", [0.0, -0.9375 * LOG3], [0.46875, -0.46875], [0.05, 0.45]),
        (RuleSet.of(AttentionFactors(temperature=2.0)), [0.0, -3.75 * LOG3], [1.875, -1.875], [0.1, 0.9]),
        (RuleSet.of(pattern_held()), [0.0, 0.0], [0.0, 0.0], [0.1, 0.9]),
    ],
    ids=repr,
)
def test_attention_of_two_positions(rules, queries, keys, values):
    block = SimpleNamespace(q_norm=None, k_norm=None, scale=1.0, softcap=None, window=None)
    frame = SimpleNamespace(
        anatomy=SimpleNamespace(blocks=[block], rotary=None),
        backward=rule_set(rules),
        kv_of_head=torch.tensor([0]),
        keys_values=lambda *of: None,
        turn=lambda layer, q, k: (q, k),
        masks={None: None},
    )
    q, k, v = (leaf(x) for x in ([3.0, 1.0], [0.0, 2 * LOG3], [10.0, 0.0]))
    z = attend(frame, 0, *(x.view(1, 2, 1, 1) for x in (q, k, v)))[0, 1, 0]
    same(z, [1.0])
    gradients = torch.autograd.grad(z, (q, k, v), torch.ones_like(z), allow_unused=True, materialize_grads=True)
    for gradient, expected in zip(gradients, (queries, keys, values), strict=True):
        same(gradient, expected)


# ---- mixtures


class Routed(nn.Module):
    """Two experts on one number: 3 goes to them with weights (3, 1) / 4; they give x^2 and 2 * (2 x * x)."""

    def __init__(self, shared=0.0):
        super().__init__()
        self.shared = shared
        self.experts = nn.Module()
        self.experts.act_fn = nn.Identity()
        self.experts.gate_up_proj = nn.Parameter(torch.tensor([[[1.0], [1.0]], [[2.0], [1.0]]], dtype=torch.float64))
        self.experts.down_proj = nn.Parameter(torch.tensor([[[1.0]], [[2.0]]], dtype=torch.float64))

    def gate(self, rows):
        weights = torch.cat((rows, torch.ones_like(rows)), 1) / (rows + 1)
        return rows, weights, torch.tensor([[0, 1]]).expand(len(rows), 2)

    def forward(self, x):
        weights = self.gate(x.flatten(0, 1))[1].view(*x.shape[:2], 2)
        return weights[..., :1] * x * x + weights[..., 1:] * 4 * x * x + self.shared


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # y = 0.75 * 9 + 0.25 * 36 = 15.75; weights held: 0.75 * 2 * 3 + 0.25 * 8 * 3
        (RuleSet.of(HeldRouting()), 10.5),
        # and half of it at each product: relevance 3 * 5.25 = 15.75
        ("relp", 5.25),
        ("gim", 5.25),
        # the weights' own slopes are (1, -1) / 16: 10.5 + (9 - 36) / 16
        ("gradient", 8.8125),
    ],
    ids=repr,
)
def test_a_mixture(rules, expected):
    x = leaf([[[3.0]]])
    y = Mixture(Routed())(x, rule_set(rules))
    assert float(y.detach()) == 15.75
    assert float(gradient_of(y, x, [[[1.0]]])) == pytest.approx(expected, rel=1e-12)


def test_a_mixture_that_does_more_is_refused_by_rules_and_not_by_the_gradient():
    x = leaf([[[3.0]]])
    with pytest.raises(InputError, match="does more than Mixtral's"):
        Mixture(Routed(shared=100.0))(x, rule_set("relp"))
    assert float(Mixture(Routed(shared=100.0))(x, rule_set("gradient")).detach()) == 115.75
    with pytest.raises(InputError, match="not laid out like Mixtral's"):
        Mixture(nn.Linear(1, 1, dtype=torch.float64))(x, rule_set("relp"))


# ---- linear layers


@pytest.mark.parametrize(
    ("epsilon", "bias", "expected"),
    [
        # y = (5, -2), R = (30, -6); 30 / (5 + 1) = 5, -6 / (-2 - 1) = 2: gradient (5 - 2, 2 * 5 + 2)
        (1.0, None, [3.0, 12.0]),
        # the plain gradient: (6 - 3, 12 + 3)
        (0.0, None, [3.0, 15.0]),
        # y = (2, -1), R = (12, -3); 12 / 3 = 4, -3 / -2 = 1.5: the bias is part of y and gets its own
        (1.0, [-3.0, 1.0], [2.5, 9.5]),
        # y = (0, -2): nothing arrives at the first; 2 as above
        (1.0, [-5.0, 0.0], [-2.0, 2.0]),
    ],
)
def test_the_epsilon_rule(epsilon, bias, expected):
    x = leaf([3.0, 1.0])
    y = Epsilon(epsilon)(linear([[1.0, 2.0], [-1.0, 1.0]], bias), x)
    same(gradient_of(y, x, [6.0, 3.0]), expected)


@pytest.mark.parametrize(
    ("x", "bias", "rule", "at_output", "expected"),
    [
        # weights (2, -1), gamma 1. Terms (6, -1), y = 5: those above zero count twice, 12 - 1 = 11; R / 11 = 5,
        # (5 * 4, -5); relevance 60 - 5 = 55 = R
        ([3.0, 1.0], None, Gamma(1.0, 0.0), 11.0, [20.0, -5.0]),
        # negative inputs, y = -6 + 7 = 1: -6 + 14 = 8, R / 8 = 2; relevance -12 + 28 = 16
        ([-3.0, -7.0], None, Gamma(1.0, 0.0), 16.0, [4.0, -4.0]),
        # y = 2 - 7 = -5: now those below zero, 2 - 14 = -12, R / -12 = 5; relevance 10 - 70 = -60
        ([1.0, 7.0], None, Gamma(1.0, 0.0), 12.0, [10.0, -10.0]),
        # y = -8 + 3 = -5: -16 + 3 = -13, R / -13 = 5; relevance -80 + 15 = -65
        ([-4.0, -3.0], None, Gamma(1.0, 0.0), 13.0, [20.0, -5.0]),
        # inputs of both signs and both terms of one: y = 6 + 2 = 8: 16, R / 16 = 8 / 2; all as it was
        ([3.0, -2.0], None, Gamma(1.0, 0.0), 8.0, [16.0, -8.0]),
        # an input of zero has no term, and the weight its sign from above
        ([3.0, 0.0], None, Gamma(1.0, 0.0), 12.0, [24.0, -6.0]),
        # biases are terms too: y = 6, 12 - 1 + 2 = 13, R / 13 = 6
        ([3.0, 1.0], [1.0], Gamma(1.0, 0.0), 13.0, [24.0, -6.0]),
        # y = 4, 12 - 1 - 1 = 10, R / 10 = 4
        ([3.0, 1.0], [-1.0], Gamma(1.0, 0.0), 10.0, [16.0, -4.0]),
        # y = -6, 2 - 14 - 2 = -14, R / -14 = 3
        ([1.0, 7.0], [-1.0], Gamma(1.0, 0.0), 7.0, [6.0, -6.0]),
        # y = -4, 2 - 14 + 1 = -11, R / -11 = 4
        ([1.0, 7.0], [1.0], Gamma(1.0, 0.0), 11.0, [8.0, -8.0]),
        # epsilon moves the sum away from zero: 11 + 4, R / 15 = 5; and -12 - 3, R / -15 = 5
        ([3.0, 1.0], None, Gamma(1.0, 4.0), 15.0, [20.0, -5.0]),
        ([1.0, 7.0], None, Gamma(1.0, 3.0), 15.0, [10.0, -10.0]),
        # gamma 3: 24 - 1 = 23
        ([3.0, 1.0], None, Gamma(3.0, 0.0), 23.0, [40.0, -5.0]),
        # terms that cancel out to zero: there is no relevance to share
        ([1.0, 2.0], None, Gamma(1.0, 0.0), 9.0, [0.0, 0.0]),
        # gamma 0 is the plain gradient
        ([1.0, 7.0], [1.0], Gamma(0.0, 0.0), 9.0, [18.0, -9.0]),
    ],
)
def test_the_gamma_rule(x, bias, rule, at_output, expected):
    x = leaf(x)
    same(gradient_of(rule(linear([[2.0, -1.0]], bias), x), x, [at_output]), expected)


def test_linear_rules_head_by_head():
    # the first head is the first case of gamma above; the second has terms (3, 1) and all of them twice: R / 8 = 4
    x, weight = leaf([[[[3.0, 1.0]]]]).detach(), leaf([[[2.0, -1.0]], [[1.0, 1.0]]]).detach()
    y, gradient = leaf([[[[5.0], [4.0]]]]).detach(), leaf([[[[11.0], [8.0]]]]).detach()
    same(Gamma(1.0, 0.0).pull(weight, None, x, y, gradient), [[[[20.0, -5.0], [8.0, 8.0]]]])
    # R = (55, 20) over (5 + 6, 4 + 6) is (5, 2): 5 * (2, -1) and 2 * (1, 1)
    gradient = leaf([[[[11.0], [5.0]]]]).detach()
    pulled = Epsilon(6.0).pull(weight, None, x, y, gradient)
    same(pulled, [[[[10.0, -5.0], [2.0, 2.0]]]])
