"""`attribution.relevance`: activation times modified gradient at hook points, its sums and its limits."""

from __future__ import annotations

import math

import pytest
import torch

import attribution
from attribution import RuleSet
from attribution.rules import Epsilon
from interp.errors import InputError
from tests.oracle import model_of
from tests.tiny import ARCHITECTURES, VOCAB

IDS = [[3, 14, 15, 9, 2, 6], [5, 35, 8, 9]]
BIAS_FREE = ("llama", "mistral", "qwen3", "gemma2", "gemma3", "mixtral")


def by_hand(model, ids, hook, target, rules="gradient"):
    """Activation times gradient of one input at one hook point, by the user's own hooks."""
    kept = {}

    def keep(x, hook):
        kept["x"] = x if x.requires_grad else x.detach().requires_grad_()
        return kept["x"]

    with attribution.applied(model, rules), model.hooks(fwd_hooks=[(hook, keep)]):
        logit = model(torch.tensor([ids]))[0, -1, target]
        (gradient,) = torch.autograd.grad(logit, kept["x"])
    return (kept["x"] * gradient).detach()[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_rules_give_activation_times_gradient_at_any_hook_point(name):
    model = model_of(name)
    hooks = ["embed.hook_out", "blocks.1.hook_out", "blocks.1.attn.v.hook_out", "blocks.2.hook_in", "ln_final.hook_in"]
    found = attribution.relevance(model, IDS, target=7, rules="gradient", at=hooks, quiet=True)
    assert list(found.values) == hooks
    for n, ids in enumerate(IDS):
        for hook in hooks:
            ours, theirs = found.values[hook][n], by_hand(model, ids, hook, 7)
            assert ours[: len(ids)].reshape(theirs.shape) == pytest.approx(
                theirs, abs=1e-10 * float(theirs.abs().max())
            )
            assert not ours[len(ids) :].any()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "relp"])
def test_relevance_of_what_enters_the_first_block_is_that_of_the_token_method(name, rules):
    model = model_of(name)
    found = attribution.relevance(model, IDS, target=7, rules=rules, at="blocks.0.hook_in", quiet=True)
    tokens = attribution.tokens(model, IDS, target=7, method=rules, quiet=True)
    largest = float(tokens.values.abs().max())
    assert found.per("blocks.0.hook_in", "position") == pytest.approx(tokens.values, abs=1e-9 * largest)
    assert found.logits == pytest.approx(tokens.logits)


@pytest.mark.parametrize("name", BIAS_FREE)
def test_without_biases_cp_lrp_is_conserved_at_every_layer_and_for_contrasts(name):
    found = attribution.relevance(model_of(name), IDS, target=(7, 9), rules="cp-lrp", quiet=True)
    table = found.conservation()
    assert table["hook"].nunique() == 3
    assert len(table) == 6
    assert table["ratio"].to_numpy() == pytest.approx(1, abs=1e-9)


def test_attention_passes_relevance_on_through_values_alone_when_the_pattern_is_held():
    # in one block: what enters equals what leaves, and heads' relevance is that of their values
    found = attribution.relevance(
        model_of("llama"), IDS, rules="cp-lrp", at=["blocks.1.attn.hook_z", "blocks.1.attn.v.hook_out"], quiet=True
    )
    z = found.per("blocks.1.attn.hook_z")
    values = found.per("blocks.1.attn.v.hook_out")
    assert values == pytest.approx(z, rel=1e-9)


def test_attnlrp_gives_values_one_half_of_what_heads_have():
    found = attribution.relevance(
        model_of("llama"), IDS, rules="attnlrp", at=["blocks.1.attn.hook_z", "blocks.1.attn.v.hook_out"], quiet=True
    )
    assert found.per("blocks.1.attn.v.hook_out") == pytest.approx(found.per("blocks.1.attn.hook_z") / 2, rel=1e-9)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox"])
def test_inside_attention_relevance_is_shared_as_attnlrp_has_it(name):
    # pattern: half of what the heads have; queries and keys: half of what the scores have (the products are bilinear,
    # and the softmax passes on its own gradient)
    parts = {"z": "hook_z", "pattern": "hook_pattern", "scores": "hook_attn_scores", "q": "q.hook_out"}
    found = attribution.relevance(
        model_of(name), IDS, rules="attnlrp", at=[f"blocks.1.attn.{hook}" for hook in parts.values()], quiet=True
    )
    z, pattern, scores, q = (found.per(hook) for hook in found.values)
    assert pattern == pytest.approx(z / 2, rel=1e-9)
    assert q == pytest.approx(scores / 2, rel=1e-9)


