"""Running circuits of nodes: against hooks on the bridge that patch inputs of output matrices, and edge circuits."""

from __future__ import annotations

import pytest
import torch

from attribution.units.patched import patch_neurons
from interp import ComputationalGraph, InputError, Run, Setting
from interp.kernels.ablation import ABLATIONS
from interp.kernels.nodes import NodeRunner
from interp.kernels.unit_constants import UnitConstants
from interp.node_mask import NodeMask, node_masks
from tests.oracle import TOLERANCE, error, logit_difference, mixed_task, model_of
from tests.tiny import HEADS, LAYERS, MLP, mostly_slow, tiny_task

DENSE = ("llama", "gpt2", "gemma2")
OTHERS = ("gptj", "opt")  # side by side, and with biases


def setting_of(name, ablation="patch", task=None):
    model = model_of(name)
    return Setting(model, task or mixed_task(model), ablation, run=Run(quiet=True))


def random_masks(shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) < p for p in (0.2, 0.5, 0.9)[:count]]


# ---- the oracle: every node's output is written over as it passes


def residual_factor(model, layer, hidden):
    """By how much the norm behind an MLP multiplies what a neuron writes: the same for all neurons of a position."""
    block = model.blocks[layer]
    if not hasattr(block, "ln2_post"):
        return torch.ones_like(hidden[..., :1])
    norm, out = block.ln2_post.original_component, block.mlp.out.original_component(hidden)
    return 1 / (out.square().mean(-1, keepdim=True) + norm.eps).sqrt()


def spoken(model, tokens):
    """Of each layer the neurons' activations times that factor, in a plain run."""
    points = [f"blocks.{i}.mlp.out.hook_in" for i in range(LAYERS)]
    _, kept = model.run_with_cache(tokens, names_filter=points)
    return [kept[point] * residual_factor(model, i, kept[point]) for i, point in enumerate(points)]


def ablated_neurons(model, prompts, ablation):
    """`ablation` by name, or constants: of each layer [2, d_mlp], those of the first position and of all others."""
    clean = spoken(model, prompts.clean)
    if not isinstance(ablation, str):
        return [torch.cat((two[:1], two[1:].expand(x.shape[1] - 1, -1))).expand_as(x)
                for two, x in zip(ablation, clean, strict=True)]  # fmt: skip
    if ablation == "patch":
        return spoken(model, prompts.corrupted)
    if ablation == "zero":
        return [torch.zeros_like(x) for x in clean]
    real, over = prompts.mask[..., None], 0 if ablation == "mean-positional" else (0, 1)
    return [((x * real).sum(over, keepdim=True) / real.sum(over, keepdim=True)).expand_as(x) for x in clean]


@torch.no_grad()
def by_hooks(model, prompts, mask, ablation):
    """The objective when the neurons outside of `mask` [layer, (pos,) d_mlp] give what they give when ablated."""
    others = ablated_neurons(model, prompts, ablation)

    def write(x, hook, layer):
        factor = residual_factor(model, layer, x)
        held.append(factor)
        return torch.where(mask[layer], x, others[layer] / factor)

    def hold(x, hook, layer):
        """The norm behind the MLP, with the divisor of what the MLP would have given."""
        norm = model.blocks[layer].ln2_post.original_component
        out = model.blocks[layer].mlp.out.original_component
        return out(last[layer]) * held[layer] * (1 + norm.weight)

    held, last, hooks = [], {}, []
    for layer in range(LAYERS):

        def remember(x, hook, layer=layer):
            last[layer] = x

        point = f"blocks.{layer}.mlp.out.hook_in"
        hooks.append((point, lambda x, hook, layer=layer: write(x, hook, layer)))
        hooks.append((point, remember))
        if hasattr(model.blocks[layer], "ln2_post"):
            hooks.append((f"blocks.{layer}.ln2_post.hook_out", lambda x, hook, layer=layer: hold(x, hook, layer)))
    return logit_difference(model.run_with_hooks(prompts.clean, fwd_hooks=hooks), prompts)[0]


