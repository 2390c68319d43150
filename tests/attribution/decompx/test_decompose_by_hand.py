"""DecompX by hand: small whole numbers (shares, lines, a network of two tokens), and its formulas without any speed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution.decompx.carry import carry
from attribution.decompx.propagate import Options
from attribution.decompx.shares import add_bias, weights
from attribution.decompx.steps import HeldAttention, HeldHead, HeldMLP, HeldNorm, HeldRun, Linearised, Sublayer
from interp.errors import InputError
from interp.parts import Affine, Norm
from tests.attribution.decompx.test_decompose import ACTIVATIONS, BIASES, ENCODERS, ROWS, TOLERANCE, module_of, split
from tests.oracle import error


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- shares of a bias

VECTORS = [[3.0, 4.0], [0.0, -2.0], [0.0, 0.0], [1.0, 0.0]]  # lengths 5, 2, 0, 1
BIAS = [2.0, 1.0]  # inner products 10, -2, 0, 2


def test_every_option_shares_a_bias_as_by_hand() -> None:
    root = math.sqrt(5)
    cosines = [10 / (5 * root), 2 / (2 * root), 0.0, 2 / root]  # 2, 1, 0, 2 over root 5
    assert cosines == pytest.approx([x / root for x in (2, 1, 0, 2)])
    expected = {
        "absdot": [10 / 14, 2 / 14, 0.0, 2 / 14],
        "cosine": [2 / 5, 1 / 5, 0.0, 2 / 5],
        "norm": [5 / 8, 2 / 8, 0.0, 1 / 8],
        "equal": [1 / 3, 1 / 3, 0.0, 1 / 3],  # who contributes nothing gets nothing
        "first": [1.0, 0.0, 0.0, 0.0],
        "separate": [1.0, 0.0, 0.0, 0.0],
    }
    for how, shares in expected.items():
        assert weights(tensor(VECTORS), tensor(BIAS), how).tolist() == pytest.approx(shares, abs=1e-12), how
        added = add_bias(tensor(VECTORS), tensor(BIAS), how)
        by_hand = [[x + 2 * s, y + s] for (x, y), s in zip(VECTORS, shares, strict=True)]
        assert added.tolist() == [pytest.approx(row, abs=1e-12) for row in by_hand], how
        assert added.sum(0).tolist() == pytest.approx([4 + 2, 2 + 1], abs=1e-12)


@pytest.mark.parametrize("how", ["absdot", "cosine", "norm", "equal", "first", "separate"])
def test_where_nobody_has_a_claim_the_first_takes_the_whole(how: str) -> None:
    nothing = torch.zeros(2, 3, 2, dtype=torch.float64)
    assert weights(nothing, tensor(BIAS), how).tolist() == [[1.0, 0.0, 0.0]] * 2
    assert add_bias(nothing, tensor(BIAS), how).sum(1).tolist() == [BIAS] * 2


@pytest.mark.parametrize("how", ["absdot", "cosine"])
def test_what_is_orthogonal_to_a_bias_has_no_claim_to_it(how: str) -> None:
    assert weights(tensor([[1.0, -2.0], [-3.0, 6.0]]), tensor(BIAS), how).tolist() == [1.0, 0.0]


def test_a_bias_of_its_own_for_every_place() -> None:
    # as intercepts of activations are
    vectors, biases = tensor([[[1.0, 0.0], [0.0, 1.0]]] * 2), tensor([[4.0, 4.0], [0.0, 3.0]])
    assert weights(vectors, biases, "norm").tolist() == [[0.5, 0.5], [0.5, 0.5]]
    added = add_bias(vectors, biases, "norm")
    assert added.tolist() == [[[3.0, 2.0], [2.0, 3.0]], [[1.0, 1.5], [0.0, 2.5]]]
    assert weights(tensor([[[1.0, 0.0], [0.0, 1.0]]]), tensor([[3.0, -1.0]]), "absdot").tolist() == [[0.75, 0.25]]


def test_no_bias_changes_nothing() -> None:
    assert add_bias(tensor(VECTORS), None, "absdot").tolist() == VECTORS


# ---- lines

PHI = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # the normal distribution's probability below 1
DENSITY = math.exp(-0.5) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize(
    ("act", "how", "points", "slopes", "intercepts"),
    [
        (torch.relu, "zero-origin", [-2.0, 0.5, 3.0], [0.0, 1.0, 1.0], None),
        (torch.relu, "tangent", [-2.0, 0.5, 3.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
        (torch.relu, "relu", [-2.0, 0.0, 3.0], [0.0, 0.0, 1.0], None),
        # gelu(u) = u P(u) and gelu'(u) = P(u) + u p(u)
        (nn.functional.gelu, "zero-origin", [-1.0, 0.0, 1.0], [1 - PHI, 0.5, PHI], None),
        (
            nn.functional.gelu, "tangent", [-1.0, 0.0, 1.0], [1 - PHI - DENSITY, 0.5, PHI + DENSITY],
            [-DENSITY, 0.0, -DENSITY],
        ),
        (nn.functional.gelu, "relu", [-1.0, 0.0, 1.0], [0.0, 0.0, 1.0], None),
        # tanh(log 2) = 3/5 and tanh(log 3) = 4/5
        (
            torch.tanh, "zero-origin", [-math.log(2), 0.0, math.log(3)], [0.6 / math.log(2), 1.0, 0.8 / math.log(3)],
            None,
        ),
        (
            torch.tanh, "tangent", [-math.log(2), 0.0, math.log(3)], [0.64, 1.0, 0.36],
            [-0.6 + 0.64 * math.log(2), 0.0, 0.8 - 0.36 * math.log(3)],
        ),
        (torch.tanh, "relu", [-math.log(2), 0.0, math.log(3)], [0.0, 0.0, 1.0], None),
    ],
)  # fmt: skip
def test_lines_by_hand(act: Any, how: str, points: Any, slopes: Any, intercepts: Any) -> None:
    line = Linearised.of(act, tensor(points), how)
    assert line.slope.tolist() == pytest.approx(slopes, abs=1e-12)
    if intercepts is None:
        assert line.intercept is None
    else:
        assert line.intercept is not None
        assert line.intercept.tolist() == pytest.approx(intercepts, abs=1e-12)
    if how != "relu":  # the line goes through the point
        y = line.slope * tensor(points) + (0 if line.intercept is None else line.intercept)
        assert y.tolist() == pytest.approx(act(tensor(points)).tolist(), abs=1e-12)


def test_a_line_holds_no_graph_and_unknown_ones_are_refused() -> None:
    with torch.no_grad():
        line = Linearised.of(torch.tanh, tensor([1.0]), "tangent")
    assert line.intercept is not None
    assert not line.slope.requires_grad
    assert not line.intercept.requires_grad
    with pytest.raises(InputError, match="activation='tangents' is unknown; did you mean 'tangent'"):
        Linearised.of(torch.tanh, tensor([1.0]), "tangents")


# ---- two tokens, one layer


def affine(weight: Any, bias: Any = None) -> Affine:
    module = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    module.weight.data = tensor(weight)
    if bias is not None:
        module.bias.data = tensor(bias)
    return Affine(module)


def attention_only(causal: bool = False) -> HeldRun:
    """x = (1, 0) and (0, 2); values are swapped coordinates plus (1, 0), outputs twice them plus (0, 1).

    The first position attends to itself alone, the second a quarter to the first. Explained, at the second position:
    the first coordinate, and the sum of both less one.
    """
    attention = HeldAttention(
        pattern=tensor([[[1.0, 0.0], [0.25, 0.75]]]),
        value=affine([[0.0, 1.0], [1.0, 0.0]], [1.0, 0.0]),
        output=affine([[2.0, 0.0], [0.0, 2.0]], [0.0, 1.0]),
        kv_of_head=torch.tensor([0]),
    )
    head = HeldHead(1, ((tensor([[1.0, 0.0], [1.0, 1.0]]), tensor([0.0, -1.0])),))
    # position 2: (0, 2) + 2 (1/4 (0 + 1, 1) + 3/4 (2 + 1, 0)) + (0, 1) = (5, 3.5)
    return HeldRun(tensor([[1.0, 0.0], [0.0, 2.0]]), ((Sublayer(attention),),), head, tensor([5.0, 7.5]), causal)


# without biases token 1 gives 2/4 (0, 1) = (0, 1/2) and token 2 gives (0, 2) + 2 * 3/4 (2, 0) = (3, 2);
# the bias of the layer is 2 (1, 0) + (0, 1) = (2, 1), and that of the head (0, -1)
APART = {"separate": [[2.0, 2.0], [0.0, 0.5], [3.0, 5.0]]}
SHARED = {
    # |(0, 1/2) . (2, 1)| : |(3, 2) . (2, 1)| = 1/2 : 8, a share of 1/17: (2/17, 1/2 + 1/17) and (3 + 32/17, 2 + 16/17).
    # Sums are 23/34 and 133/17; the head's bias -1 is shared by them, as 23 : 266
    "absdot": [[2 / 17, 23 / 34 - 23 / 289], [83 / 17, 133 / 17 - 266 / 289]],
    "equal": [[1.0, 2.0 - 0.5], [4.0, 6.5 - 0.5]],
    "first": [[2.0, 3.5 - 1.0], [3.0, 5.0]],
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("how", "expected"), [*APART.items(), *SHARED.items()])
def test_an_attention_layer_by_hand(how: str, expected: Any, causal: bool) -> None:
    found = carry(attention_only(causal), Options(how), [range(len(expected))], matrices=True, states=True)
    assert found.explained.tolist() == [pytest.approx(row, abs=1e-12) for row in expected]
    assert found.explained.sum(0).tolist() == pytest.approx([5.0, 7.5], abs=1e-12)
    assert found.states is not None
    # position 1: (1, 0) + 2 (0 + 1, 1) + (0, 1) = (3, 3); position 2: (5, 3.5)
    assert found.states.sum(2).tolist() == [[pytest.approx([3.0, 3.0]), pytest.approx([5.0, 3.5])]]
    assert not found.states[0, 0, -1].any()  # the first position does not see the second token


def test_the_lengths_and_vectors_by_hand() -> None:
    found = carry(attention_only(), Options("separate"), [range(1), range(1, 3)], matrices=True, states=True)
    assert found.states is not None
    assert found.norms is not None
    assert found.states.tolist() == [[[[2.0, 1.0], [1.0, 2.0], [0.0, 0.0]], [[2.0, 1.0], [0.0, 0.5], [3.0, 2.0]]]]
    assert found.norms[0, 1].tolist() == pytest.approx([math.sqrt(5), 0.5, math.sqrt(13)])
    assert found.norms[0, 0].tolist() == pytest.approx([math.sqrt(5), math.sqrt(5), 0.0])


def test_the_first_layers_value_bias_may_stay_with_the_tokens() -> None:
    # token k's value brings the bias along: (1/2, 0) and (3/2, 0) of (2, 0); the output's bias (0, 1) is shared
    found = carry(attention_only(), Options("equal", first_value_bias="kept"), [range(2)], states=True)
    assert found.states is not None
    assert found.states[0, 1].tolist() == [[0.5, 1.0], [4.5, 2.5]]
    assert found.explained.tolist() == [[0.5, 1.0], [4.5, 6.5]]


# ---- a norm and an MLP


def norm(kind: Any, gain: Any, bias: Any = None) -> Norm:
    module: Any = nn.LayerNorm(2, eps=0.0).double()
    module.weight.data = tensor(gain)
    module.bias = None if bias is None else nn.Parameter(tensor(bias))
    return Norm(module, kind, 0.0)


def test_norms_by_hand() -> None:
    # (5, 1) as (4, 0) + (1, 1): mean 3, divisor 2; the second vector is its own mean
    layer = HeldNorm.of(norm("layer", [1.0, 3.0], [7.0, 7.0]), tensor([[5.0, 1.0]]))
    assert layer.divisor.tolist() == [[2.0]]
    assert layer.without_bias(tensor([[[4.0, 0.0], [1.0, 1.0]]])).tolist() == [[[1.0, -3.0], [0.0, 0.0]]]
    # (7, 1): root of the mean square is 5
    rms = HeldNorm.of(norm("rms", [5.0, 10.0]), tensor([[7.0, 1.0]]))
    assert rms.without_bias(tensor([[[4.0, 0.0], [3.0, 1.0]]])).tolist() == [[[4.0, 0.0], [3.0, 2.0]]]


@pytest.mark.parametrize(
    ("gate", "activation", "expected"),
    [
        # y = act(g) u with act(x) = x^2, g = x_1 + x_2 = 3, u = x_1 - x_2 = -1: in all -9
        ("held", "zero-origin", [9.0, -18.0]),  # 9 u
        ("held", "tangent", [9.0, -18.0]),  # the gate's own line is not asked for
        ("halves", "zero-origin", [(9 - 3) / 2, (-18 - 6) / 2]),  # slope act(3) / 3 = 3: 3 * (1, 2) * -1
        ("halves", "tangent", [(9 - 6 + 9) / 2, (-18 - 12) / 2]),  # slope 6, intercept -9 (all to the first) times -1
    ],
)
def test_a_gated_mlp_by_hand(gate: str, activation: str, expected: list[float]) -> None:
    up, gates, down = affine([[1.0, -1.0]]), affine([[1.0, 1.0]]), affine([[1.0], [0.0]])
    mlp = HeldMLP(up, down, torch.square, tensor([[0.0], [-1.0]]), gates, tensor([[0.0], [3.0]]))
    run = HeldRun(
        # behind attention the second position holds (1, 0) of the first token and (0, 2) of its own
        start=tensor([[2.0, 0.0], [0.0, 4.0]]),
        layers=((Sublayer(_halving()), Sublayer(mlp)),),
        head=HeldHead(1, ((tensor([[1.0, 0.0]]), None),)),
        explained=tensor([-8.0]),
        causal=False,
    )
    found = carry(run, Options("first", activation, gate), [range(2)])
    # the residual stream adds the first coordinates: 1 of the first token
    assert found.explained[:, 0].tolist() == pytest.approx([expected[0] + 1, expected[1]], abs=1e-12)
    assert float(found.explained.sum()) == pytest.approx(-8.0)


def _halving() -> HeldAttention:
    """To x_2 it adds half of x_1, and takes half of x_2 away."""
    identity = [[1.0, 0.0], [0.0, 1.0]]
    return HeldAttention(tensor([[[-1.0, 0.0], [0.5, -0.5]]]), affine(identity), affine(identity), torch.tensor([0]))


# ---- encoders and GPT-2 against the method's formulas, one place and one source at a time


@dataclass
class Slow:
    """Steps in the order of the network: each takes and gives [position, source, d], and shares its own biases."""

    bias: str
    activation: str
    apart: int

    def share(self, vectors: Tensor, bias: Tensor) -> Tensor:
        result = vectors.clone()
        for place in range(len(vectors)):
            claims = []
            for v in vectors[place]:
                at = bias if bias.ndim == 1 else bias[place]
                inner, length = float(v @ at), float(v.norm())
                claims.append({
                    "absdot": abs(inner), "cosine": abs(inner) / length if length else 0.0, "norm": length,
                    "equal": float(length > 0), "first": 0.0, "separate": 0.0,
                }[self.bias])  # fmt: skip
            if sum(claims) == 0:
                claims[0] = 1.0
            for source, claim in enumerate(claims):
                result[place, source] += claim / sum(claims) * (bias if bias.ndim == 1 else bias[place])
        return result

    def norm(self, part: Any, seen: Tensor, vectors: Tensor) -> Tensor:
        spread = (seen.var(-1, unbiased=False) + part.eps).sqrt()
        centred = vectors - vectors.mean(-1, keepdim=True)
        return self.share(part.weight * centred / spread[:, None, None], part.bias)

    def act(self, function: Callable[[Tensor], Tensor], seen: Tensor, vectors: Tensor) -> Tensor:
        if self.activation == "zero-origin":
            return vectors * (function(seen) / seen)[:, None]
        if self.activation == "relu":
            return vectors * (seen > 0)[:, None]
        step = 1e-5  # a central difference
        slope = (function(seen + step) - function(seen - step)) / (2 * step)
        return self.share(vectors * slope[:, None], function(seen) - slope * seen)

    def attend(self, pattern: Tensor, v: Any, o: Any, read: Tensor, stream: Tensor, kept: bool = False) -> Tensor:
        heads = len(pattern)
        size = v[0].shape[0] // heads
        out = stream.clone()
        for h in range(heads):
            rows = slice(h * size, (h + 1) * size)
            values = read @ v[0][rows].T
            if kept:
                for place in range(len(values)):
                    values[place, place] += v[1][rows]
            for i in range(len(read)):
                for k in range(len(read)):
                    out[i] += pattern[h, i, k] * values[k] @ o[0][:, rows].T
        return self.share(out, o[1] if kept else o[0] @ v[1] + o[1])

    def linear(self, weight: Tensor, bias: Tensor, vectors: Tensor) -> Tensor:
        return self.share(vectors @ weight.T, bias)

    def start(self, embeddings: Tensor) -> Tensor:
        n, width = embeddings.shape
        vectors = torch.zeros(n, n + self.apart, width, dtype=torch.float64)
        for i in range(n):
            vectors[i, i + self.apart] = embeddings[i]
        return vectors


def watched(model: Any, row: list[int]) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """What every module was given and gave, and what the model said."""
    given: dict[str, Tensor] = {}
    gave: dict[str, Tensor] = {}

    def note(part: Any, args: Any, output: Any, name: str) -> None:
        if args and isinstance(args[0], Tensor):
            given[name] = args[0][0]
        if isinstance(output, Tensor):
            gave[name] = output[0]

    handles = [part.register_forward_hook(functools.partial(note, name=key)) for key, part in model.named_modules()]
    with torch.no_grad():
        said = model(torch.tensor([row]), output_attentions=True)
    for handle in handles:
        handle.remove()
    return given, gave, said


def pair(part: Any, columns: slice | None = None) -> tuple[Tensor, Tensor]:
    """Weight [out, in] and bias; of a `Conv1D` the transpose."""
    weight = part.weight.T if type(part).__name__ == "Conv1D" else part.weight
    return (weight, part.bias) if columns is None else (weight[columns], part.bias[columns])


@torch.no_grad()
def slow_encoder(name: str, row: list[int], slow: Slow, kept: bool) -> tuple[Tensor, Tensor]:
    """Contributions to the classes, and the decomposed vectors behind every layer."""
    model = module_of(name)
    given, gave, said = watched(model, row)
    base = model.base_model_prefix
    x, states = slow.start(gave[f"{base}.embeddings"]), []
    for i, layer in enumerate(model.base_model.encoder.layer):
        at, attention = f"{base}.encoder.layer.{i}", layer.attention
        v, o = pair(attention.self.value), pair(attention.output.dense)
        x = slow.attend(said.attentions[i][0], v, o, x, x, kept and i == 0)
        x = slow.norm(attention.output.LayerNorm, given[f"{at}.attention.output.LayerNorm"], x)
        hidden = slow.linear(*pair(layer.intermediate.dense), x)
        hidden = slow.act(torch.nn.functional.gelu, gave[f"{at}.intermediate.dense"], hidden)
        x = slow.norm(
            layer.output.LayerNorm, given[f"{at}.output.LayerNorm"], x + slow.linear(*pair(layer.output.dense), hidden)
        )
        states.append(x)
    dense = f"{base}.pooler.dense" if name == "bert" else "classifier.dense"
    pooled = slow.act(torch.tanh, gave[dense][None], slow.linear(*pair(model.get_submodule(dense)), x[:1]))
    return slow.linear(*pair(model.classifier if name == "bert" else model.classifier.out_proj), pooled)[
        0
    ], torch.stack(states)


@torch.no_grad()
def slow_gpt2(row: list[int], target: int, slow: Slow, kept: bool) -> tuple[Tensor, Tensor]:
    model = module_of("gpt2")
    given, gave, said = watched(model, row)
    x, states = slow.start(given["transformer.h.0.ln_1"]), []
    for i, block in enumerate(model.transformer.h):
        at = f"transformer.h.{i}"
        read = slow.norm(block.ln_1, given[f"{at}.ln_1"], x)
        v, o = pair(block.attn.c_attn, slice(32, 48)), pair(block.attn.c_proj)
        x = slow.attend(said.attentions[i][0], v, o, read, x, kept and i == 0)
        hidden = slow.linear(*pair(block.mlp.c_fc), slow.norm(block.ln_2, given[f"{at}.ln_2"], x))
        x = x + slow.linear(*pair(block.mlp.c_proj), slow.act(block.mlp.act, gave[f"{at}.mlp.c_fc"], hidden))
        states.append(x)
    x = slow.norm(model.transformer.ln_f, given["transformer.ln_f"][-1:], x[-1:])
    return x[0] @ model.lm_head.weight[[target]].T, torch.stack(states)


@pytest.mark.parametrize("bias", [*BIASES, "kept"])
@pytest.mark.parametrize("name", [*ENCODERS, "gpt2"])
def test_every_option_is_the_slow_formulas(name: str, bias: str) -> None:
    row, kept, how = ROWS[3], bias == "kept", "absdot" if bias == "kept" else bias
    settings: Any = {"bias": how, "first_value_bias": "kept" if kept else "shared", "states": True}
    for activation in ACTIVATIONS if how in ("absdot", "separate") else ACTIVATIONS[:1]:
        slow = Slow(how, activation, int(how == "separate"))
        logits, states = slow_gpt2(row, 7, slow, kept) if name == "gpt2" else slow_encoder(name, row, slow, kept)
        found = split(name, [row], 7 if name == "gpt2" else None, activation=activation, **settings)
        ours = torch.cat((found.bias, found.logits[0])) if slow.apart else found.logits[0]
        tolerance = 1e-6 if activation == "tangent" else TOLERANCE
        assert error(ours, logits) < tolerance, activation
        assert found.states is not None
        assert error(found.states[0], states) < tolerance, activation
        if not slow.apart:
            assert not found.bias.any()
