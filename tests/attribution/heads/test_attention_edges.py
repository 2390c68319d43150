"""What crosses positions in attention: sum rules against autograd, finite forms against a softmax taken anew."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import AttentionEdges, attention_edges
from interp import Task
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.forward import Recorder, last_rows, prepare, ready, run_blocks, unembed, write_heads
from tests.tiny import ARCHITECTURES, LAYERS, VARIANTS, shared, tiny_task

MODELS = (*ARCHITECTURES, *VARIANTS, "phi3", "ministral3")
PORTS = ("q", "k", "v")


class Listening(Recorder):
    """Queries, keys and values of a run, with what autograd finds at them and at what attention adds."""

    def __init__(self) -> None:
        self.projected: list[tuple[Tensor, ...]] = []
        self.added: list[Tensor] = []

    def projections(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        self.projected.append((q, k, v))
        return q, k, v

    def attention_output(self, layer: int, added: Tensor) -> Tensor:
        self.added.append(added)
        return added


@functools.cache
def task_for(name: str) -> Task:
    return tiny_task(shared(name), n=2)


def run(name: str, tokens: Tensor) -> tuple[Any, Listening, Tensor]:
    """The frame, what was heard, and the objective: the answers' logit differences, summed over prompts."""
    anatomy, prompts = anatomy_of(shared(name)), task_for(name).prompts(shared(name))
    frame = prepare(anatomy, tokens, 0, prompts.lengths)
    heard = Listening()
    x = run_blocks(frame, anatomy.embed(tokens, frame.positions).detach().requires_grad_(), heard)
    logits = unembed(anatomy, last_rows(x, frame, prompts.lengths))
    return frame, heard, (logits.gather(1, prompts.correct) - logits.gather(1, prompts.incorrect)).sum()


def heads_summed(values: Tensor, ports: int) -> Tensor:
    """[head, ...] -> [port, ...]: heads that share keys and values."""
    return values.unflatten(0, (ports, -1)).sum(1)


@pytest.mark.parametrize("name", MODELS)
def test_linear_edges_sum_to_the_scores_of_the_ports_by_position(name: str) -> None:
    model, task = shared(name), task_for(name)
    prompts = task.prompts(model)
    length = prompts.clean.shape[1]
    ours = attention_edges(model, task, list(range(length))).values
    _, clean, value = run(name, prompts.clean)
    _, corrupted, _ = run(name, prompts.corrupted)
    gradients = torch.autograd.grad(value, [one for layer in clean.projected for one in layer])
    for layer in range(LAYERS):
        for port, axis in ((0, 1), (1, 2), (2, 2)):  # q: over s; k and v: over t
            other, own = corrupted.projected[layer][port], clean.projected[layer][port]
            score = ((own - other) * gradients[3 * layer + port]).sum((0, 3)).T.detach() / len(prompts)
            assert score.abs().max() > 1e-4
            found = heads_summed(ours[port, layer].sum(axis), own.shape[2])
            assert (found - score).abs().max() < 1e-12, (layer, PORTS[port])


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma2", "mistral", "gptj"])
def test_finite_edges_are_what_a_softmax_taken_anew_gives(name: str) -> None:
    """Every score alone is put in the place of its own, and the layer is run again from there."""
    model, task, layer = shared(name), task_for(name), 1
    prompts, block = task.prompts(model), anatomy_of(model).blocks[layer]
    length = prompts.clean.shape[1]
    ours = attention_edges(model, task, list(range(length)), "peap").values[:, layer]
    frame, clean, value = run(name, prompts.clean)
    _, corrupted, _ = run(name, prompts.corrupted)
    (gradient,) = torch.autograd.grad(value, clean.added[layer])
    with torch.no_grad():
        q, k, v = ready(frame, layer, *clean.projected[layer])
        other = ready(frame, layer, *corrupted.projected[layer])

    def scores(q: Tensor, k: Tensor) -> Tensor:
        raw = q @ k.transpose(-1, -2) * block.scale
        raw = raw if block.softcap is None else block.softcap * torch.tanh(raw / block.softcap)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        seen = (distance >= 0) & (distance < (block.window or length))
        return raw.masked_fill(~seen, float("-inf"))

    own = scores(q, k)
    z = (own.softmax(-1) @ v).transpose(1, 2).detach().requires_grad_()
    (at_z,) = torch.autograd.grad(write_heads(block, z)[1], z, gradient)
    for port, changed in ((0, scores(other[0], k)), (1, scores(q, other[1]))):
        for source in range(length):
            replaced = own.clone()
            replaced[..., source] = changed[..., source]
            moved = (replaced.softmax(-1) @ v).transpose(1, 2)
            expected = ((z - moved) * at_z).sum(-1).mean(0).T.detach()  # [head, query]
            assert (ours[port, :, source] - expected).abs().max() < 1e-12