@pytest.mark.parametrize("name", DENSE + OTHERS)
def test_neurons_outside_give_what_hooks_write_into_the_output_matrix(name):
    for ablation in ABLATIONS:
        setting = setting_of(name, ablation)
        masks = random_masks((LAYERS, MLP))
        found = setting.measure([NodeMask(mask, "neuron") for mask in masks])
        prompts = setting.prompts
        expected = [by_hooks(setting.model, prompts, mask[:, None], ablation) for mask in masks]
        assert error(found.circuits, torch.stack(expected)) < TOLERANCE, ablation
        nothing = by_hooks(setting.model, prompts, torch.zeros(LAYERS, 1, MLP, dtype=torch.bool), ablation)
        assert error(found.empty, nothing) < TOLERANCE, ablation
        assert float((found.empty - found.clean).abs().max()) > 1e-3


@pytest.mark.parametrize("name", DENSE)
def test_constants_are_what_neurons_outside_give(name):
    setting = setting_of(name)
    units = torch.randn(2, LAYERS, MLP, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = setting.anatomy.name, tuple(setting.anatomy.weights_digest())
    constants = UnitConstants(units, None, torch.zeros(2, 1), *known)
    masks = [*random_masks((LAYERS, MLP), 1), torch.zeros(LAYERS, MLP, dtype=torch.bool)]
    under = setting.under(ablation="optimal", constants=constants)
    found = under.measure([NodeMask(mask, "neuron") for mask in masks])
    for got, mask in zip(found.circuits, masks, strict=True):
        assert error(got, by_hooks(setting.model, setting.prompts, mask[:, None], [*units.unbind(1)])) < TOLERANCE


@pytest.mark.parametrize("name", DENSE)
def test_positions_are_told_apart(name):
    model = model_of(name)
    for ablation in ABLATIONS:
        setting = setting_of(name, ablation, tiny_task(model))
        spans, length = (2, 6, 4), setting.prompts.clean.shape[1]
        (mask,) = random_masks((LAYERS, len(spans), MLP), 1)
        by_position = torch.zeros(LAYERS, length, MLP, dtype=torch.bool)
        by_position[:, list(spans)] = mask
        found = setting.measure([NodeMask(mask, "neuron", spans)])
        assert error(found.circuits[0], by_hooks(model, setting.prompts, by_position, ablation)) < TOLERANCE, ablation


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "gptj"])
@pytest.mark.parametrize("level", ["neuron", "head", "node"])
def test_all_nodes_are_the_model(name, level):
    setting = setting_of(name)
    full = NodeMask(setting.nodes(level).full, level)
    found = setting.measure([full])
    assert error(found.circuits[0], found.clean) < TOLERANCE
    empty = setting.measure([~full])
    assert torch.equal(empty.circuits[0], found.empty)  # the same mask is not run again


@pytest.mark.parametrize("name", mostly_slow(["llama", "gpt2", "gemma2", "mixtral", "gptj"], lambda n: n != "gpt2"))
def test_heads_and_mlps_are_edge_circuits_in_which_a_node_has_all_its_edges_or_none(name):
    for ablation in ABLATIONS:
        setting = setting_of(name, ablation)
        graph = setting.graph
        heads = [slice(graph.head_sources(i).start, graph.head_sources(i).stop) for i in range(LAYERS)]
        nodes = random_masks((len(graph.sources),))
        heads_alone = random_masks((LAYERS, HEADS))
        edges = []
        for mask in nodes:
            edges.append(mask.clone())
            edges[-1][0] = True
        for mask in heads_alone:
            edges.append(torch.ones(len(graph.sources), dtype=torch.bool))
            for layer, where in enumerate(heads):
                edges[-1][where] = mask[layer]
        expected = setting.measure(torch.stack([one[:, None] & graph.edge_mask for one in edges]))
        found = [setting.measure([NodeMask(one, level) for one in masks]).circuits
                 for masks, level in ((nodes, "node"), (heads_alone, "head"))]  # fmt: skip
        assert error(torch.cat(found), expected.circuits) < TOLERANCE, ablation


@pytest.mark.parametrize("name", ["gemma2", "mixtral", "llama"])
def test_without_one_neuron_the_objective_falls_by_its_exact_score(name):
    setting = setting_of(name)
    width = setting.anatomy.blocks[0].mlp.width
    chosen = [(0, 3), (1, width - 1), (2, 7)]
    masks = []
    for layer, neuron in chosen:
        masks.append(torch.ones(LAYERS, width, dtype=torch.bool))
        masks[-1][layer, neuron] = False
    found = setting.measure([NodeMask(mask, "neuron") for mask in masks])
    frame, _ = patch_neurons(setting, [(layer, -1, neuron) for layer, neuron in chosen], setting.prompts.mask)
    by_place = frame.sort_values(["layer", "prompt"])["score"].to_numpy().reshape(len(chosen), -1)
    assert error(found.clean - found.circuits, torch.tensor(by_place)) < 1e-9


