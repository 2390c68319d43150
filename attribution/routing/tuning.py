"""`tune_routers` and `tune_experts`: the first and the last step of Router Lens, on copies of a mixture."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attribution.routing.answering import Answered, Tuning, TuningKeywords, TuningRun, tune
from interp import numbers
from interp.errors import InputError, short
from interp.keywords import check_keywords
from interp.running import evaluated, one_at_a_time, settled

RANK, ALPHA = 8, 32  # of the routers' LoRA, as in the paper
_SLICED = ("gate_up_proj", "down_proj")  # tensors [expert, ...] that transformers fuses all experts into


@dataclass(frozen=True)
class Tuned:
    """A tuned copy of a model.

    Attributes:
        module: a transformers module, for `interp.load_model`.
        losses: the cross-entropy of the answers at each step.
        n_trained: how many numbers were trained.
    """

    module: nn.Module
    losses: list[float]
    n_trained: int


class RouterKeywords(TuningKeywords, total=False):
    """The keywords of `tune_routers` and `tune_experts`."""

    quiet: bool
    resume: str | os.PathLike[str] | None


@numbers.checked(rank=numbers.COUNT, alpha=numbers.POSITIVE)
def tune_routers(
    module: nn.Module, prompts: Any, answers: Any, *, rank: int = RANK, alpha: float = ALPHA,
    **keywords: Unpack[RouterKeywords],
) -> Tuned:  # fmt: skip
    """Tune the routers of a mixture alone, all experts held, so that it answers (Router Lens, arXiv:2508.19594).

    A low-rank change of each router's matrix (LoRA, by peft, whose `target_parameters` reach fused tensors; without
    dropout, which peft refuses there) is trained on the answers' tokens, and then added to the matrix. Which experts
    the tuned routers choose (`attribution.expert_usage`) says which ones serve the answers.

    Args:
        module: a transformers mixture (Mixtral, Qwen3-MoE, OLMoE), not what `load_model` returns; it is copied.
        prompts: ids [n, pos], or a list of ids for each prompt.
        answers: for each prompt the ids of its answer.
        rank, alpha: of the change, alpha / rank times B A.
        **keywords: `epochs` (3), `learning_rate` (5e-4), `batch_size` (8), `warm_up` (0.1), `seed`, `quiet`, and
            `resume`: a file that holds what is done so far; started again with it, an interrupted tuning goes on.

    Returns:
        `Tuned`: `.module` for `interp.load_model`, `.losses`.

    Cost: a forward and a backward pass a prompt and epoch, and a copy of the model.

    Raises:
        InputError: without peft (`pip install faithful-circuits[experts]`), modules without routers, ids that are none,
            a damaged or foreign `resume`.
    """
    check_keywords("tune_routers", keywords, RouterKeywords)
    how, data, peft = Tuning.of(keywords), Answered.of(prompts, answers), _peft()
    own = _copied(module)
    names = [f"{name}.gate.weight" for name in _mixtures(own)]
    with settled(), torch.enable_grad(), one_at_a_time(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)  # peft draws from the global state
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=[], target_parameters=names)
        adapted = peft.get_peft_model(own, config)
        weights = [one for one in adapted.parameters() if one.requires_grad]
        with evaluated(adapted):
            losses = tune(adapted, weights, data, how, _run("routers", keywords, {"rank": rank, "alpha": alpha}))
        merged: nn.Module = adapted.merge_and_unload()
    return Tuned(merged.requires_grad_(False), losses, sum(one.numel() for one in weights))


@numbers.checked()
def tune_experts(
    module: nn.Module,
    prompts: Any,
    answers: Any,
    experts: Sequence[tuple[int, int]],
    **keywords: Unpack[RouterKeywords],
) -> Tuned:
    """Tune chosen experts alone, gate, up and down, all else held (CEFT, the last step of arXiv:2508.19594).

    All experts of a layer lie in one tensor; the gradient is masked to the slices of those that were chosen. Tune as
    many random experts of the same layers beside them (`ExpertUsage.random_experts`): the paper has no such control.

    Args:
        module, prompts, answers: as for `tune_routers`; of a model with tuned routers give its `.module`, or the
            original one, as in the paper.
        experts: pairs (layer, expert), such as `ExpertUsage.experts(1)`.
        **keywords: as for `tune_routers`.

    Returns:
        `Tuned`: `.module` for `interp.load_model`, `.losses`.

    Cost: as `tune_routers`; Adam holds twice the tensors that chosen experts lie in.

    Raises:
        InputError: experts that the model has not, modules without routers, ids that are none, a damaged or foreign
            `resume`.
    """
    check_keywords("tune_experts", keywords, RouterKeywords)
    how, data = Tuning.of(keywords), Answered.of(prompts, answers)
    own = _copied(module).requires_grad_(False)
    masks = _masks(own, experts)
    weights = []
    for parameter, mask in masks:
        parameter.requires_grad_(True)
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
        weights.append(parameter)
    with settled(), torch.enable_grad(), evaluated(own):
        told = {"experts": sorted({(int(layer), int(expert)) for layer, expert in experts})}
        losses = tune(own, weights, data, how, _run("experts", keywords, told))
    trained = sum(int(mask.sum()) * one[0].numel() for one, mask in masks)
    for parameter in weights:
        parameter.grad, parameter._backward_hooks = None, None
    return Tuned(own.requires_grad_(False), losses, trained)


def _run(what: str, keywords: RouterKeywords, told: dict[str, Any]) -> TuningRun:
    return TuningRun(f"tuning {what}", bool(keywords.get("quiet", False)), keywords.get("resume"), told)


def _masks(module: nn.Module, experts: Sequence[tuple[int, int]]) -> list[tuple[nn.Parameter, Tensor]]:
    """The fused tensors that chosen experts lie in, each with 1 for its chosen slices, [expert, 1, 1]."""
    mixtures = {int(name.split(".")[-2]): part for name, part in _mixtures(module).items()}
    wanted: dict[int, set[int]] = {}
    for layer, expert in experts:
        if layer not in mixtures or not 0 <= expert < mixtures[layer].experts.down_proj.shape[0]:
            raise InputError(f"experts={short(list(experts))}: the model has no expert {expert} at layer {layer}")
        wanted.setdefault(layer, set()).add(expert)
    if not wanted:
        raise InputError("experts is empty; give pairs (layer, expert)")
    found = []
    for layer, chosen in wanted.items():
        for name in _SLICED:
            parameter = getattr(mixtures[layer].experts, name)
            mask = torch.zeros(parameter.shape[0], dtype=parameter.dtype, device=parameter.device)
            mask[sorted(chosen)] = 1
            found.append((parameter, mask.view(-1, *[1] * (parameter.ndim - 1))))
    return found


def _copied(module: nn.Module) -> Any:
    if hasattr(module, "original_model") or not isinstance(module, nn.Module):
        raise InputError(
            f"module is a {type(module).__name__}; give the transformers module itself, before interp.load_model"
        )
    return copy.deepcopy(module)


def _mixtures(module: nn.Module) -> dict[str, Any]:
    """By name the parts that hold a router and experts in fused tensors; raises `InputError` where there are none."""
    found = {
        name: part
        for name, part in module.named_modules()
        if isinstance(getattr(getattr(part, "gate", None), "weight", None), nn.Parameter)
        and all(isinstance(getattr(getattr(part, "experts", None), one, None), nn.Parameter) for one in _SLICED)
    }
    if not found:
        raise InputError(
            f"module is a {type(module).__name__}, in which no layer has a router and experts laid out like Mixtral's"
        )
    return found


def _peft() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
            import peft
    except ImportError as error:
        raise InputError(
            f"tuning routers needs peft ({error}); install it with `pip install 'faithful-circuits[experts]'`"
        ) from error
    return peft
