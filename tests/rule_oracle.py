"""The slow reference for backward rules: a bridge whose parts give `detach` surrogates of the same value.

No line of `interp.kernels` or `attribution.rules` is used. A rule says which part of a product is a constant, so
that plain autograd follows it: a norm is `gain * centred(x) / divisor.detach() + bias`, an activation
`x * (act(x) / x).detach()`, a product of two activations the mean of the products in which one of them is constant.
Every surrogate is checked to have the value of what it stands for.

`Ruled(model, rules)` runs like the bridge and can be given to the functions of `oracle`: what these write into the
output of a part stands (a surrogate comes before it), and what they write into the input of a part is what the part's
surrogate reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor

from interp.graph import ComputationalGraph
from interp.tasks.prompts import Prompts
from tests.oracle import Outputs, differences, expanded, input_edits, input_gradients, mixed_task, source_outputs

Hook = tuple[str, Callable[..., Tensor]]
Linear = Callable[[Tensor, Tensor | None, Tensor], Tensor]  # weight [out, in], bias, x -> the surrogate of y


@dataclass(frozen=True)
class Rules:
    """What is held constant. The plain gradient unless told otherwise."""

    norm: bool = False
    activation: bool = False
    product: bool = False
    routing: bool = False
    attention: Literal["own", "held", "halved"] = "own"  # the pattern held, or halves at both products
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the gradients at queries, keys and values
    temperature: float | None = None  # at which the softmax's Jacobian is taken
    linear: Linear | None = None

    def but(self, **changes: Any) -> Rules:
        return replace(self, **changes)


# as the papers have them
_LRP = Rules(norm=True, activation=True, product=True, routing=True)
NAMED = {
    "gradient": Rules(),
    "relp": _LRP,
    "relp-ah": _LRP.but(attention="held"),
    "cp-lrp": _LRP.but(attention="held"),
    "attnlrp": _LRP.but(attention="halved"),
    "gim": _LRP.but(activation=False, attention="halved", temperature=2.0),
}


def epsilon_rule(epsilon: float) -> Linear:
    """R_i = x_i sum_j w_ij R_j / (y_j + epsilon sign(y_j)): y times the constant y / (y + epsilon sign(y))."""

    def surrogate(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        y = torch.nn.functional.linear(x, weight, bias)
        return _valued(y, y * (y / (y + epsilon * _sign(y))).detach())

    return surrogate


def gamma_rule(gamma: float, epsilon: float) -> Linear:
    """Contributions x_i w_ij of the sign of y_j weigh 1 + gamma; the sum of all of them takes y_j's place."""

    def surrogate(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        y = torch.nn.functional.linear(x, weight, bias)
        contributions = x[..., None, :] * weight  # [..., out, in]
        # a factor of 1 + gamma where a contribution has the output's sign, else 1
        heavier = (contributions * (1 + gamma * (1 + _sign(contributions) * _sign(y)[..., None]) / 2)).sum(-1)
        if bias is not None:
            heavier = heavier + bias * (1 + gamma * (1 + _sign(bias) * _sign(y)) / 2)
        return _valued(y, heavier * (y / (heavier + epsilon * _sign(heavier))).detach())

    return surrogate


def _sign(x: Tensor) -> Tensor:
    return 1 - 2 * (x.detach() < 0).to(x.dtype)  # torch.sign(0) is 0


def _valued(y: Tensor, like: Tensor) -> Tensor:
    """The value of `y`, the gradient of `like`."""
    return y.detach() + like - like.detach()


def held_norm(module: Any, x: Tensor) -> Tensor:
    """A norm with a constant divisor. RMSNorm has no mean; Gemma's gain is one more than its weight."""
    weight, bias = module.weight, getattr(module, "bias", None)
    if isinstance(module, torch.nn.LayerNorm):
        centred, eps = x - x.mean(-1, keepdim=True), module.eps
    else:
        centred = x
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    gain = weight + 1 if type(module).__name__.startswith("Gemma") else weight
    divisor = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    y = centred * gain / divisor.detach()
    return y if bias is None else y + bias


def held_mixture(module: Any, rules: Rules, x: Tensor) -> Tensor:
    """Mixtral's mixture, every expert on every token, weighed by what the router says as constants."""
    experts, rows = module.experts, x.flatten(0, -2)
    chances = (rows @ _own(module.gate).weight.T).softmax(-1).detach()
    best = chances.topk(_own(module.gate).top_k).indices
    chosen = torch.zeros_like(chances).scatter(1, best, 1.0) * chances
    chosen = chosen / chosen.sum(-1, keepdim=True)
    total = torch.zeros_like(rows)
    for i, (gate_up, down) in enumerate(zip(experts.gate_up_proj, experts.down_proj, strict=True)):
        linear = rules.linear or torch_linear
        gate, up = (linear(weight, None, rows) for weight in gate_up.chunk(2))
        hidden = gated(gate, up, experts.act_fn(gate), rules)
        total = total + linear(down, None, hidden) * chosen[:, i, None]
    return total.view_as(x)


def torch_linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def gated(gate: Tensor, up: Tensor, activated: Tensor, rules: Rules) -> Tensor:
    """activated * up, `activated` being the activation of `gate`."""
    if rules.activation:
        activated = gate * (activated / gate).detach()
    return 0.5 * (activated * up.detach() + activated.detach() * up) if rules.product else activated * up


class _Softmax:
    """`torch.nn.functional.softmax`, with the pattern's rule where scores have the four axes of attention."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.plain, self.seen, self.inside = rules, torch.nn.functional.softmax, 0, False

    def __call__(self, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if scores.ndim != 4 or self.inside:  # torch may come back here to find out what to do
            return self.plain(scores, *args, **kwargs)
        self.seen, self.inside = self.seen + 1, True
        try:
            return self._ruled(scores, *args, **kwargs)
        finally:
            self.inside = False

    def _ruled(self, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rules = self.rules
        if rules.attention == "held":
            return self.plain(scores, *args, **kwargs).detach()
        # queries and keys share what the scores get: half of it each
        scores = _half(scores) if rules.attention == "halved" else scores
        pattern = self.plain(scores, *args, **kwargs)
        if rules.temperature is not None:
            soft = self.plain(scores / rules.temperature, *args, **kwargs).detach()
            finite = scores.masked_fill(soft == 0, 0.0)
            # has the gradient soft * (g - soft . g) at the scores
            pattern = _valued(pattern, soft * (finite - (soft * finite).sum(-1, keepdim=True)))
        # pattern and values share what the mixed values get
        return _half(pattern) if rules.attention == "halved" else pattern


def _half(x: Tensor) -> Tensor:
    return 0.5 * x + 0.5 * x.detach()


def _own(part: Any) -> Any:
    return getattr(part, "original_component", part)


class Ruled:
    """A bridge that runs with surrogates in the place of its parts."""

    def __init__(self, model: Any, rules: Rules) -> None:
        self._model, self._rules = model, rules
        self._last: dict[str, Tensor] = {}  # what came by, by hook point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.run_with_hooks(tokens, [])

    def run_with_hooks(self, tokens: Tensor, fwd_hooks: list[Hook]) -> Tensor:
        outputs, inputs = self._hooks
        self._last.clear()
        softmax = _Softmax(self._rules)
        with patch.object(torch.nn.functional, "softmax", softmax):
            logits = self._model.run_with_hooks(tokens, fwd_hooks=[*outputs, *fwd_hooks, *inputs])
        assert softmax.seen == len(self._model.blocks)  # else the rule would be silently off
        cap = getattr(self._model.original_model.config, "final_logit_softcapping", None)
        if cap and self._rules.activation:  # behind all hook points
            x = self._last["unembed.hook_out"]
            logits = _checked(logits, x * (torch.tanh(x / cap) * cap / x).detach())
        return logits

    @functools.cached_property
    def _hooks(self) -> tuple[list[Hook], list[Hook]]:
        """Hooks that come before those of a test, and behind them."""
        rules, model, points = self._rules, self._model, self._model.hook_dict
        before: list[Hook] = []
        behind: list[Hook] = []
        keep: list[Hook] = []

        def stand_in(part: str, surrogate: Callable[[Tensor], Tensor]) -> None:
            seen = f"{part}.hook_in"
            keep.append((seen, functools.partial(self._keep, name=seen)))
            # the output of an MLP's last layer is the MLP's own, where tests write
            given = f"{part.removesuffix('.out')}.hook_out"
            before.append((given, lambda y, hook: _checked(y, surrogate(self._last[seen]).reshape(y.shape))))

        def norm(part: str, module: Any) -> None:
            if rules.norm:
                stand_in(part, lambda x: held_norm(module, x))

        def linear(part: str, component: Any) -> None:
            rule, module = rules.linear, _own(component)
            if rule is not None:
                heads = part.endswith("attn.o")
                weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
                stand_in(part, lambda x: rule(weight, module.bias, x.flatten(2) if heads else x))

        for i, block in enumerate(model.blocks):
            name = f"blocks.{i}"
            for part in ("ln1", "ln1_post", "ln2", "ln2_post", "attn.q_norm", "attn.k_norm"):
                holder = block.attn if "." in part else block
                if f"{name}.{part}.hook_in" in points:
                    norm(f"{name}.{part}", _own(getattr(holder, part.split(".")[-1])))
            for letter in "qkvo":
                linear(f"{name}.attn.{letter}", getattr(block.attn, letter))
            factors = (1.0, 1.0, 0.5) if rules.attention == "halved" else rules.factors
            for letter, factor in zip("qkv", factors, strict=True):
                scaled = functools.partial(self._scaled, factor=factor)
                behind.append((f"{name}.attn.{letter}.hook_out", scaled))
            if f"{name}.mlp.in.hook_out" not in points:
                if rules.routing:
                    module = _own(block.mlp)
                    stand_in(f"{name}.mlp", functools.partial(held_mixture, module, rules))
                continue
            for part in ("in", "gate", "out"):
                if f"{name}.mlp.{part}.hook_in" in points:
                    linear(f"{name}.mlp.{part}", getattr(block.mlp, part))
                    seen = f"{name}.mlp.{part}.hook_out"
                    behind.append((seen, functools.partial(self._keep, name=seen)))
            behind.append((f"{name}.mlp.out.hook_in", functools.partial(self._hidden, mlp=f"{name}.mlp")))
        norm("ln_final", _own(model.ln_final))
        linear("unembed", model.unembed)
        behind.append(("unembed.hook_out", functools.partial(self._keep, name="unembed.hook_out")))
        return before, [*behind, *keep]  # a linear layer reads what other surrogates gave

    def _keep(self, x: Tensor, hook: Any, name: str) -> Tensor:
        self._last[name] = x
        return x

    def _scaled(self, x: Tensor, hook: Any, factor: float) -> Tensor:
        return _valued(x, factor * x)

    def _hidden(self, hidden: Tensor, hook: Any, mlp: str) -> Tensor:
        """What the last linear layer of an MLP reads, as a surrogate made of what the first ones gave."""
        rules, first = self._rules, self._last[f"{mlp}.in.hook_out"]
        gate = self._last.get(f"{mlp}.gate.hook_out")
        if gate is None:
            return _checked(hidden, first * (hidden / first).detach()) if rules.activation else hidden
        if rules.activation:
            return _checked(hidden, gated(gate, first, (hidden / first).detach(), rules))
        return _half(hidden) if rules.product else hidden


def _checked(value: Tensor, surrogate: Tensor) -> Tensor:
    assert surrogate.shape == value.shape
    assert float((surrogate - value).detach().abs().max()) <= 1e-11 * (1 + float(value.detach().abs().max()))
    return surrogate


# ---- scores


def gradients(name: str, rules: Rules, alpha: float = 1.0) -> Outputs:
    """By target of a tiny model: the modified gradient [n, pos, d_model] at what it alone reads.

    In the run whose embedding is `alpha` clean and the rest corrupted, on `mixed_task`.
    """
    model, prompts, graph = parts_of(name)
    clean, corrupted = (source_outputs(model, tokens) for tokens in (prompts.clean, prompts.corrupted))
    edits = input_edits(clean, corrupted, alpha)
    return input_gradients(Ruled(model, rules), prompts, edits, graph.targets)


def parts_of(name: str) -> tuple[Any, Prompts, ComputationalGraph]:
    """The model with one key-value head per query head, its prompts and graph."""
    model = expanded(name)
    return model, mixed_task(model).prompts(model), ComputationalGraph.of(model)


def edge_scores(name: str, points: list[tuple[float, Outputs]], ablation: str = "patch") -> Tensor:
    """[source, target]: differences times weighted gradients, mean over prompts; zero where no edge exists."""
    model, prompts, graph = parts_of(name)
    delta = differences(model, prompts, ablation)
    rows = torch.stack([delta[source].flatten() for source in graph.sources])
    mean = [torch.stack([weight * by[target] for weight, by in points]).sum(0) for target in graph.targets]
    columns = torch.stack([gradient.flatten() for gradient in mean])
    return rows @ columns.T / len(prompts) * graph.edge_mask