def test_all_experts_neurons_ablated_are_their_mlps_ablated():
    """A mixture has no output bias: without its neurons it gives what the MLP as a node gives when ablated."""
    setting = setting_of("mixtral")
    graph = setting.graph
    without = torch.ones(len(graph.sources), dtype=torch.bool)
    without[[graph.mlp_source(layer) for layer in range(LAYERS)]] = False
    expected = setting.measure([NodeMask(without, "node")]).circuits[0]
    width = setting.anatomy.blocks[0].mlp.width
    nothing = NodeMask(torch.zeros(LAYERS, width, dtype=torch.bool), "neuron")
    assert error(setting.measure([nothing]).circuits[0], expected) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("level", ["neuron", "head", "node"])
def test_real_weights_have_the_gradient_of_finite_differences(name, level):
    setting = setting_of(name)
    grain = setting.nodes(level)
    (batch,) = setting.meter._batches(1 << 30)
    runner = NodeRunner(grain, batch)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(grain.full.shape, generator=generator, dtype=torch.float64)

    def value(w):
        return setting.goal(runner.logits(w[None])[0], batch.prompts, None).sum()

    own = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(own), own)
    direction = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
    step = 1e-5 * direction
    with torch.no_grad():
        slope = (value(weights + step) - value(weights - step)) / 2e-5
    assert abs(float((gradient * direction).sum() - slope)) < 1e-6 * max(1.0, abs(float(slope)))


@pytest.mark.parametrize("name", mostly_slow(["llama", "gemma2", "mixtral"], lambda n: n == "gemma2"))
def test_batches_and_what_was_measured_before_change_nothing(name, monkeypatch):
    model = model_of(name)
    width = setting_of(name).anatomy.blocks[0].mlp.width
    masks = [NodeMask(mask, "neuron") for mask in random_masks((LAYERS, width))]
    whole = Setting(model, mixed_task(model), run=Run(quiet=True)).measure(masks).circuits
    setting = Setting(model, mixed_task(model), run=Run(batch_size=1, quiet=True))
    assert error(setting.measure(masks).circuits, whole) < TOLERANCE
    monkeypatch.setattr(NodeRunner, "logits", None)  # nothing is run again
    assert error(setting.measure(masks[:1]).circuits, whole[:1]) < TOLERANCE
    assert setting.under(objective="logit-difference").measure(masks).circuits.shape == whole.shape


def test_masks_that_do_not_fit_are_refused_in_a_sentence():
    setting = setting_of("llama")
    with pytest.raises(InputError, match="level='neuron' and shape"):
        setting.measure([NodeMask(torch.ones(LAYERS, MLP + 1, dtype=torch.bool), "neuron")])
    with pytest.raises(InputError, match=r"bool tensor \[layer, d_mlp\]"):
        NodeMask(torch.ones(LAYERS, MLP), "neuron")
    with pytest.raises(InputError, match="unequal lengths"):
        setting.measure([NodeMask(torch.ones(LAYERS, 1, MLP, dtype=torch.bool), "neuron", (1,))])
    even = setting_of("llama", task=tiny_task(model_of("llama")))
    with pytest.raises(InputError, match="position 99"):
        even.measure([NodeMask(torch.ones(LAYERS, 1, MLP, dtype=torch.bool), "neuron", (99,))])
    with pytest.raises(InputError, match="none of them twice"):
        NodeMask(torch.ones(LAYERS, 2, MLP, dtype=torch.bool), "neuron", (1, 1))
    with pytest.raises(InputError, match="of one level"):
        setting.measure([NodeMask(torch.ones(LAYERS, MLP, dtype=torch.bool), "neuron"),
                         NodeMask(torch.ones(LAYERS, HEADS, dtype=torch.bool), "head")])  # fmt: skip
    with pytest.raises(InputError, match="spans goes with level"):
        node_masks(torch.ones(2, 2, dtype=torch.bool), None, (1,))
    graph = ComputationalGraph.of(model_of("llama"))
    assert NodeMask(torch.ones(len(graph.sources), dtype=torch.bool), "node").n_nodes == len(graph.sources) - 1
