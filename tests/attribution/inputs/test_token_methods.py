"""Token methods: their values against hooks and autograd on the bridge itself, and what must not change them."""

from __future__ import annotations

import functools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attribution import RuleSet, TokenAttributions, applied, rule_set, token_methods, tokens
from attribution.rules import Epsilon, HeldScale
from tests.oracle import error, model_of, passing, run, write
from tests.tiny import ARCHITECTURES, D_MODEL, VOCAB, mostly_slow, shared, tiny

TOLERANCE = 1e-9
CAPTUMS = 1e-6  # captum keeps the steps of integrated gradients, and occlusion's means, in float32
ENTRY = "blocks.0.hook_in"  # what the first block reads: embeddings, with those of learned positions
ROWS = [[3, 9, 27, 14, 5, 44, 8], [30, 2, 7], [11]]
TARGETS = [7, 20, 33]
OTHERS = [8, 41, 2]
METHODS = tuple(token_methods()["method"])
SEEDED = ("gradient-shap", "reagent", "random")
RELEVANCE = ("attnlrp", "cp-lrp", "relp", "gim")
DETERMINISTIC = tuple(method for method in METHODS if method not in SEEDED)
REFUSED = [("decompx", name) for name in ("gpt_neox", "gptj", "mixtral")]  # test_decompose.py says how
CASES = [(method, name) for method in METHODS for name in ARCHITECTURES if (method, name) not in REFUSED]
FEW = ("gpt2", "gemma2", "mixtral")  # models of every run; the others are slow tests
QUICK: dict[str, dict[str, Any]] = {
    "reagent": {"max_steps": 4, "runs": 2}, "gradient-shap": {"samples": 4}, "integrated-gradients": {"steps": 4},
}  # fmt: skip


def scored(name: str, method: str, rows: Any = None, target: Any = None, **settings: Any) -> TokenAttributions:
    rows = ROWS if rows is None else rows
    target = TARGETS[: len(rows)] if target is None else target
    return tokens(model_of(name), rows, target, method, quiet=True, **{**QUICK.get(method, {}), **settings})


known = functools.cache(scored)  # for settings that can be hashed


HALF = (torch.float32, torch.bfloat16)


# ---- the slow path: one prompt at a time, embeddings written in by a hook


@functools.cache
def entry(name: str, row: tuple[int, ...]) -> Tensor:
    """[pos, d_model]: what a prompt's tokens enter the first block as."""
    with torch.no_grad():
        return passing(model_of(name), torch.tensor([row]), None, [ENTRY])[ENTRY][0]


def last_logits(name: str, x: Tensor) -> Tensor:
    """[run, pos, d_model] -> [run, vocab]: logits at the last position when the first block reads `x`."""
    ids = torch.zeros(x.shape[:2], dtype=torch.long)  # what they are embedded as is written over
    return run(model_of(name), ids, {ENTRY: write(x)})[0][:, -1]


