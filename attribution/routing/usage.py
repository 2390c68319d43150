"""`expert_usage`: which experts the routers choose, and with what weight."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attribution.routing.usage_result import ExpertUsage
from interp.errors import InputError, short
from interp.inputs import as_inputs
from interp.running import alone, door, of_this_thread
from interp.tasks.encoding import Encoder


@door
def expert_usage(model: Any, prompts: Any, answers: Sequence[Sequence[int]] | None = None) -> ExpertUsage:
    """Count which experts are chosen, and weigh them by their gates (the second step of Router Lens, arXiv:2508.19594).

    Args:
        model: what `interp.load_model` returns: a mixture whose router gives logits, weights and choices (Mixtral,
            Qwen3-MoE, OLMoE).
        prompts: strings or token ids [n, pos].
        answers: for each prompt the ids of its answer: those tokens alone are counted at which the answer is made, from
            the prompt's last one on. None: all tokens of the prompts.

    Returns:
        `ExpertUsage`: `.share`, `.weight` [layer, expert], `.weights` [token, layer, expert], `.top(2)`, `.figure()`.

    Cost: a forward pass a prompt.

    Raises:
        InputError: a model without such routers, answers that do not fit the prompts.
    """
    started, module, encoder = time.perf_counter(), model.original_model, Encoder(model)
    inputs = as_inputs(prompts, None, encoder.texts, encoder.d_vocab, None)  # also for models without an anatomy
    gates = {layer: gate for layer, block in enumerate(model.blocks) if (gate := _gate(block)) is not None}
    if not gates:
        raise InputError(f"model is a {type(module).__name__}, in which no layer has a router of experts")
    if answers is not None and (len(answers) != len(inputs) or not all(len(one) for one in answers)):
        raise InputError(f"answers must be ids for each of {len(inputs)} prompts, at least one; got {short(answers)}")
    device = next(module.parameters()).device
    found, places = [], []
    for index, (row, length) in enumerate(zip(inputs.ids, inputs.lengths.tolist(), strict=True)):
        answer = [] if answers is None else [int(token) for token in answers[index]]
        ids = torch.cat((row[:length], torch.tensor(answer[:-1], dtype=row.dtype, device="cpu")))
        first = 0 if answers is None else length - 1
        found.append(_weights(model, gates, ids.to(device))[first:])
        places += [(index, position, int(ids[position])) for position in range(first, len(ids))]
    return ExpertUsage(
        weights=torch.cat(found),
        places=torch.tensor(places, device="cpu"),
        layers=list(gates),
        counted="all" if answers is None else "answer",
        model=str(getattr(model.cfg, "model_name", "") or type(module).__name__),
        seconds=time.perf_counter() - started,
    )


def _gate(block: Any) -> Any:
    mlp = getattr(block.mlp, "original_component", None) or block.mlp
    return mlp.gate if hasattr(mlp, "experts") and hasattr(mlp, "gate") else None


@torch.no_grad()
def _weights(model: Any, gates: dict[int, Any], ids: Int[Tensor, " pos"]) -> Float[Tensor, "pos layer expert"]:
    """Routing weights of one prompt, 0 where an expert is not chosen."""
    seen: dict[int, Tensor] = {}
    with alone(model), contextlib.ExitStack() as stack:
        for layer, gate in gates.items():

            def keep(part: Any, given: Any, out: Any, layer: int = layer) -> None:
                if not isinstance(out, tuple) or len(out) != 3:
                    raise InputError(
                        f"the router {type(part).__name__} does not give logits, weights and choices, as Mixtral's does"
                    )
                logits, weights, chosen = out
                full = torch.zeros(len(ids), logits.shape[-1], dtype=weights.dtype, device=weights.device)
                seen[layer] = full.scatter(1, chosen.view(len(ids), -1), weights.view(len(ids), -1)).float().cpu()

            stack.callback(gate.register_forward_hook(of_this_thread(keep)).remove)
        model.original_model(ids[None], use_cache=False)
    return torch.stack([seen[layer] for layer in gates], 1)
