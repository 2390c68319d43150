"""Rules put on a model itself, for gradients that the user takes: at any hook point, in any code.

The engines need none of this: they hand rules to the kernels. Here the same rules act through hooks on a
TransformerBridge. What a part of the model gives stays what it was; its gradient becomes the rule's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from attribution.rules.sets import RuleSet, rule_set
from interp.anatomy import Affine, Block, Norm
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.backward import replace_gradient
from interp.kernels.forward import softmax
from interp.mlps import Gated, Mixture

Hook = tuple[str, Callable[..., Tensor]]


@contextlib.contextmanager
def applied(model: Any, rules: str | RuleSet) -> Iterator[RuleSet]:
    """A context in which gradients through a TransformerBridge follow backward rules; values stay the same.

    The hooks are taken off at the end, also after an exception; hooks that the model carries stay. Inside, put your
    own hooks on and take gradients with autograd: activation times gradient at a hook point is relevance. A hook
    that *changes* an activation belongs in front: put it on before entering. Two things lie behind your hooks, and
    `attribution.relevance` adds them: attention's factors at queries, keys, values and patterns, and the soft cap of
    Gemma 2's logits, which keeps its own gradient.

    Yields the rules as fitted to the model. Raises `InputError` for unknown rules, for a model that carries hooks,
    and for a softmax temperature where the model's attention gives no access to its softmax (GPT-J, OPT).
    """
    fitted = rule_set(rules, model)
    with model.hooks(fwd_hooks=_hooks(model, fitted)):
        yield fitted


def _hooks(model: Any, rules: RuleSet) -> list[Hook]:
    anatomy, points = anatomy_of(model), model.hook_dict
    hooks: list[Hook] = []
    last: list[Hook] = []  # a linear layer's input is kept behind what other rules make of it
    for i, block in enumerate(anatomy.blocks):
        name = f"blocks.{i}"
        if rules.norms_held:
            for part, norm in _norms(block).items():
                if f"{name}.{part}.hook_in" in points:
                    hooks += _replaced(f"{name}.{part}", rules.norm, norm)
        for part, affine in _affines(block).items() if rules.pull else ():
            keep, replace = _replaced(f"{name}.{part}", rules.affine, affine)
            hooks.append(replace)
            last.append(keep)
        hooks += _attention(model, rules, i)
        hooks += _mlp(rules, block, f"{name}.mlp")
    if rules.norms_held:
        hooks += _replaced("ln_final", rules.norm, anatomy.final_norm)
    if rules.pull:
        hooks += _replaced("unembed", rules.affine, anatomy.unembed)
    return [*hooks, *last]


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


def _replaced(part: str, rule: Callable[[Any, Tensor], Tensor], of: Any) -> list[Hook]:
    """Hooks around a part of the model: its output's gradient becomes that of `rule(of, input)`."""
    seen: list[Tensor] = []

    def keep(x: Tensor, hook: Any) -> Tensor:
        seen[:] = [x]
        return x

    def replace(y: Tensor, hook: Any) -> Tensor:
        x = seen.pop()
        if isinstance(of, Affine) and x.ndim > 3:  # the bridge shows what W_O reads head by head
            x = x.flatten(2)
        return replace_gradient(y, rule(of, x).reshape(y.shape))

    return [(f"{part}.hook_in", keep), (f"{part}.hook_out", replace)]


def _attention(model: Any, rules: RuleSet, layer: int) -> list[Hook]:
    name = f"blocks.{layer}.attn"
    hooks: list[Hook] = []
    if "attention" in rules.by_operation:
        for i, letter in enumerate("qkv"):

            def scale(x: Tensor, hook: Any, i: int = i) -> Tensor:
                return rules.factors(x, x, x)[i]

            hooks.append((f"{name}.{letter}.hook_out", scale))
    if rules.temperature is None:
        return hooks
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

    return [*hooks, (f"{name}.hook_attn_scores", keep), (f"{name}.hook_pattern", soften)]


def _mlp(rules: RuleSet, block: Block, name: str) -> list[Hook]:
    mlp = block.mlp
    if isinstance(mlp, Mixture):
        return _replaced(name, lambda own, x: own(x, rules), mlp) if rules.rules else []
    if not rules.by_operation.keys() & {"activation", "product"}:
        return []
    seen: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any, part: str) -> Tensor:
        seen[part] = x
        return x

    def replace(hidden: Tensor, hook: Any) -> Tensor:
        pre = {part: seen.pop(part) for part in list(seen)}
        surrogate = rules.activation(mlp.act, pre["gate" if "gate" in pre else "in"])
        if "gate" in pre:
            surrogate = rules.product(surrogate, pre["in"])
        return replace_gradient(hidden, surrogate)

    parts = ("gate", "in") if isinstance(mlp, Gated) else ("in",)
    keeps = [(f"{name}.{part}.hook_out", lambda x, hook, part=part: keep(x, hook, part)) for part in parts]
    return [*keeps, (f"{name}.out.hook_in", replace)]
