"""The held run of an encoder classifier of BERT or RoBERTa type: the transformers modules themselves, under hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from attribution.decompx.steps import HeldAttention, HeldHead, HeldMLP, HeldNorm, HeldRun, Sublayer
from interp.errors import InputError
from interp.parts import Affine, Norm
from interp.running import alone, evaluated, of_this_thread


def refuse_other_encoders(model: Any) -> None:
    """Raise `InputError` for a classifier that is not built like BERT or RoBERTa."""
    try:
        first = model.base_model.encoder.layer[0]
        linear = [first.attention.self.query, first.intermediate.dense, *_head_parts(model)]
        known = isinstance(first.attention.output.LayerNorm, nn.LayerNorm)
        known &= all(isinstance(part, nn.Linear) for part in linear)
    except (AttributeError, IndexError, TypeError):
        known = False
    if not known:
        raise InputError(
            f"decompx explains BERT- and RoBERTa-type sequence classifiers and causal language models; "
            f"{type(model).__name__} is built otherwise"
        )


def _head_parts(model: Any) -> tuple[nn.Linear, nn.Linear]:
    """The dense layer before the tanh, and the one behind it; both read the first token."""
    classifier = model.classifier
    if isinstance(classifier, nn.Linear):
        return model.base_model.pooler.dense, classifier
    return classifier.dense, classifier.out_proj


@torch.no_grad()
def held_encoder(model: Any, ids: Int[Tensor, " pos"]) -> HeldRun:
    """The run over one input. Raises `InputError` if the parts do not make what the model itself makes."""
    base = model.base_model
    dense, readout = _head_parts(model)
    embeddings = base.embeddings
    watched = {"start": embeddings, "pooled": dense}
    for i, layer in enumerate(base.encoder.layer):
        watched |= {
            f"q{i}": layer.attention.self.query,
            f"k{i}": layer.attention.self.key,
            f"up{i}": layer.intermediate.dense,
        }
    norms = {f"n{i}": layer.attention.output.LayerNorm for i, layer in enumerate(base.encoder.layer)}
    norms |= {f"m{i}": layer.output.LayerNorm for i, layer in enumerate(base.encoder.layer)}
    with alone(model), _watching(watched, norms) as seen, evaluated(model):
        logits = model(input_ids=ids[None].to(model.device)).logits[0]
    layers = []
    for i, layer in enumerate(base.encoder.layer):
        own = layer.attention.self
        attention = HeldAttention(
            _pattern(seen[f"q{i}"], seen[f"k{i}"], own.num_attention_heads),
            Affine(own.value),
            Affine(layer.attention.output.dense),
            torch.arange(own.num_attention_heads, device=logits.device),
        )
        mlp = HeldMLP(
            Affine(layer.intermediate.dense),
            Affine(layer.output.dense),
            layer.intermediate.intermediate_act_fn,
            seen[f"up{i}"],
        )
        first, second = (
            HeldNorm.of(Norm(norm, "layer", norm.eps), seen[name])
            for name, norm in ((f"n{i}", layer.attention.output.LayerNorm), (f"m{i}", layer.output.LayerNorm))
        )
        layers.append((Sublayer(attention, closing=first), Sublayer(mlp, closing=second)))
    maps = tuple((part.weight, part.bias) for part in (dense, readout))
    head = HeldHead(0, maps, act=torch.tanh, pre=seen["pooled"])
    run = HeldRun(seen["start"], tuple(layers), head, logits, causal=False)
    _check_head(head, logits)
    _check_layers(run, seen)
    return run


def _pattern(q: Tensor, k: Tensor, heads: int) -> Tensor:
    q, k = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k))
    scores: Tensor = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return scores.softmax(-1)


def _check_head(head: HeldHead, logits: Tensor) -> None:
    """The head must be a tanh between two linear layers."""
    (_, _), (weight, bias) = head.maps
    assert head.pre is not None
    ours = torch.tanh(head.pre) @ weight.T + (0 if bias is None else bias)
    if not torch.allclose(ours, logits, rtol=1e-3, atol=1e-4):
        raise InputError("decompx needs a classification head of dense, tanh, dense; this model's does something else")


def _check_layers(run: HeldRun, seen: dict[str, Tensor]) -> None:
    """What the parts make of the embeddings must be what every norm saw: other encoders have the same names."""
    x = run.start
    known = x.shape[-1] == run.layers[0][0].inner_width
    for i, layer in enumerate(run.layers if known else ()):
        for name, sublayer in zip((f"n{i}", f"m{i}"), layer, strict=True):
            known &= torch.allclose(x + sublayer.made_of(x), seen[name], rtol=1e-3, atol=1e-4)
            assert sublayer.closing is not None
            x = sublayer.closing.norm(seen[name])
    if known and run.head.pre is not None:
        known = torch.allclose(F.linear(x[0], *run.head.maps[0]), run.head.pre, rtol=1e-3, atol=1e-4)
    if not known:
        raise InputError("decompx explains classifiers whose layers are BERT's; this model's do something else")


@contextlib.contextmanager
def _watching(outputs: dict[str, nn.Module], inputs: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What modules give (or are given) for the only input of the batch, while the context lasts."""
    seen: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, module in outputs.items():

            def keep_output(module: nn.Module, given: Any, made: Tensor, name: str = name) -> None:
                seen[name] = made[0]

            stack.callback(module.register_forward_hook(of_this_thread(keep_output)).remove)
        for name, module in inputs.items():

            def keep_input(module: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                seen[name] = given[0][0]

            stack.callback(module.register_forward_pre_hook(of_this_thread(keep_input)).remove)
        yield seen