def valued_slopes(name: str, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Each run's logit, and its gradient at what the first block reads."""
    leaf = x.clone().requires_grad_()
    logits = last_logits(name, leaf)[:, target]
    return logits.detach(), torch.autograd.grad(logits.sum(), leaf)[0]


def slopes(name: str, x: Tensor, target: int) -> Tensor:
    return valued_slopes(name, x, target)[1]


def losses(name: str, x: Tensor, changed: Tensor, target: int) -> Tensor:
    """What the logit loses in each of the changed runs."""
    with torch.no_grad():
        logits = last_logits(name, torch.cat((x[None], changed)))[:, target]
    return logits[0] - logits[1:]


def agree(found: TokenAttributions, expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    """Row by row, and nothing at the padding."""
    for row, ours, theirs in zip(ROWS, found.values, expected, strict=False):
        assert error(ours[: len(row)], theirs) < tolerance
        assert not ours[len(row) :].any()


def tolerance_of(method: str) -> float:
    return CAPTUMS if method == "occlusion" else TOLERANCE


# ---- every method on every architecture


@pytest.mark.parametrize(("method", "name"), mostly_slow(CASES, lambda case: case[1] in FEW))
def test_values_are_finite_zero_at_padding_and_the_same_in_any_batch(method: str, name: str) -> None:
    found = known(name, method)
    assert found.values.dtype == torch.float64
    assert found.values.isfinite().all()
    assert found.values[0].any()
    assert not found.values[~found.mask].any()
    again = scored(name, method, batch_size=1)
    assert (again.values - found.values).abs().max() < tolerance_of(method)
    assert (again.logits - found.logits).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("method", "name"), mostly_slow((case for case in CASES if case[0] in DETERMINISTIC), lambda case: case[1] in FEW)
)
def test_inputs_of_different_length_score_as_they_do_alone_and_in_any_order(method: str, name: str) -> None:
    found = known(name, method)
    for i, row in list(enumerate(ROWS))[1:]:  # all that are padded
        alone = scored(name, method, [row], TARGETS[i])
        assert (alone.values[0] - found.values[i, : len(row)]).abs().max() < tolerance_of(method)
    order = [2, 0, 1]
    turned = scored(name, method, [ROWS[i] for i in order], [TARGETS[i] for i in order], batch_size=2)
    assert (turned.values - found.values[order]).abs().max() < tolerance_of(method)


@pytest.mark.parametrize("method", SEEDED)
def test_seeds_and_places_alone_decide_what_is_drawn(method: str) -> None:
    long = [list(range(3, 27)), *ROWS]  # random numbers in bulk are drawn differently: from 16 on
    found, again = (scored("gpt2", method, long, 5, seed=3) for _ in range(2))
    assert torch.equal(found.values, again.values)
    assert not torch.equal(found.values, scored("gpt2", method, long, 5, seed=4).values)
    one_by_one = scored("gpt2", method, long, 5, seed=3, batch_size=1)
    assert (one_by_one.values - found.values).abs().max() < TOLERANCE
    # an input's values do not depend on the others, nor on how long they are
    short = scored("gpt2", method, [[4, 4], *ROWS], 5, seed=3)
    assert (short.values[1:, :7] - found.values[1:, :7]).abs().max() < TOLERANCE
    alone = scored("gpt2", method, long[:1], 5, seed=3)
    assert (alone.values[0] - found.values[0]).abs().max() < TOLERANCE


@functools.cache
def unusual() -> Any:
    """A model with gradients of parameters on, and a part of it in training mode."""
    model = tiny("llama")
    model.requires_grad_(True)
    model.blocks[1].train()
    tokens(model, ROWS, TARGETS, "cp-lrp", quiet=True)  # the anatomy is read once and stays
    return model


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind(method: str) -> None:
    model = unusual()

    def state() -> tuple[Any, ...]:
        parameters = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
        hooks = [(point.fwd_hooks, point.bwd_hooks) for point in model.hook_dict.values()]
        own = [(len(part._forward_hooks), len(part._backward_hooks), part.training) for part in model.modules()]
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        numbers = (torch.get_rng_state().tolist(), random.getstate(), kind, list(keys), rest)
        return parameters, str(hooks), own, numbers, torch.is_grad_enabled(), sorted(model.__dict__)

    weights = {key: value.clone() for key, value in model.state_dict().items()}
    before = state()
    found = tokens(model, ROWS, TARGETS, method, quiet=True, **QUICK.get(method, {}))
    assert state() == before
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not found.values.requires_grad
    assert not found.logits.requires_grad
    with torch.no_grad():  # nor does the caller's switch matter
        again = tokens(model, ROWS, TARGETS, method, quiet=True, **QUICK.get(method, {}))
    assert torch.equal(found.values, again.values)


# ---- gradients


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradient_times_input_is_autograds(name: str) -> None:
    expected = []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = entry(name, tuple(row))
        expected.append((x * slopes(name, x[None], target)[0]).sum(-1))
    agree(known(name, "gradient-x-input"), expected)


@pytest.mark.parametrize("rules", RELEVANCE)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_relevance_is_the_embedding_times_the_gradient_under_the_rules(name: str, rules: str) -> None:
    if rules == "gim" and name in ("gptj", "opt"):
        pytest.skip("no access to the softmax")
    model, expected = model_of(name), []
    for row, target in zip(ROWS, TARGETS, strict=True):
        leaf = entry(name, tuple(row))[None].clone().requires_grad_()
        with applied(model, rules):  # the same rules put on the bridge by hooks: another implementation
            logit = last_logits(name, leaf)[0, target]
            (gradient,) = torch.autograd.grad(logit, leaf)
        if name == "gemma2" and rules != "gim":  # hooks do not reach its soft cap: y / z for the slope at z
            share = logit.detach() / 3.0
            gradient *= share / share.atanh() / (1 - share**2)
        expected.append((leaf.detach() * gradient)[0].sum(-1))
    agree(known(name, rules), expected)
    assert torch.equal(scored(name, "gradient-x-input", rules=rules).values, known(name, rules).values)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma2", "gemma3", "mixtral"])
def test_cp_lrp_adds_up_to_the_logit_where_there_are_no_biases(name: str) -> None:
    found = known(name, "cp-lrp")
    assert found.conservation is not None
    assert (found.values.sum(1) - found.logits).abs().max() < TOLERANCE
    assert (found.conservation - 1).abs().max() < 1e-6
    assert (known(name, "attnlrp").values.sum(1) - found.logits).abs().max() > 1e-6  # it leaks in the softmax


def test_rules_of_the_users_own() -> None:
    plain = scored("gpt2", "gradient-x-input")
    assert torch.equal(scored("gpt2", "gradient-x-input", rules="gradient").values, plain.values)
    mine = RuleSet.of(HeldScale(), Epsilon(0.01), name="mine")
    found = scored("gpt2", "gradient-x-input", rules=mine)
    assert not torch.allclose(found.values, plain.values)
    assert found.settings["rules"] == mine.to_dict()
    composed = rule_set("cp-lrp").without("activation")
    assert torch.equal(
        scored("llama", "gradient-x-input", rules=composed.plus(*rule_set("cp-lrp").rules)).values,
        scored("llama", "cp-lrp").values,
    )


@pytest.mark.parametrize("baseline", ["zero", 5])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_integrated_gradients_are_gauss_legendre_sums(name: str, baseline: Any) -> None:
    nodes, masses = np.polynomial.legendre.leggauss(6)
    alphas, weights = torch.tensor((nodes + 1) / 2)[:, None, None], torch.tensor(masses / 2)[:, None, None]
    zero, expected, ends = alphas.new_zeros(1, 1, 1), [], []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = entry(name, tuple(row))
        start = torch.zeros_like(x) if baseline == "zero" else entry(name, (5,) * len(row))
        logits, gradients = valued_slopes(name, start + torch.cat((zero, alphas)) * (x - start), target)
        expected.append(((x - start) * (weights * gradients[1:]).sum(0)).sum(-1))
        ends.append(logits[0])
    found = scored(name, "integrated-gradients", steps=6, baseline=baseline)
    agree(found, expected, CAPTUMS)
    assert found.baseline_logits is not None
    assert (found.baseline_logits - torch.stack(ends)).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_rules_act_along_the_path_of_integrated_gradients_and_on_gradient_shap(name: str) -> None:
    nodes, masses = (torch.tensor(x)[:, None, None] for x in np.polynomial.legendre.leggauss(6))
    model, expected = model_of(name), []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = entry(name, tuple(row))
        with applied(model, "attnlrp"):
            gradients = slopes(name, (nodes + 1) / 2 * x, target)
        expected.append((x * (masses / 2 * gradients).sum(0)).sum(-1))
    found = scored(name, "integrated-gradients", steps=6, rules="attnlrp")
    agree(found, expected, CAPTUMS)
    assert found.conservation is None  # no law says what they add up to
    plain, ruled = (scored(name, "gradient-shap", rules=rules).values for rules in (None, "relp"))
    assert error(ruled, plain) > 1e-3


@pytest.mark.parametrize(  # the routing of a mixture jumps
    "name", mostly_slow((name for name in ARCHITECTURES if name != "mixtral"), {"gpt2", "gemma2", "opt"}.__contains__)
)
def test_integrated_gradients_are_complete_with_many_steps(name: str) -> None:
    found = scored(name, "integrated-gradients", ROWS[:1], steps=150, baseline=5)
    assert found.baseline_logits is not None
    assert (found.logits - found.baseline_logits).abs().min() > 1e-3
    tolerance = {"opt": 1e-2, "qwen3": 1e-3, "gemma2": 1e-3, "gemma3": 1e-3}.get(name, 1e-5)  # a ReLU has kinks
    assert (found.values.sum(1) - (found.logits - found.baseline_logits)).abs().max() < tolerance


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_gradient_shap_without_noise_has_integrated_gradients_as_its_mean(name: str) -> None:
    samples = 400
    found = scored(name, "gradient-shap", ROWS[:2], baseline=5, noise=0.0, samples=samples)
    assert found.conservation is None
    for i, row in enumerate(ROWS[:2]):
        x, start = entry(name, tuple(row)), entry(name, (5,) * len(row))
        alphas = (torch.arange(500, dtype=torch.float64) + 0.5)[:, None, None] / 500
        terms = ((x - start) * slopes(name, start + alphas * (x - start), TARGETS[i])).sum(-1)
        bound = 5 * terms.std(0) / math.sqrt(samples)
        assert ((found.values[i, : len(row)] - terms.mean(0)).abs() <= bound + 1e-6).all()
        with torch.no_grad():
            ends = last_logits(name, torch.stack((x, start)))[:, TARGETS[i]]
        total = float(found.values[i].sum() - (ends[0] - ends[1]))
        assert abs(total) < 5 * float(terms.sum(1).std()) / math.sqrt(samples)
    once = [scored(name, "gradient-shap", ROWS[:1], samples=1, noise=noise).values for noise in (0.0, 1e-9, 0.5)]
    assert error(once[1], once[0]) < 1e-5
    assert error(once[2], once[0]) > 1e-3


# ---- perturbations


def baseline_of(name: str, length: int, baseline: Any) -> Tensor:
    """[pos, d_model]: what stands at each position in place of its token."""
    if baseline == "zero":
        return torch.zeros(length, D_MODEL, dtype=torch.float64)
    if baseline == "mean":  # over the vocabulary, at the same position
        with torch.no_grad():
            every = torch.arange(VOCAB)[:, None].expand(-1, length)
            return passing(model_of(name), every, None, [ENTRY])[ENTRY].mean(0)
    return entry(name, (baseline,) * length)


@pytest.mark.parametrize("baseline", ["zero", "mean", 5])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_feature_ablation_is_what_the_logit_loses_without_a_token(name: str, baseline: Any) -> None:
    expected = []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = entry(name, tuple(row))
        changed = x.repeat(len(row), 1, 1)
        for position in range(len(row)):
            changed[position, position] = baseline_of(name, len(row), baseline)[position]
        expected.append(losses(name, x, changed, target))
    agree(scored(name, "feature-ablation", baseline=baseline), expected)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_occlusion_averages_over_the_windows_that_hold_a_token(name: str, window: int) -> None:
    expected = []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x, size = entry(name, tuple(row)), min(window, len(row))
        starts = range(len(row) - size + 1)
        changed = x.repeat(len(starts), 1, 1)
        for start in starts:
            changed[start, start : start + size] = baseline_of(name, len(row), 5)[start : start + size]
        lost = losses(name, x, changed, target)
        held = [[lost[start] for start in starts if start <= position < start + size] for position in range(len(row))]
        expected.append(torch.stack([torch.stack(values).mean() for values in held]))
    agree(scored(name, "occlusion", baseline=5, window=window), expected, CAPTUMS)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_window_over_everything_gives_every_token_the_whole_difference(name: str) -> None:
    found = scored(name, "occlusion", ROWS[:1], window=50, baseline=5).values
    whole = losses(name, entry(name, tuple(ROWS[0])), baseline_of(name, 7, 5)[None], TARGETS[0])
    assert (found - whole).abs().max() < CAPTUMS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_rollout_by_hand(name: str) -> None:
    expected = []
    for row in ROWS:
        points = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]
        with torch.no_grad():
            _, kept = run(model_of(name), torch.tensor([row]), keep=points)
        flow = torch.eye(len(row), dtype=torch.float64)[-1]  # from the last position down to the tokens
        for point in reversed(points):
            flow = 0.5 * flow + 0.5 * flow @ kept[point][0].mean(0)
        assert float(flow.sum()) == pytest.approx(1)
        expected.append(flow)
    agree(known(name, "attention-rollout"), expected)


