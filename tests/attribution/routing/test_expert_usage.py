"""Usage of experts against transformers' own routers, and of experts that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from attribution import ExpertUsage, expert_usage
from interp import InputError, load_model
from interp.result import Result
from tests.experts import CONTEXT, EXPERT, MEMORY, moe_module, planted_module, planted_task
from tests.tiny import VOCAB, shared

IDS = torch.randint(2, VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["qwen3_moe", "olmoe"])
def test_weights_are_those_of_the_largest_probabilities(tmp_path: Path, kind: str) -> None:
    """Against router logits as transformers gives them, in a model from a folder; also one that has no circuits."""
    module: Any = moe_module(kind, norm_topk_prob=True, **({"moe_intermediate_size": 8} if kind == "qwen3_moe" else {}))
    module.save_pretrained(tmp_path)
    with torch.no_grad():
        logits = torch.stack(module(IDS, output_router_logits=True).router_logits, 1)
    values, chosen = logits.softmax(-1).topk(2)
    wanted = torch.zeros_like(logits).scatter(-1, chosen, values / values.sum(-1, keepdim=True))
    found = expert_usage(load_model(tmp_path), IDS)
    torch.testing.assert_close(found.weights, wanted, rtol=0, atol=1e-5)
    assert found.places[7].tolist() == [1, 1, int(IDS[1, 1])]


@pytest.mark.parametrize("token", [CONTEXT, MEMORY])
def test_the_planted_expert_is_the_most_used(token: int) -> None:
    model = load_model(planted_module())
    prompts = planted_task(model, token).prompts(model)
    truth = torch.zeros(4, dtype=torch.bool)
    truth[EXPERT[token]] = True
    found = expert_usage(model, prompts.clean, prompts.correct.tolist())
    assert metrics.auroc(found.weight[1:], truth[None], level="expert") == 1
    assert found.share[1].tolist() == truth.float().tolist()
    assert found.top(1)["node"].tolist()[1] == f"m1.e{EXPERT[token]}"


def test_answers_are_counted_where_they_are_made(tmp_path: Path) -> None:
    model = shared("mixtral")
    found = expert_usage(model, IDS, [[5, 6], [7]])
    assert found.places.tolist() == [[0, 5, int(IDS[0, 5])], [0, 6, 5], [1, 5, int(IDS[1, 5])]]
    whole = expert_usage(model, torch.cat((IDS[0], torch.tensor([5])))[None])
    torch.testing.assert_close(found.weights[:2], whole.weights[-2:])
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(3, 3))
    assert ((found.weights > 0).sum(-1) == 2).all()
    again = Result.load(found.save(tmp_path / "usage.json"))
    assert isinstance(again, ExpertUsage)
    assert torch.equal(again.weights, found.weights)
    assert len(found.figure().data[0].z) == 3
    assert "of 3 tokens (answer)" in repr(found)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="no layer has a router"):
        expert_usage(shared("llama"), IDS)
    with pytest.raises(InputError, match="ids for each of 2 prompts"):
        expert_usage(shared("mixtral"), IDS, [[1]])
