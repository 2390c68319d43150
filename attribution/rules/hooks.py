"""Rules put on a model itself, for gradients that the user takes: at any hook point, in any code.

The engines need none of this: they hand rules to the kernels. Here the same rules act through hooks on a
TransformerBridge. What a part of the model gives stays what it was; its gradient becomes the rule's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attribution.rules.rules import scale_gradient
from attribution.rules.sets import RuleSet, rule_set
from interp.anatomy import Block
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.backward import replace_gradient
from interp.kernels.forward import softmax
from interp.mlps import Gated, Mixture
from interp.parts import Affine, Norm
from interp.running import alone, evaluated, of_this_thread

Hook = tuple[str, Callable[..., Any]]


@dataclass(frozen=True)
class Surroundings:
    """What rules put on a model: `hooks` at hook points, and `readers` and `writers` behind them, around its parts.

    Hooks that the user puts on later see another tensor than an earlier hook at the same point. What lies behind the
    hook points of a part (at its input a reader, at its output a writer) sees what they leave.
    """

    hooks: list[Hook] = field(default_factory=list)
    readers: list[Hook] = field(default_factory=list)
    writers: list[Hook] = field(default_factory=list)


@contextlib.contextmanager
def applied(model: Any, rules: str | RuleSet) -> Iterator[RuleSet]:
    """A context in which gradients through a TransformerBridge follow backward rules; values stay the same.

    The hooks are taken off at the end, also after an exception. Inside, put your own hooks on, forward or backward, and
    take gradients with autograd: activation times gradient at a hook point is relevance. Two things lie behind the hook
    points, and `attribution.relevance` adds them: what attention's factors make of patterns, and the soft cap of
    Gemma 2's logits, which keeps its own gradient. A hook that *changes* the input of a rule belongs in front of ours:
    `hook_point.add_hook(..., prepend=True)`. Meanwhile the model is in eval mode, and what other threads ask the
    library about it waits.

    Yields the rules as fitted to the model. Raises `InputError` for unknown rules, for a model that carries hooks
    (contexts cannot be nested), for an attention rule that is more than constant factors, and for a softmax
    temperature where the model's attention gives no access to its softmax (GPT-J, OPT).
    """
    with contextlib.ExitStack() as stack:
        fitted = rule_set(rules, model)
        stack.enter_context(alone(model))
        put_on = _around(model, fitted)
        stack.enter_context(evaluated(model))
        stack.enter_context(model.hooks(fwd_hooks=[(name, of_this_thread(hook)) for name, hook in put_on.hooks]))
        for name, reader in put_on.readers:
            inner = _part(model, name).original_component
            stack.callback(inner.register_forward_pre_hook(of_this_thread(_reading(reader)), with_kwargs=True).remove)
        for name, writer in put_on.writers:
            stack.callback(_part(model, name).register_forward_hook(of_this_thread(_writing(writer))).remove)
        yield fitted


def _reading(reader: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(module: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        reader(given[0] if given else named["hidden_states"])

    return hook


def _writing(writer: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
    return lambda module, given, made: writer(made)


def _part(model: Any, name: str) -> Any:
    for word in name.split("."):
        model = model[int(word)] if word.isdigit() else getattr(model, word)
    return model


def _around(model: Any, rules: RuleSet) -> Surroundings:
    anatomy, points, put_on = anatomy_of(model), model.hook_dict, Surroundings()
    for i, block in enumerate(anatomy.blocks):
        name = f"blocks.{i}"
        if "norm" in rules.by_operation:
            for part, norm in _norms(block).items():
                if f"{name}.{part}.hook_in" in points:
                    _norm(put_on, model, f"{name}.{part}", rules, norm)
        for part, affine in _affines(block).items() if "linear" in rules.by_operation else ():
            _replace(put_on, f"{name}.{part}", rules.affine, affine)
        _attention(put_on, model, rules, i)
        _mlp(put_on, rules, block, f"{name}.mlp")
    if "norm" in rules.by_operation:
        _norm(put_on, model, "ln_final", rules, anatomy.final_norm)
    if "linear" in rules.by_operation:
        _replace(put_on, "unembed", rules.affine, anatomy.unembed)
    return put_on


def _norm(put_on: Surroundings, model: Any, part: str, rules: RuleSet, norm: Norm) -> None:
    """A norm under its rule."""
    bridge = _part(model, part)
    if bridge.use_native_layernorm_autograd or getattr(bridge.config, "layer_norm_folding", False):
        _replace(put_on, part, rules.norm, norm)
    elif not rules.norms_held:  # TransformerLens computes the norm itself: nothing lies behind its hook point
        _replace(put_on, part, rules.norm, norm, read_at=f"{part}.hook_in")
    else:  # and shows its scale
        put_on.hooks.append((f"{part}.hook_scale", lambda scale, hook: scale.detach()))


def _norms(block: Block) -> dict[str, Norm]:
    found = {
        "ln1": block.attention_norm,
        "ln1_post": block.attention_post_norm,
        "ln2": block.mlp_norm,
        "ln2_post": block.mlp_post_norm,
        "attn.q_norm": block.q_norm,
        "attn.k_norm": block.k_norm,
    }
    return {part: norm for part, norm in found.items() if norm is not None}


def _affines(block: Block) -> dict[str, Affine]:
    found = {f"attn.{letter}": getattr(block, letter) for letter in "qkvo"}
    if isinstance(block.mlp, Mixture):
        return found
    found |= {"mlp.in": block.mlp.up, "mlp.out": block.mlp.down}
    return {**found, "mlp.gate": block.mlp.gate} if isinstance(block.mlp, Gated) else found


def _replace(
    put_on: Surroundings, part: str, rule: Callable[[Any, Tensor], Tensor], of: Any, read_at: str | None = None
) -> None:
    """The gradient of a part's output becomes that of `rule(of, input)`; the input is read behind its hook point."""
    seen: list[Tensor] = []

    def keep(x: Tensor) -> None:
        seen[:] = [x]

    def replace(y: Tensor, hook: Any) -> Tensor:
        x = seen.pop()
        if isinstance(of, Affine) and x.ndim > 3:  # the bridge shows what W_O reads head by head
            x = x.flatten(2)
        return replace_gradient(y, rule(of, x).reshape(y.shape))

    if read_at is None:
        put_on.readers.append((part, keep))
    else:
        put_on.hooks.append((read_at, lambda x, hook: keep(x)))
    put_on.hooks.append((f"{part}.hook_out", replace))