def test_random_values_are_normal_numbers() -> None:
    values = scored("gpt2", "random", ROWS[:1] * 200, 5).values
    assert abs(float(values.mean())) < 0.15
    assert abs(float(values.std()) - 1) < 0.1


# ---- targets


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method, name in CASES
        if name in ("gpt2", "gemma2", "mixtral") and method not in ("attention-rollout", "reagent", "random")
    ],
)
def test_a_contrast_is_the_difference_of_its_two_targets(method: str, name: str) -> None:
    this, that = known(name, method), scored(name, method, target=OTHERS)
    both = scored(name, method, target=list(zip(TARGETS, OTHERS, strict=True)))
    assert error(both.values, this.values - that.values) < CAPTUMS
    assert (both.logits - (this.logits - that.logits)).abs().max() < TOLERANCE


def test_every_method_says_what_it_costs_and_where_it_comes_from() -> None:
    frame = token_methods()
    assert len(frame) == len(set(METHODS)) == 13
    assert frame.map(lambda cell: isinstance(cell, str)).all(axis=None)
    assert (frame["paper"] != "").all()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "decompx"])  # which refuses them
def test_models_in_half_precision_are_scored_in_float32(method: str) -> None:
    more = QUICK.get(method, {})
    found, rough = (tokens(shared("llama", dtype), ROWS, TARGETS, method, quiet=True, **more) for dtype in HALF)
    assert rough.values.dtype == rough.logits.dtype == torch.float32
    assert rough.values.isfinite().all()
    if method not in ("reagent", "integrated-gradients"):  # whose coarse steps from zero differ by more
        assert error(rough.values, found.values) < 0.2
