"""Scores of heads by pairs of sources: against the transformers module's own softmax, which is listened to."""

from __future__ import annotations

import functools
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
from interp.kernels.forward import prepare, run_blocks
from tests.tiny import ARCHITECTURES, LAYERS, VARIANTS, shared, stay_in_float64, tiny_module

IDS = torch.tensor([3, 5, 2, 9, 11, 4, 7])
TARGET = (13, 21)
QUERIES = (5, 5, 6)  # by layer: the last one's output is read at the last position alone
HEADS = (0, 3)
TOLERANCE = 1e-12
MODELS = (*ARCHITECTURES, *VARIANTS, "phi3", "ministral3")


@functools.cache
def module_of(name: str) -> nn.Module:
    module: Any = tiny_module(name)
    if name == "mixtral":
        module.set_experts_implementation("eager")  # the default knows no float64
    stay_in_float64(module)
    return module


@functools.cache
@torch.enable_grad()  # whatever the test that asks first
def heard(name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What the module's softmax reads and gives, [head, query, key] by layer, and the contrast's gradient there."""
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
    return attention_scores(shared(name), IDS, head=f"a{layer}.h{head}", query=QUERIES[layer], target=TARGET)


@pytest.fixture(params=[(name, layer) for name in MODELS for layer in (1, LAYERS - 1)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, int]:
    found: tuple[str, int] = request.param
    return found


def capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else cap * torch.tanh(scores / cap)


def test_parts_sum_to_the_scores_of_the_module(case: tuple[str, int]) -> None:
    name, layer = case
    for head in HEADS:
        result = found(name, layer, head)
        own = heard(name)[0][layer][head, QUERIES[layer], result.positions]
        assert (capped(result.parts.sum((0, 1)), result.softcap) - own).abs().max() < TOLERANCE
        assert (result.pattern - heard(name)[1][layer][head, QUERIES[layer], result.positions]).abs().max() < TOLERANCE
        assert float(result.pattern.sum()) == pytest.approx(1, abs=TOLERANCE)  # nothing that is seen is left out
        assert result.error < TOLERANCE


def test_the_gradient_is_that_of_the_explained_logits_at_the_score(case: tuple[str, int]) -> None:
    name, layer = case
    for head in HEADS:
        result = found(name, layer, head)
        slope = 1.0 if result.softcap is None else 1 - torch.tanh(result.scores / result.softcap) ** 2
        own = heard(name)[2][layer][head, QUERIES[layer], result.positions] * slope
        assert own.abs().max() > 1e-6
        assert (result.gradient - own).abs().max() < 1e-11
        assert (result.effect.sum((0, 1)) - own * result.scores).abs().max() < 1e-11


def test_a_soft_cap_is_where_the_tests_say_it_is() -> None:
    assert found("gemma2", 1, 0).softcap == 2.0
    assert found("gemma2", 1, 0).scores.abs().max() > 2.0  # no score behind a cap of 2 is
    assert found("llama", 1, 0).softcap is None


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_is_written_is_the_head_s_direct_part_of_the_logits(name: str) -> None:
    """By hand, from the module's hidden states and pattern: one head alone through the output matrix."""
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
    frame, final = prepare(anatomy, IDS[None], 0, torch.tensor([len(IDS)])), anatomy.final_norm
    last = run_blocks(frame, anatomy.embed(IDS[None], frame.positions))[0, -1]
    gain = 1.0 if final.gain is None else final.gain
    moved = gain * final.centred(written) / final.divisor(last)
    raw = anatomy.unembed(final(last))
    slopes = torch.ones_like(raw) if anatomy.cap is None else anatomy.cap(raw) / raw
    logits = slopes * (anatomy.unembed.weight @ moved)
    assert float(result.writes.sum()) == pytest.approx(float(logits[TARGET[0]] - logits[TARGET[1]]), abs=1e-11)


def test_float32_sums_to_the_scores() -> None:
    result = attention_scores(shared("qwen3", torch.float32), IDS, head="a2.h1")
    assert result.error < 1e-5 * float(result.scores.abs().max())


def test_relative_parts_sum_to_zero_over_keys_and_differ_as_scores_do() -> None:
    result = found("llama", 2, 3)
    assert result.relative.sum(-1).abs().max() < TOLERANCE
    differences = result.relative.sum((0, 1)) - result.scores
    assert float(differences.max() - differences.min()) < TOLERANCE


def test_keys_that_are_asked_for_are_those_of_all_keys() -> None:
    whole = found("gpt2", 2, 0)
    some = attention_scores(shared("gpt2"), IDS, head="a2.h0", target=TARGET, keys=[4, -6])
    assert some.positions.tolist() == [4, 1]
    assert (some.parts - whole.parts[..., [4, 1]]).abs().max() < 1e-14
    assert some.top(2, key=-6)["position"].tolist() == [1, 1]


def test_tables_and_pictures_show_the_same_numbers() -> None:
    result = found("gpt2", 2, 0)
    frame = result.to_frame(None)
    assert len(frame) == result.parts.numel()
    assert frame["score"].sum() == pytest.approx(float(result.scores.sum()))
    assert frame["relative"].abs().is_monotonic_decreasing
    first = result.to_frame(1, by="effect")
    assert first["effect"].abs().item() == pytest.approx(float(result.effect.abs().max()))
    with pytest.raises(InputError, match="by='size' is unknown"):
        result.top(by="size")
    assert set(frame["query_source"]) == {"token", "position", "biases", "m0", "m1"} | {
        f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)
    }
    picture = result.figure(key=2, n=3)
    assert list(picture.data[0].x)[-1] == "all others"
    drawn = torch.tensor(picture.data[0].z, dtype=torch.float64).sum()
    assert float(drawn) == pytest.approx(float(result.relative[..., 2].sum()))
    assert result.written(1)["writes"].abs().item() == pytest.approx(float(result.writes.abs().max()))
    assert "a2.h0 at 6" in repr(result)
    assert "a2.h0" in result._repr_html_()


def test_a_result_is_read_as_it_was_saved(tmp_path: Path) -> None:
    result = found("gpt2", 2, 0)
    again = AttentionScores.load(result.save(tmp_path / "scores.json"))
    assert torch.equal(again.parts, result.parts)
    assert again.tokens == result.tokens


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


def test_planted_induction_heads_look_for_what_the_previous_token_head_wrote() -> None:
    """Where the answer stands, the key's source is the head that wrote the token before it, the query's the token."""
    model = planted.load("induction", n=4)
    prompts = model.task.prompts(model.model)
    for head in ("a1.h1", "a1.h3"):
        for ids, correct in zip(prompts.clean, prompts.correct[:, 0], strict=True):
            result = attention_scores(model.model, ids, head=head, target=int(correct))
            at = int((ids == correct).nonzero()[0, 0])
            assert int(result.positions[result.pattern.argmax()]) == at
            best = result.top(1, key=at).iloc[0]
            assert (best["query_source"], best["key_source"]) == ("token", "a0.h0")
            assert best["relative"] > 0.9 * float(result.scores[at] - result.scores.mean())
            written = result.written(1).iloc[0]
            assert (written["position"], written["source"]) == (at, "token")


def test_a_window_hides_keys() -> None:
    with pytest.raises(InputError, match="query=5 sees: 3 to 5"):
        attention_scores(shared("mistral"), IDS, head="a1.h0", query=5, keys=[1])