def test_sums_by_axis_agree_with_each_other():
    hooks = ["blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern", "blocks.0.mlp.out.hook_in"]
    found = attribution.relevance(model_of("llama"), IDS, rules="attnlrp", at=hooks, quiet=True)
    assert found.axes(hooks[0]) == ("position", "head", "coordinate")
    assert found.axes(hooks[1]) == ("head", "query", "key")
    assert found.axes(hooks[2]) == ("position", "neuron")
    for hook in hooks:
        total = found.per(hook)
        for axis in found.axes(hook):
            assert found.per(hook, axis).sum(1) == pytest.approx(total, abs=1e-9)
    assert found.per(hooks[1], "key", "query").shape == (2, 6, 6)
    assert not found.per(hooks[1], "key")[1, 4:].any()
    with pytest.raises(InputError, match="neuron"):
        found.per(hooks[0], "neuron")
    with pytest.raises(InputError, match="hook="):
        found.per("blocks.1.hook_out")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_change_nothing(batch_size):
    model, hooks = model_of("gemma2"), ["blocks.*.hook_out", "blocks.0.attn.hook_pattern"]
    everything = attribution.relevance(model, [*IDS, [1, 2]], at=hooks, quiet=True)
    parts = attribution.relevance(model, [*IDS, [1, 2]], at=hooks, batch_size=batch_size, quiet=True)
    for hook, values in everything.values.items():
        assert parts.values[hook] == pytest.approx(values, abs=1e-9 * float(values.abs().max()))


def test_composed_rules_and_the_model_is_left_as_it_was():
    model = model_of("qwen2")
    before = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    plain = by_hand(model, IDS[0], "blocks.0.hook_out", 7)
    rules = RuleSet.of(Epsilon(0.5), name="mine")
    found = attribution.relevance(model, IDS, target=7, rules=rules, at="blocks.0.hook_out", quiet=True)
    assert (found.values["blocks.0.hook_out"][0] - plain).abs().max() > 1e-3 * plain.abs().max()
    assert by_hand(model, IDS[0], "blocks.0.hook_out", 7).equal(plain)
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == before
    assert all(weight.grad is None for weight in model.parameters())


def test_frames_figure_and_repr():
    found = attribution.relevance(model_of("llama"), IDS, quiet=True)
    frame = found.to_frame()
    assert len(frame) == 3 * 10
    assert frame["relevance"].sum() == pytest.approx(sum(float(v.sum()) for v in found.values.values()))
    assert "attnlrp: 2 inputs at 3 hook points" in repr(found)
    assert "blocks.1.hook_out" in found._repr_html_()
    picture = found.figure(1)
    assert len(picture.data[0].z) == 3
    assert len(picture.data[0].z[0]) == 4
    assert picture.data[0].zmax == pytest.approx(max(float(v[1].sum(-1).abs().max()) for v in found.values.values()))
    with pytest.raises(InputError, match="input=2"):
        found.figure(2)
    pattern = attribution.relevance(model_of("llama"), IDS, at="blocks.1.attn.hook_pattern", quiet=True)
    assert pattern.to_frame().empty
    with pytest.raises(InputError, match="positions"):
        pattern.figure()
    assert math.isfinite(float(pattern.conservation()["ratio"].iloc[0]))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("blocks.1.hook_ut", r"at='blocks.1.hook_ut' is no hook point .*blocks.1.hook_out"),
        ("nothing.*", "no hook point"),
        ([], "at names no hook point"),
        ("blocks.1.attn.hook_result", "use_attn_result"),
        ("blocks.1.ln1.hook_scale", "no gradient gets there"),
        ("blocks.0.hook_*_in", "(no gradient|switched|set_use|never run)"),
    ],
)
def test_wrong_hook_points_are_refused_in_a_sentence(at, message):
    model = model_of("llama")
    with pytest.raises(InputError, match=message):
        attribution.relevance(model, IDS, at=at, quiet=True)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_other_bad_input_is_refused():
    model = model_of("llama")
    with pytest.raises(InputError, match="rules="):
        attribution.relevance(model, IDS, rules="attn-lrp", quiet=True)
    with pytest.raises(InputError, match=f"{VOCAB - 1}"):
        attribution.relevance(model, [[VOCAB]], quiet=True)
    with pytest.raises(InputError, match="target"):
        attribution.relevance(model, IDS, target=[1, 2, 3], quiet=True)
