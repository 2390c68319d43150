"""Scores of components at positions: residual stream, attention output and MLP output by prompt, layer and position.

The finest nodes on which approximations are compared with exact patching: the tables of attribution patching and
RelP are made of them.

    score = (clean - corrupted) . dM/d(component) at that position    or, exact,    M(clean) - M(that one corrupted)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.exact import patching_sizes
from attribution.methods import METHODS
from attribution.patching import Patcher
from attribution.paths import Path, check_rule, clean_corrupted_path, clean_path, input_path
from attribution.rules.sets import RuleSet, rule_set
from interp import numbers
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.ablation import Ablator
from interp.kernels.batching import make_batches, refuse_nan, run_batches
from interp.kernels.forward import Recorder, Residual, last_rows, run_blocks, unembed
from interp.objectives import Objective, get_objective
from interp.progress import progress
from interp.running import door
from interp.tasks.task import Task

KINDS = ("resid_pre", "attn_out", "mlp_out")


@dataclass(frozen=True, eq=False)
class ComponentScores:
    """Scores `[n, layer, pos]` by kind of component (`resid_pre`, `attn_out`, `mlp_out`; `z` has heads behind).

    `mask` `[n, pos]` is True where a score can be other than zero: at real positions, and under counterfactual
    ablation from the first difference on.
    """

    values: dict[str, Float[Tensor, "n layer pos"]]
    mask: Bool[Tensor, "n pos"]
    method: str
    seconds: float

    def to_frame(self) -> pd.DataFrame:
        """Columns kind, prompt, layer, position, score (and head for `z`), where the mask is True."""
        frames = []
        for kind, values in self.values.items():
            where = self.mask[:, None, :].expand(values.shape[:3])
            prompt, layer, position = where.nonzero().T.numpy()
            columns = {"kind": kind, "prompt": prompt, "layer": layer, "position": position}
            rows = values[where]
            if rows.ndim == 1:
                frames.append(pd.DataFrame({**columns, "score": rows.numpy()}))
            else:
                frames += [
                    pd.DataFrame({**columns, "head": h, "score": rows[:, h].numpy()}) for h in range(rows.shape[1])
                ]
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{kind} {tuple(values.shape)}" for kind, values in self.values.items())
        return f"ComponentScores({self.method}: {sizes})"


@numbers.checked(steps=numbers.STEPS)
@door
def component_scores(
    model: Any,
    task: Task,
    method: str = "attribution-patching",
    *,
    kinds: str | Sequence[str] = KINDS,
    rules: str | RuleSet | None = None,
    steps: int = 5,
    quadrature: str = "left",
    ablation: str = "patch",
    objective: str | Objective | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> ComponentScores:
    """Score attention outputs, MLP outputs and the residual stream, by prompt, layer and position.

    Args:
        model, task, rules, steps, quadrature, ablation, objective, batch_size, memory, quiet: as for `attribute`.
        method: a gradient method at the clean run (`attribution-patching`, `eap`, `relp`, `gim`, `attnlrp`,
            `cp-lrp`), `clean-corrupted`, `eap-ig`; or `exact`, which patches one component at one position at a
            time (about half a forward pass for each, on the positions behind the first difference).
        kinds: `resid_pre` (what enters a layer), `attn_out`, `mlp_out`; for gradient methods also `z` (each head).

    Raises:
        InputError: unknown names, a method without a meaning for components, an objective without a gradient.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not kinds:
        raise InputError(f"kinds names no kind of component; give at least one of {', '.join(KINDS)}")
    for kind in kinds:
        choose("kinds", kind, KINDS if method in ("exact", "activation-patching") else (*KINDS, "z"))
    chosen = METHODS[choose("method", method, METHODS)]
    chosen.check_ablation(ablation)
    if chosen.path in ("activations", "mask"):
        raise InputError(f"method={method!r} scores edges alone; for components use 'eap-ig' or 'attribution-patching'")
    chosen.check_rules(rules)
    anatomy, goal = anatomy_of(model), get_objective(objective if objective is not None else task.objective)
    path = None if chosen.path is None else _path(chosen.path, steps, quadrature)
    if path is not None and (not goal.differentiable or (goal.flat_at_clean and path.only_clean)):
        raise InputError(
            f"objective={goal.name!r} has no gradient that method={method!r} could use; try method='exact'"
        )
    graph, prompts = ComputationalGraph.of_anatomy(anatomy), task.prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts, batch_size, memory)
    backward = rule_set(chosen.rules if rules is None else rules).for_anatomy(anatomy)
    size, stacked = patching_sizes(anatomy, graph, prompts, batch_size, memory)
    shape = len(prompts), anatomy.n_layers, prompts.clean.shape[1]
    wide = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    with torch.inference_mode(False):
        values = {
            k: torch.zeros(*shape, *([anatomy.n_heads] if k == "z" else []), dtype=wide, device="cpu") for k in kinds
        }
    started = time.perf_counter()

    def work(batch: Any) -> None:
        patcher = Patcher(anatomy, graph, ablator, goal, batch, stacked)
        found = _exact(patcher, kinds) if path is None else _from_gradients(patcher, kinds, path, backward)
        for kind, part in found.items():
            values[kind][list(batch.indices), :, batch.start : batch.start + part.shape[2]] = part.to(wide).cpu()
        bar.advance(len(batch))

    with progress(f"scoring components ({method})", len(prompts), quiet) as bar, torch.inference_mode(False):
        run_batches(make_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    positions = torch.arange(shape[2], device="cpu")
    mask = prompts.mask & (positions >= prompts.first_difference[:, None]) if ablator.skip_prefix else prompts.mask
    for kind, each in values.items():
        values[kind] = each * mask.reshape(shape[0], 1, shape[2], *[1] * (each.ndim - 3))
    return ComponentScores(values, mask, method, time.perf_counter() - started)


def _path(kind: str, steps: int, quadrature: str) -> Path:
    check_rule(steps, quadrature)
    if kind == "inputs":
        return input_path(steps, quadrature)
    return clean_corrupted_path() if kind == "clean-corrupted" else clean_path()


def _exact(patcher: Patcher, kinds: Sequence[str]) -> dict[str, Tensor]:
    """By kind [batch, layer, pos]."""
    positions, layers = list(range(patcher.frame.n_positions)), range(patcher.anatomy.n_layers)
    return {
        kind: torch.stack([patcher.components(kind, layer, positions) for layer in layers]).permute(2, 0, 1)
        for kind in kinds
    }


def _from_gradients(patcher: Patcher, kinds: Sequence[str], path: Path, backward: RuleSet) -> dict[str, Tensor]:
    """By kind [batch, layer, pos(, head)]: differences times gradients averaged over the path."""
    batch, anatomy = patcher.batch, patcher.anatomy
    frame = replace(patcher.frame, backward=backward)
    clean, corrupted = (
        anatomy.embed(tokens[:, batch.start :], frame.positions)
        for tokens in (batch.prompts.clean, batch.prompts.corrupted)
    )
    recorder = _GradientRecorder()
    for group in path.groups:
        for point in group:
            start = (corrupted + point.alpha * (clean - corrupted)).detach().requires_grad_()
            recorder.weight = point.weight
            with torch.enable_grad():
                x = run_blocks(frame, start, recorder)
                logits = unembed(anatomy, last_rows(x, frame, batch.prompts.lengths), backward)
                values = patcher.objective(logits, batch.prompts, patcher.clean.logits)
                refuse_nan(values, patcher.objective.name, batch)
                torch.autograd.grad(values.sum(), start)
    scores: dict[str, Tensor] = {}
    layers = range(anatomy.n_layers)
    for kind in kinds:
        if kind == "z":
            heads = [patcher.delta[patcher.graph.head_sources(layer)] for layer in layers]
            parts = [torch.einsum("hbpd,bpd->bph", h, recorder.gradients["attn_out", i]) for i, h in enumerate(heads)]
        else:
            parts = [(patcher.component_delta(kind, i) * recorder.gradients[kind, i]).sum(-1) for i in layers]
        scores[kind] = torch.stack(parts, 1)
    return scores


class _GradientRecorder(Recorder):
    """Sums weighted gradients at the residual stream and at what attention and MLP add to it."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.gradients: dict[tuple[str, int], Tensor] = {}

    def _listen(self, kind: str, layer: int, x: Residual) -> None:
        def receive(gradient: Tensor) -> None:
            before = self.gradients.get((kind, layer), 0.0)
            self.gradients[kind, layer] = before + self.weight * gradient.detach()

        x.register_hook(receive)

    def attention_input(self, layer: int, x: Residual) -> None:
        self._listen("resid_pre", layer, x)

    def attention_output(self, layer: int, added: Residual) -> Residual:
        self._listen("attn_out", layer, added)
        return added

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        self._listen("mlp_out", layer, m)
        return m
