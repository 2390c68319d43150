"""Scores of heads by pairs of sources: against the transformers module's own softmax, which is listened to."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from attribution import AttentionScores, attention_scores
from circuits import planted
from interp.errors import InputError
from interp.inspection import anatomy_of
from tests.tiny import ARCHITECTURES, LAYERS, VARIANTS, shared, stay_in_float64, tiny_module

IDS = torch.tensor([3, 5, 2, 9, 11, 4, 7])
QUERY, TARGET = 5, (13, 21)
HEADS = (0, 3)
TOLERANCE = 1e-12
MODELS = (*ARCHITECTURES, *VARIANTS, "phi3", "ministral3")


@functools.cache
def module_of(name: str) -> nn.Module:
    module = tiny_module(name)
    stay_in_float64(module)
    return module


@functools.cache
def heard(name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What the module's softmax reads and gives, [head, query, key] by layer, and the gradient of the contrast there."""
    read: list[Tensor] = []
    given: list[Tensor] = []
    softmax = nn.functional.softmax

    def listening(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = softmax(x, *args, **kwargs)
        if x.ndim == 4:  # routers of mixtures have a softmax as well
            read.append(x)
            given.append(out)
        return out

    with mock.patch.object(nn.functional, "softmax", listening):
        logits = module_of(name)(IDS[None]).logits[0, -1]
    gradients = torch.autograd.grad(logits[TARGET[0]] - logits[TARGET[1]], read)
    assert len(read) == LAYERS
    return tuple([one[0].detach() for one in some] for some in (read, given, gradients))  # type: ignore[return-value]


@functools.cache
def found(name: str, layer: int, head: int) -> AttentionScores:
    return attention_scores(shared(name), IDS, head=f"a{layer}.h{head}", query=QUERY, target=TARGET)


@pytest.fixture(params=[(name, layer) for name in MODELS for layer in (1, LAYERS - 1)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    return request.param


def capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else cap * torch.tanh(scores / cap)


def test_parts_sum_to_the_scores_of_the_module(case: tuple[str, int]) -> None:
    name, layer = case
    for head in HEADS:
        result = found(name, layer, head)
        own = heard(name)[0][layer][head, QUERY, result.positions]
        assert (capped(result.parts.sum((0, 1)), result.softcap) - own).abs().max() < TOLERANCE
        assert (result.pattern - heard(name)[1][layer][head, QUERY, result.positions]).abs().max() < TOLERANCE
        assert float(result.pattern.sum()) == pytest.approx(1, abs=TOLERANCE)  # nothing that is seen is left out
        assert result.error < TOLERANCE


def test_the_gradient_is_that_of_the_explained_logits_at_the_score(case: tuple[str, int]) -> None:
    name, layer = case
    for head in HEADS:
        result = found(name, layer, head)
        slope = 1.0 if result.softcap is None else 1 - torch.tanh(result.scores / result.softcap) ** 2
        own = heard(name)[2][layer][head, QUERY, result.positions] * slope
        assert own.abs().max() > 1e-6
        assert (result.gradient - own).abs().max() < 1e-11
        assert (result.effect.sum((0, 1)) - own * result.scores).abs().max() < 1e-11


def test_a_soft_cap_is_where_the_tests_say_it_is() -> None:
    assert found("gemma2", 1, 0).softcap == 2.0
    assert found("gemma2", 1, 0).scores.abs().max() > 2.0  # no score behind a cap of 2 is
    assert found("llama", 1, 0).softcap is None


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_the_head_s_direct_part_of_the_logits(name: str) -> None:
    """Of the module: the values that it weighs are read off its value projection by a hook on the unmodified pattern."""
    layer, anatomy = LAYERS - 1, anatomy_of(shared(name))
    result = attention_scores(shared(name), IDS, head=f"a{layer}.h1", target=TARGET)
    block, (d_head, group) = anatomy.blocks[layer], (anatomy.d_head, anatomy.n_heads // anatomy.n_kv_heads)
    states = module_of(name)(IDS[None], output_hidden_states=True).hidden_states[layer][0].detach()
    values = block.v(block.attention_norm(states)).unflatten(-1, (-1, d_head)).repeat_interleave(group, 1)
    z = torch.einsum("hk,khd->hd", heard(name)[1][layer][:, -1], values)
    one = torch.zeros_like(z)
    one[1] = z[1]
    written = one.flatten() @ block.o.weight.T
    if (post := block.attention_post_norm) is not None:
        assert post.gain is not None
        written = written * post.gain / post.divisor(block.o(z.flatten()))
    kept: list[Tensor] = []
    final = anatomy.final_norm
    hook = final.module.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    shared(name)(IDS[None])
    hook.remove()
    last = kept[0][0, -1]
    gain = 1.0 if final.gain is None else final.gain
    moved = gain * final.centred(written) / final.divisor(last)
    raw = anatomy.unembed(final(last))
    slopes = torch.ones_like(raw) if anatomy.cap is None else anatomy.cap(raw) / raw
    logits = slopes * (anatomy.unembed.weight @ moved)
    assert float(result.writes.sum()) == pytest.approx(float(logits[TARGET[0]] - logits[TARGET[1]]), abs=1e-11)


def test_float32_sums_to_the_scores() -> None:
    result = attention_scores(shared("qwen3", torch.float32), IDS, head="a2.h1")
    assert result.error < 1e-5 * float(result.scores.abs().max())


def test_relative_parts_sum_to_zero_under_the_pattern_and_differ_as_scores_do() -> None:
    result = found("llama", 2, 3)
    assert (result.relative @ result.pattern).abs().max() < TOLERANCE
    differences = result.relative.sum((0, 1)) - result.scores
    assert float(differences.max() - differences.min()) < TOLERANCE


def test_keys_that_are_asked_for_are_those_of_all_keys() -> None:
    whole = found("gpt2", 2, 0)
    some = attention_scores(shared("gpt2"), IDS, head="a2.h0", query=QUERY, target=TARGET, keys=[4, -6])
    assert some.positions.tolist() == [4, 1]
    assert torch.equal(some.parts, whole.parts[..., [4, 1]])
    assert some.top(2, key=-6)["position"].tolist() == [1, 1]


def test_tables_and_pictures_show_the_same_numbers() -> None:
    result = found("gpt2", 2, 0)
    frame = result.to_frame(None)
    assert len(frame) == result.parts.numel()
    assert frame["score"].sum() == pytest.approx(float(result.scores.sum()))
    assert frame["relative"].abs().is_monotonic_decreasing
    assert set(frame["query_source"]) == {"token", "position", "biases", "m0", "m1"} | {
        f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)
    }
    picture = result.figure(key=2, n=3)
    assert list(picture.data[0].x)[-1] == "all others"
    drawn = torch.tensor(picture.data[0].z, dtype=torch.float64).sum()
    assert float(drawn) == pytest.approx(float(result.relative[..., 2].sum()))
    assert result.written(1)["writes"].abs().item() == pytest.approx(float(result.writes.abs().max()))
    assert "a2.h0 at 5" in repr(result) and "a2.h0" in result._repr_html_()


def test_a_result_is_read_as_it_was_saved(tmp_path: Path) -> None:
    result = found("gpt2", 2, 0)
    again = AttentionScores.load(result.save(tmp_path / "scores.json"))
    assert torch.equal(again.parts, result.parts) and again.tokens == result.tokens


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"head": "a3.h0"}, "a0.h0 to a2.h3"),
        ({"head": "m1"}, "is no head"),
        ({"query": 7}, "outside of the prompt's 7 tokens"),
        ({"keys": [6], "query": 5}, "query=5 sees: 0 to 5"),
        ({"keys": []}, "must be different positions"),
        ({"prompt": IDS.expand(2, -1)}, "one by one"),
    ],
)
def test_what_cannot_be_asked_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        attention_scores(shared("gpt2"), **{"prompt": IDS, "head": "a1.h0", **told})


def test_a_window_hides_keys() -> None:
    with pytest.raises(InputError, match="query=5 sees: 3 to 5"):
        attention_scores(shared("mistral"), IDS, head="a1.h0", query=5, keys=[1])