def test_spans_add_up_what_positions_say_and_batches_change_nothing() -> None:
    model, task = shared("llama"), task_for("llama")
    each = attention_edges(model, task, list(range(7))).values
    spans = {"early": (1, 3), "late": [(4, 7), (4, 7)]}
    found = attention_edges(model, task, spans, batch_size=1)
    assert found.spans == ["early", "late", "rest"]
    groups = [[1, 2], [4, 5, 6], [0, 3]]
    summed = torch.stack([torch.stack([each[..., s, :][..., t].sum((-1, -2)) for t in groups], -1) for s in groups], -2)
    assert (found.values - summed).abs().max() < 1e-12


def test_pools_by_hand() -> None:
    model = shared("llama")
    task = first_alone(task_for("llama"), model)
    each = attention_edges(model, task, list(range(7))).values
    block, spans = each[..., 1:4, :][..., 1:4], {"one": (1, 4)}

    def pooled(how: str) -> Tensor:
        return attention_edges(model, task, spans, pooled=how).values[..., 0, 0]

    assert (pooled("mean") - block.sum((-1, -2)) / 6).abs().max() < 1e-12  # pairs whose key is not behind the query
    assert (pooled("absolute") - block.abs().sum((-1, -2))).abs().max() < 1e-12
    assert (pooled("largest") - block.abs().amax((-1, -2))).abs().max() < 1e-12


def first_alone(task: Task, model: Any) -> Task:
    """The first prompt alone."""
    prompts = task.prompts(model)
    return Task.from_tokens(
        "one", prompts.clean[:1], prompts.corrupted[:1], prompts.correct[:1].tolist(), prompts.incorrect[:1].tolist()
    )


def test_padding_and_what_stands_before_the_first_difference() -> None:
    model = shared("gpt2")
    task = tiny_task(model, n=3, ragged=True)
    found = attention_edges(model, task)
    assert found.spans == ["1", "2", "3", "4", "5", "6", "rest"]
    alone = [
        attention_edges(model, Task.from_tokens("one", *(tokens[i : i + 1, : int(prompts.lengths[i])] for tokens in (
            prompts.clean, prompts.corrupted)), prompts.correct[i : i + 1].tolist(),
            prompts.incorrect[i : i + 1].tolist()), [1]).values[..., 0, 0]
        for prompts in [task.prompts(model)] for i in range(3)
    ]  # fmt: skip
    assert (found.values[..., 0, 0] - sum(alone) / 3).abs().max() < 1e-12
    assert found.values[1:, ..., -1, :].abs().max() == 0  # keys and values that do not differ
    assert found.values[0, ..., -1, :].abs().max() > 0  # which other queries look at


def test_a_result_is_a_table_a_picture_and_a_file(tmp_path: Path) -> None:
    found = attention_edges(shared("llama"), task_for("llama"), {"end": -1, "two": 2})
    frame = found.to_frame()
    assert list(frame) == ["head", "port", "source", "target", "score"]
    assert frame["score"].sum() == pytest.approx(float(found.values.sum()))
    assert len(found.figure().data) == 3
    assert "a1.h2" in found.figure("a1.h2").layout.title.text
    again = AttentionEdges.load(found.save(tmp_path / "edges.json"))
    assert torch.equal(again.values, found.values)
    assert again.spans == ["end", "two", "rest"]
    assert repr(again).startswith("AttentionEdges: 3 spans, most through")
    with pytest.raises(InputError, match=r"head='a9\.h0' is unknown"):
        found.figure("a9.h0")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"form": "finite"}, "form='finite' is unknown"),
        ({"pooled": "max"}, "pooled='max' is unknown"),
        ({"spans": [1, 1]}, "none of them twice"),
        ({"spans": [9]}, "position 9; the longest prompt has 7 tokens"),
        ({"spans": {"a": (1, 3), "b": 2}}, "position 2 of prompt 0 is in two spans, 'a' and 'b'"),
        ({"spans": {"a": (5, 9)}}, "'a' of prompt 0, tokens 5 to 9, is out of the prompt, which has 7 tokens"),
        ({"spans": {"a": "two"}}, "the span 'a' of prompt 0 is 'two'"),
        ({"spans": {}}, "at least one span"),
        ({"spans": {"a": [1]}}, "1 entries for 2 prompts"),
        ({"spans": {"rest": 1}}, "called 'rest'"),
        ({"ablation": "mean"}, "ablation"),
    ],
)
def test_what_cannot_be_asked_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises((InputError, TypeError), match=words):
        attention_edges(shared("llama"), task_for("llama"), **told)


def test_the_spans_of_a_task_are_those_that_are_given():
    model = shared("gpt2")
    plain = tiny_task(model, 4)
    prompts = plain.prompts(model)
    named = Task.from_tokens(
        "named", prompts.clean, prompts.corrupted, [[1]] * 4, [[2]] * 4, prompts.mask, spans={"front": (0, 3)}
    )
    own = attention_edges(model, named, "spans", quiet=True)
    given = attention_edges(model, named, {"front": (0, 3)}, quiet=True)
    assert own.spans == given.spans == ["front", "rest"]
    torch.testing.assert_close(own.values, given.values)
