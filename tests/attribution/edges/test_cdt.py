"""CD-T: against both parts carried one source at a time through transformers' own weights; its laws; refusals."""

from __future__ import annotations

import functools

import pytest
import torch

import metrics
from attribution import attribute
from attribution.contextual import settled, through_mlp
from circuits import compare_methods, find_circuit, planted
from interp import ComputationalGraph
from interp.errors import InputError
from interp.inspection import anatomy_of
from tests import oracle
from tests.oracle import TOLERANCE, error, logit_difference, mixed_task
from tests.tiny import tiny_module, tiny_task


def settle(b, g):
    """Opposite signs: the larger takes the sum."""
    total, opposite = b + g, b * g < 0
    larger = b.abs() > g.abs()
    return torch.where(opposite, torch.where(larger, total, 0.0), b), torch.where(
        opposite, torch.where(larger, 0.0, total), g
    )


def add_bias(b, g, bias):
    if bias is None:
        return settle(b, g)
    sizes = (b.abs() + g.abs()).clamp(min=1e-300)
    return settle(b + bias * b.abs() / sizes, g + bias * (1 - b.abs() / sizes))


def linear(weight, bias, b, g):
    return add_bias(b @ weight, g @ weight, bias)


def norm(module, b, g):
    x = b + g
    if isinstance(module, torch.nn.LayerNorm):
        divisor = (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
        b, g = ((part - part.mean(-1, keepdim=True)) / divisor * module.weight for part in (b, g))
        return add_bias(b, g, module.bias)
    divisor = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
    return settle(b / divisor * module.weight, g / divisor * module.weight)


class Slow:
    """A GPT-2 or a Llama, its layers by hand: each takes and gives both parts, `[pos, d_model]`."""

    def __init__(self, name):
        self.bridge = oracle.model_of(name)
        self.gpt2 = name == "gpt2"
        whole = tiny_module(name) if self.gpt2 else self.bridge.original_model  # the bridge wraps modules of GPT-2
        inner = whole.transformer if self.gpt2 else whole.model
        self.layers, self.last = (inner.h, inner.ln_f) if self.gpt2 else (inner.layers, inner.norm)
        self.head, self.rotary = whole.lm_head, None if self.gpt2 else inner.rotary_emb
        self.heads = whole.config.num_attention_heads

    def ports(self, layer, b, g):
        """Both parts of queries, keys and values, [pos, head, d_head]."""
        block = self.layers[layer]
        if self.gpt2:
            b, g = norm(block.ln_1, b, g)
            weights = [*zip(block.attn.c_attn.weight.chunk(3, 1), block.attn.c_attn.bias.chunk(3), strict=True)]
        else:
            b, g = norm(block.input_layernorm, b, g)
            parts = [getattr(block.self_attn, f"{letter}_proj") for letter in "qkv"]
            weights = [(part.weight.T, part.bias) for part in parts]
        found = [linear(weight, bias, b, g) for weight, bias in weights]
        width = found[0][0].shape[-1] // self.heads
        split = [[part.unflatten(-1, (-1, width)) for part in pair] for pair in found]
        return [[part.repeat_interleave(self.heads // part.shape[1], 1) for part in pair] for pair in split]

    def turn(self, x):
        if self.rotary is None:
            return x
        cos, sin = (table[0][:, None] for table in self.rotary(x, torch.arange(len(x))[None]))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin

    def attended(self, q, k, v):
        scores = torch.einsum("qhd,khd->hqk", self.turn(q), self.turn(k)) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~torch.ones(len(q), len(q), dtype=torch.bool).tril(), float("-inf"))
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)

    def attention(self, layer, b, g):
        ports = self.ports(layer, b, g)
        own = self.attended(*(pair[0] for pair in ports))
        own, rest = settle(own, self.attended(*(pair[0] + pair[1] for pair in ports)) - own)
        block = self.layers[layer]
        out = (
            (block.attn.c_proj.weight, block.attn.c_proj.bias) if self.gpt2 else (block.self_attn.o_proj.weight.T, None)
        )
        return linear(*out, own, rest)

    def mlp(self, layer, b, g):
        block = self.layers[layer]
        if self.gpt2:
            b, g = linear(block.mlp.c_fc.weight, block.mlp.c_fc.bias, *norm(block.ln_2, b, g))
            b, g = settle(block.mlp.act(b + g) - block.mlp.act(g), block.mlp.act(g))
            return linear(block.mlp.c_proj.weight, block.mlp.c_proj.bias, b, g)
        b, g = norm(block.post_attention_layernorm, b, g)
        gate_b, gate_g = linear(block.mlp.gate_proj.weight.T, None, b, g)
        act = block.mlp.act_fn
        gate_b, gate_g = settle(act(gate_b + gate_g) - act(gate_g), act(gate_g))
        up_b, up_g = linear(block.mlp.up_proj.weight.T, None, b, g)
        b = gate_b * up_b
        return linear(block.mlp.down_proj.weight.T, None, *settle(b, (gate_b + gate_g) * (up_b + up_g) - b))

    def logits(self, b, g):
        return linear(self.head.weight.T, self.head.bias, *norm(self.last, b[-1:], g[-1:]))


@torch.no_grad()
def slow_scores(name, ablation):
    """The scores of all edges, one prompt and one source at a time."""
    slow, graph = Slow(name), ComputationalGraph.of(oracle.model_of(name))
    everything = mixed_task(slow.bridge).prompts(slow.bridge)
    scores, n_layers = torch.zeros(graph.shape, dtype=torch.float64), graph.n_layers
    deltas = oracle.differences(slow.bridge, everything, ablation)
    for number, length in enumerate(everything.lengths.tolist()):
        prompts, tokens = everything.select([number]), everything.clean[[number], :length]
        points = {oracle.norm_input(slow.bridge, kind, i) for kind in ("attention", "mlp") for i in range(n_layers)}
        logits, kept = oracle.run(slow.bridge, tokens, keep=[*points, "ln_final.hook_in"])
        reads = {point: x[0] for point, x in kept.items()}

        def value(found, prompts=prompts, length=length):
            padded = torch.zeros(1, length, found.shape[-1], dtype=torch.float64)
            padded[0, -1] = found
            return float(logit_difference(padded, prompts))

        sizes, nodes = torch.zeros_like(scores), {}
        for row, source in enumerate(graph.sources):
            own = deltas[source][number, :length]
            at = int(source[1:].split(".")[0]) if source != "input" else -1
            beta = own
            for layer in range(max(at, 0), n_layers):
                before, middle = (reads[oracle.norm_input(slow.bridge, kind, layer)] for kind in ("attention", "mlp"))
                if layer > at:
                    first = graph.attention_targets(layer).start
                    for number_of, (part, _) in enumerate(slow.ports(layer, own, before - own)):
                        start = first + number_of * graph.n_heads
                        sizes[row, start : start + graph.n_heads] = part.abs().sum((0, 2))
                    beta = beta + slow.attention(layer, beta, before - beta)[0]
                if layer > at or source.startswith("a"):
                    sizes[row, graph.mlp_target(layer)] = slow.mlp(layer, own, middle - own)[0].abs().sum()
                    part, rest = slow.mlp(layer, beta, middle - beta)
                    assert torch.allclose(part + rest, oracle_mlp(slow.bridge, tokens, layer))
                    beta = beta + part
            final = reads["ln_final.hook_in"]
            for what, part in (("direct", own), ("all", beta)):
                found, rest = slow.logits(part, final - part)
                assert torch.allclose(found + rest, logits[:, -1])
                lost = value(logits[0, -1]) - value(rest[0])
                if what == "direct":
                    scores[row, -1] += lost / len(everything)
                else:
                    nodes[source] = lost
        shares = sizes / sizes.sum(0).clamp(min=1e-300)
        for column, target in enumerate(graph.targets[:-1]):
            scores[:, column] += shares[:, column] * nodes[target.split("<")[0]] / len(everything)
    return scores


def oracle_mlp(bridge, tokens, layer):
    point = oracle.sub_layer(bridge, "mlp", layer)
    return oracle.run(bridge, tokens, keep=[point])[1][point][0]


@pytest.mark.parametrize(("name", "ablation"), [("gpt2", "patch"), ("llama", "mean")])
def test_scores_are_those_of_both_parts_carried_by_hand(name, ablation):
    model = oracle.model_of(name)
    scores = attribute(model, mixed_task(model), "cd-t", ablation=ablation, quiet=True).values
    assert error(scores, slow_scores(name, ablation)) < TOLERANCE
    one = attribute(model, mixed_task(model), "cd-t", ablation=ablation, quiet=True, batch_size=1).values
    assert torch.allclose(one, scores, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gemma3", "gptj", "gpt_neox"])
def test_every_node_is_all_of_what_its_targets_hand_on(name):
    model = oracle.model_of(name)
    scores = attribute(model, mixed_task(model), "cd-t", quiet=True)
    graph, values = scores.graph, scores.values
    assert not values[~graph.edge_mask].any()
    for layer in range(1, graph.n_layers):
        for head in range(graph.n_heads):  # queries, keys and values of a head share out the same whole
            columns = [graph.targets.index(f"a{layer}.h{head}<{letter}>") for letter in "qkv"]
            sums = values[:, columns].sum(0)
            assert torch.allclose(sums, sums[:1].expand(3), atol=1e-10)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_all_of_an_activation_stays_all_and_nothing_stays_nothing(name):
    anatomy = anatomy_of(oracle.model_of(name))
    x = torch.randn(2, 3, anatomy.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for block in anatomy.blocks:
            out = through_mlp(block, torch.stack((x, torch.zeros_like(x))), x)
            normed = block.mlp(block.mlp_norm(x))
            whole = normed if block.mlp_post_norm is None else block.mlp_post_norm(normed)
            gone = block.mlp.act(torch.zeros((), dtype=torch.float64))
            assert float(gone) == 0
            assert torch.allclose(out[0], whole)
            assert not out[1].any()


def test_opposite_signs_are_settled():
    x, beta = torch.tensor([1.0, 1.0, -1.0, 3.0]), torch.tensor([[3.0, -1.0, 1.0, 2.0]])
    assert settled(beta, x).tolist() == [[1.0, 0.0, 0.0, 2.0]]


@functools.cache
def known(name):
    model = planted.load(name)
    return model, model.task.select(range(32))


@pytest.mark.parametrize(("name", "least"), [("induction", 0.95), ("boolean", 0.95), ("greater", 0.95), ("sum", 0.95)])
def test_of_planted_circuits_it_finds_most(name, least):
    model, task = known(name)
    assert metrics.auroc(attribute(model.model, task, "cd-t", quiet=True), model.mask) > least


def test_it_is_compared_and_finds_circuits():
    model, task = known("induction")
    table = compare_methods(model.model, task, methods=["eap", "cd-t"], quiet=True)
    assert set(table.to_frame()["method"]) == {"eap", "cd-t", "random"}
    assert find_circuit(model.model, task, method="cd-t", edges=9, quiet=True).scores.method == "cd-t"


def test_shared_keys_have_the_score_of_the_heads_that_read_them():
    model = oracle.model_of("llama")
    grouped = attribute(model, mixed_task(model), "cd-t", kv="group", quiet=True)
    whole = attribute(model, mixed_task(model), "cd-t", quiet=True).values
    graph = grouped.graph
    keys = grouped.values[:, graph.n_heads : graph.n_heads + graph.n_ports]
    each = whole[:, graph.n_heads : 2 * graph.n_heads].unflatten(1, (graph.n_ports, -1)).sum(-1)
    assert error(keys, each) < TOLERANCE


def test_what_has_no_rule_is_refused():
    model = oracle.model_of("mixtral")
    with pytest.raises(InputError, match="no rule for a mixture of experts"):
        attribute(model, tiny_task(model), "cd-t", quiet=True)
