"""Tuned routers find the planted expert; tuned experts change and nothing else does."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from attribution import expert_usage, tune_experts, tune_routers
from attribution.routing import answering
from attribution.routing.answering import Answered
from interp import InputError, load_model
from tests.experts import NEITHER, moe_module, undecided_module
from tests.tiny import VOCAB, shared, tiny_module

WANTED = 2  # the expert whose output is the answer


def questions(module: Any, n: int = 8) -> tuple[torch.Tensor, list[list[int]]]:
    """Prompts that end in `NEITHER`, and what the last layer's expert 2 would answer there, unlike expert 0."""
    prompts = torch.randint(8, VOCAB, (n, 4), generator=torch.Generator().manual_seed(0))
    prompts[:, -1] = NEITHER
    gate = module.model.layers[1].mlp.gate
    own, logits = gate.weight.data, []
    for expert in (WANTED, 0):
        gate.weight.data = torch.zeros_like(own)
        gate.weight.data[expert] = 1e3 * own[0]
        with torch.no_grad():
            logits.append(module(prompts).logits[:, -1])
    gate.weight.data = own
    return prompts, (logits[0] - logits[1]).argmax(1)[:, None].tolist()


def test_the_tuned_router_weighs_the_planted_expert_most() -> None:
    module = undecided_module()
    prompts, answers = questions(module)
    before = {name: one.clone() for name, one in module.state_dict().items()}
    tuned = tune_routers(module, prompts, answers, epochs=30, learning_rate=0.02, quiet=True)
    assert tuned.losses[-1] < tuned.losses[0]
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    changed = {name for name, one in tuned.module.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == {"model.layers.1.mlp.gate.weight"}  # experts of the first layer write nothing
    truth = torch.arange(4)[None] == WANTED
    found = [expert_usage(load_model(one), prompts, answers) for one in (module, tuned.module)]
    aurocs = [metrics.auroc(one.weight[1:], truth, level="expert") for one in found]
    assert aurocs[0] < 1
    assert aurocs[1] == 1
    assert found[1].experts(1, "weight")[1] == (1, WANTED)


def test_chosen_experts_are_tuned_and_nothing_else() -> None:
    module = undecided_module()
    prompts, answers = questions(module)
    before = {name: one.clone() for name, one in module.state_dict().items()}
    tuned = tune_experts(module, prompts, answers, [(1, WANTED), (1, 0)], epochs=2, quiet=True)
    for name, one in tuned.module.state_dict().items():
        same = [torch.equal(*pair) for pair in zip(one, before[name], strict=True)]
        if name in ("model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"):
            assert same == [expert not in (0, WANTED) for expert in range(4)]
        else:
            assert all(same), name
    sizes = [one[0].numel() for name, one in before.items() if "layers.1.mlp.experts" in name]
    assert tuned.n_trained == 2 * sum(sizes)
    assert tuned.losses[-1] < tuned.losses[0]
    again = tune_experts(module, prompts, answers, [(1, WANTED), (1, 0)], epochs=2, quiet=True)
    assert again.losses == tuned.losses


def test_an_interrupted_tuning_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = undecided_module()
    prompts, answers = questions(module)
    monkeypatch.setattr(answering, "_KEPT_EVERY", 2)
    told: dict[str, Any] = {"epochs": 2, "batch_size": 2, "learning_rate": 0.02, "quiet": True}
    loss, steps = Answered.loss, list[int]()

    def counted(data: Answered, own: Any) -> Any:
        steps.append(len(steps))
        if len(steps) == 6 and cut:
            raise KeyboardInterrupt
        return loss(data, own)

    for name, tune in (("routers", tune_routers), ("experts", functools.partial(tune_experts, experts=[(1, WANTED)]))):
        whole, file = tune(module, prompts, answers, **told), tmp_path / name
        monkeypatch.setattr(Answered, "loss", counted)
        steps, cut = [], True
        with pytest.raises(KeyboardInterrupt):
            tune(module, prompts, answers, resume=file, **told)
        steps, cut = [], False
        again = tune(module, prompts, answers, resume=file, **told)
        assert len(steps) == 4  # of eight: four were kept
        assert again.losses == whole.losses
        assert all(torch.equal(one, whole.module.state_dict()[part]) for part, one in again.module.state_dict().items())
        monkeypatch.setattr(Answered, "loss", loss)
        with pytest.raises(InputError, match="belongs to another run"):
            tune(module, prompts, answers, resume=file, **{**told, "learning_rate": 0.01})


@pytest.mark.parametrize("kind", ["qwen3_moe", "olmoe"])
def test_mixtures_from_a_folder_are_tuned(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    moe_module(kind, **({"moe_intermediate_size": 8} if kind == "qwen3_moe" else {})).save_pretrained(tmp_path)
    module = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts, answers = [[5, 6, 7], [8, 9]], [[3, 4], [5]]
    routed = tune_routers(module, prompts, answers, epochs=2, quiet=True)
    own = module.state_dict()
    changed = {name for name, one in routed.module.state_dict().items() if not torch.equal(one, own[name])}
    assert changed == {f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)}
    usage = expert_usage(load_model(routed.module), [[5, 6, 7]], [[3, 4]])
    tuned = tune_experts(module, prompts, answers, usage.experts(1), epochs=1, quiet=True)
    changed = {name for name, one in tuned.module.state_dict().items() if not torch.equal(one, own[name])}
    assert changed == {
        f"model.layers.{layer}.mlp.experts.{part}" for layer in range(2) for part in ("gate_up_proj", "down_proj")
    }


def test_the_loss_is_that_of_the_answers_tokens() -> None:
    module = tiny_module("mixtral", torch.float32)
    data = Answered.of([[5, 6, 7], [8, 9]], [[3], [4, 5]])
    with torch.no_grad():
        loss = data.loss(module)
        rows = [module(torch.tensor([row])).logits[0].log_softmax(-1) for row in ([5, 6, 7, 3], [8, 9, 4, 5])]
    wanted = -(rows[0][2, 3] + rows[1][1, 4] + rows[1][2, 5]) / 3
    torch.testing.assert_close(loss, wanted)


def test_controls_are_other_experts_of_the_same_layers() -> None:
    usage = expert_usage(shared("mixtral"), torch.randint(2, VOCAB, (2, 6), generator=torch.Generator().manual_seed(0)))
    chosen, others = usage.experts(1), usage.random_experts(1, seed=1)
    assert [layer for layer, _ in chosen] == [layer for layer, _ in others] == [0, 1, 2]
    assert not set(chosen) & set(others)
    assert chosen == [(int(layer), int(usage.share[layer].argmax())) for layer in range(3)]
    with pytest.raises(InputError, match="n=2 experts leave 1 others"):
        usage.random_experts(2)


def test_bad_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = tiny_module("mixtral", torch.float32), ([[5, 6]], [[3]])
    for call, message in (
        (lambda: tune_routers(shared("mixtral"), *asked), "give the transformers module itself"),
        (lambda: tune_routers(tiny_module("llama"), *asked), "no layer has a router and experts"),
        (lambda: tune_routers(module, [[5]], [[3], [4]]), "ids for each of 1 prompts; there are 2"),
        (lambda: tune_routers(module, ["text"], [[3]]), r"prompts\[0\]='text' must be a sequence"),
        (lambda: tune_routers(module, [[5]], [[]]), r"answers\[0\] holds no token"),
        (lambda: tune_experts(module, *asked, []), "experts is empty"),
        (lambda: tune_experts(module, *asked, [(0, 7)]), "no expert 7 at layer 0"),
        (lambda: tune_experts(module, *asked, [(0, 1)], epochs=0), "epochs=0 must be"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'faithful-circuits\[experts\]'"):
        tune_routers(module, *asked)