def _attention(put_on: Surroundings, model: Any, rules: RuleSet, layer: int) -> None:
    name = f"blocks.{layer}.attn"
    if "attention" in rules.by_operation:
        factors = rules.attention_factors
        if factors is None:
            raise InputError(
                f"rules={rules.name!r}: {rules.by_operation['attention']!r} does more than multiply the gradients of "
                "queries, keys and values by constants, which hooks cannot follow; use attribution.attribute"
            )
        for letter, factor in zip("qkv", factors, strict=True):
            put_on.writers.append((f"{name}.{letter}", functools.partial(scale_gradient, factor=factor)))
    if rules.temperature is None:
        return
    if type(model.blocks[layer].attn).__name__ == "AttentionBridge":  # runs the model's own attention as a whole
        raise InputError(
            f"rules={rules.name!r} take a softmax temperature, and the attention of {anatomy_of(model).name!r} gives "
            "no access to its softmax; use attribution.attribute, or rules without a temperature"
        )
    seen: list[Tensor] = []

    def keep(scores: Tensor, hook: Any) -> Tensor:
        seen[:] = [scores]
        return scores

    def soften(pattern: Tensor, hook: Any) -> Tensor:
        return replace_gradient(pattern, softmax(seen.pop(), rules.temperature).to(pattern.dtype))

    put_on.hooks.extend([(f"{name}.hook_attn_scores", keep), (f"{name}.hook_pattern", soften)])


def _mlp(put_on: Surroundings, rules: RuleSet, block: Block, name: str) -> None:
    mlp = block.mlp
    if isinstance(mlp, Mixture):
        if rules.rules:
            _replace(put_on, name, lambda own, x: own(x, rules), mlp)
        return
    if not rules.by_operation.keys() & {"activation", "product"}:
        return
    seen: dict[str, Tensor] = {}

    def keep(x: Tensor, part: str) -> None:
        seen[part] = x

    def replace(hidden: Tensor, hook: Any) -> Tensor:
        pre = {part: seen.pop(part) for part in list(seen)}
        surrogate = rules.activation(mlp.act, pre["gate" if "gate" in pre else "in"])
        if "gate" in pre:
            surrogate = rules.product(surrogate, pre["in"])
        return replace_gradient(hidden, surrogate.reshape(hidden.shape))

    for part in ("gate", "in") if isinstance(mlp, Gated) else ("in",):
        put_on.writers.append((f"{name}.{part}", functools.partial(keep, part=part)))
    put_on.hooks.append((f"{name}.out.hook_in", replace))
