"""Scores of components at positions: residual stream, attention output and MLP output by prompt, layer and position.

The finest nodes on which approximations are compared with exact patching: the tables of attribution patching and
RelP are made of them.

    score = (clean - corrupted) . dM/d(component) at that position    or, exact,    M(clean) - M(that one corrupted)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.gradient import EAPIGActivations, GradientMethod
from attribution.edges.method import Method
from attribution.edges.patched import ActivationPatching, Exact
from attribution.engines import chosen_method
from attribution.exact import patching_sizes
from attribution.patching import Patcher
from attribution.paths import Path
from attribution.rules.sets import RuleSet
from interp import numbers, theme
from interp.errors import InputError, choose
from interp.kernels.alignment import corrupted_embedding
from interp.kernels.batching import make_batches, refuse_nan, run_batches
from interp.kernels.forward import Recorder, Residual, answer_rows, run_blocks, unembed
from interp.keywords import check_keywords, leftover
from interp.result import Result
from interp.run import RunKeywords
from interp.running import door
from interp.setting import Setting, SettingKeywords
from interp.tasks.refusals import refuse_rows
from interp.tasks.task import Task

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

KINDS = ("resid_pre", "attn_out", "mlp_out")


@dataclass(frozen=True, eq=False, repr=False)
class ComponentScores(Result):
    """Scores `[n, layer, pos]` by kind of component (`resid_pre`, `attn_out`, `mlp_out`; `z` has heads behind).

    `mask` `[n, pos]` is True where a score can be other than zero: at real positions, and under counterfactual
    ablation from the first difference on. `model` and `task` are names.
    """

    values: dict[str, Float[Tensor, "n layer pos ..."]]
    mask: Bool[Tensor, "n pos"]
    method: str
    seconds: float
    model: str = ""
    task: str = ""

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

    def headline(self) -> str:
        sizes = ", ".join(f"{kind} {tuple(values.shape)}" for kind, values in self.values.items())
        return f"{self.method}: {sizes}, {self.seconds:.3g} s"

    @numbers.checked()
    def figure(self, prompt: int = 0) -> Figure:
        """A heat map for each kind of component: layers by positions of one prompt, heads summed."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        if not 0 <= prompt < len(self.mask):
            raise InputError(f"prompt={prompt} must be from 0 to {len(self.mask) - 1}")
        tables = [values[prompt].reshape(*values.shape[1:3], -1).sum(-1) for values in self.values.values()]
        largest = max(float(table.abs().max()) for table in tables) or 1.0
        picture = make_subplots(cols=len(tables), subplot_titles=list(self.values), shared_yaxes=True)
        picture.update_layout(coloraxis={"colorscale": theme.DIVERGING, "cmin": -largest, "cmax": largest,
                                         "colorbar": {"title": "score"}})  # fmt: skip
        hover = "layer %{y}<br>position %{x}<br>score %{z:.4g}<extra></extra>"
        for column, table in enumerate(tables, 1):
            picture.add_trace(go.Heatmap(z=table.tolist(), coloraxis="coloraxis", hovertemplate=hover), 1, column)
            picture.update_xaxes(title="position", row=1, col=column)
        picture.update_yaxes(title="layer", col=1)
        picture.update_yaxes(dtick=max(1, len(tables[0]) // 12))
        title = theme.named(self.model, self.task, f"{self.method}: components of prompt {prompt}")
        return theme.styled(picture, title)


class ComponentKeywords(SettingKeywords, RunKeywords, total=False):
    """The keywords of `component_scores`."""

    rules: str | RuleSet | None
    steps: int
    quadrature: str | None


@numbers.checked()
@door
def component_scores(
    model: Any,
    task: Task,
    method: str | Method = "attribution-patching",
    *,
    kinds: str | Sequence[str] = KINDS,
    **keywords: Unpack[ComponentKeywords],
) -> ComponentScores:
    """Score attention outputs, MLP outputs and the residual stream, by prompt, layer and position.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour.
        method: a gradient method (`attribution-patching`, `eap`, `relp`, `gim`, `attnlrp`, `cp-lrp`,
            `clean-corrupted`, `eap-ig`), by name or as an object; or `exact`, which patches one component at one
            position at a time (about half a forward pass for each, on the positions behind the first difference).
        kinds: `resid_pre` (what enters a layer), `attn_out`, `mlp_out`; for gradient methods also `z` (each head).
        **keywords: as for `attribute`: `rules`, `steps`, `quadrature`, `ablation`, `objective`, `batch_size`, `memory`,
            `quiet`.

    Raises:
        InputError: unknown names, a method without a meaning for components, an objective without a gradient.
    """
    check_keywords("component_scores", keywords, ComponentKeywords)
    chosen = chosen_method(method, leftover(keywords, SettingKeywords, RunKeywords))
    return components_in(Setting.of(model, task, keywords), chosen, [kinds] if isinstance(kinds, str) else kinds)


def components_in(setting: Setting, method: Method, kinds: Sequence[str]) -> ComponentScores:
    """`component_scores` in a setting."""
    if not kinds:
        raise InputError(f"kinds names no kind of component; give at least one of {', '.join(KINDS)}")
    if isinstance(method, EAPIGActivations) or not isinstance(method, GradientMethod | Exact | ActivationPatching):
        raise InputError(
            f"method={method.name!r} scores edges alone; for components use 'eap-ig' or 'attribution-patching'"
        )
    for kind in kinds:
        choose("kinds", kind, (*KINDS, "z") if isinstance(method, GradientMethod) else KINDS)
    method.check(setting)
    return _scored(setting, method, kinds)


def _scored(setting: Setting, method: Method, kinds: Sequence[str]) -> ComponentScores:
    anatomy, prompts, ablator = setting.anatomy, setting.prompts, setting.ablator
    refuse_rows(prompts, "scores of components")
    size, stacked = patching_sizes(setting)
    shape = len(prompts), anatomy.n_layers, prompts.clean.shape[1]
    wide = torch.float64 if anatomy.dtype == torch.float64 else torch.float32
    with torch.inference_mode(False):
        values = {
            k: torch.zeros(*shape, *([anatomy.n_heads] if k == "z" else []), dtype=wide, device="cpu") for k in kinds
        }
    started = time.perf_counter()

    def work(batch: Any) -> None:
        patcher = Patcher(anatomy, setting.graph, ablator, setting.goal, batch, stacked)
        if isinstance(method, GradientMethod):
            found = _from_gradients(patcher, kinds, method.path(anatomy.n_layers), method.backward(setting))
        else:
            found = _exact(patcher, kinds)
        for kind, part in found.items():
            values[kind][list(batch.indices), :, batch.start : batch.start + part.shape[2]] = part.to(wide).cpu()
        bar.advance(len(batch))

    with setting.run.progress(f"scoring components ({method.name})", len(prompts)) as bar, torch.inference_mode(False):
        run_batches(make_batches(prompts, size, anatomy.device, skip_prefix=ablator.skip_prefix), work)
    positions = torch.arange(shape[2], device="cpu")
    mask = prompts.mask & (positions >= prompts.first_difference[:, None]) if ablator.skip_prefix else prompts.mask
    for kind, each in values.items():
        values[kind] = each * mask.reshape(shape[0], 1, shape[2], *[1] * (each.ndim - 3))
    seconds = time.perf_counter() - started
    return ComponentScores(values, mask, method.name, seconds, anatomy.name, setting.task.name)


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
    clean = anatomy.embed(batch.prompts.clean[:, batch.start :], frame.positions)
    corrupted = corrupted_embedding(anatomy, batch, frame)
    recorder = _GradientRecorder()
    for group in path.groups:
        for point in group:
            start = (corrupted + point.alpha * (clean - corrupted)).detach().requires_grad_()
            recorder.weight = point.weight
            with torch.enable_grad():
                x = run_blocks(frame, start, recorder)
                logits = unembed(anatomy, answer_rows(x, frame, batch.prompts), backward)
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
