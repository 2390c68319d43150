"""`find_circuit(level=...)`: circuits of neurons, heads and nodes: found, judged, saved, refused."""

from __future__ import annotations

import json

import pytest
import torch

import metrics
from attribution import Exact, neurons
from attribution.edges.gradient import EAP, EAPIG
from attribution.edges.mask_ig import MaskIG
from attribution.scores import Scores
from attribution.units.nodes import scores_of_nodes
from circuits import Circuit, NodeCircuit, find_circuit, robustness
from interp import InputError, Run, Setting
from interp.node_mask import NodeMask
from interp.result import Result
from metrics.circuit.evaluate import faithfulness_errors
from tests.oracle import error, mixed_task, model_of
from tests.tiny import HEADS, LAYERS, MLP, tiny_task

QUIET = {"quiet": True, "seed": 3}


@pytest.fixture(scope="module")
def found(model, task):
    return find_circuit(model, task, level="neuron", **QUIET)


def test_a_circuit_of_neurons_is_judged_on_prompts_that_did_not_choose_it(model, task, found):
    assert isinstance(found, NodeCircuit)
    assert found.node_mask.shape == (LAYERS, MLP)
    assert found.node_mask.dtype == torch.bool
    report = found.report
    assert (report.n_scoring, report.n_held_out) == (8, 8)
    assert report.level == "neuron"
    assert report.nodes == found.n_nodes == int(found.node_mask.sum())
    _, held_out = task.split(0.5, 3)
    values = metrics.measure(model, held_out, found, quiet=True)
    gap = (values.clean - values.empty).mean()
    assert report.faithfulness == pytest.approx(float((values.circuits[0] - values.empty).mean() / gap), rel=1e-5)
    left = metrics.measure(model, held_out, ~found.node_mask, level="neuron", quiet=True)
    assert report.complement == pytest.approx(float((left.circuits[0] - left.empty).mean() / gap), rel=1e-4)
    corrupted = Setting(model, held_out, run=Run(quiet=True)).measure(
        Setting(model, task).graph.edge_mask[None] & False
    )
    assert report.behaviour == pytest.approx(float(gap / (values.clean - corrupted.empty).mean()), rel=1e-4)
    assert report.random_faithfulness is not None
    assert report.ladder


def test_the_smallest_circuit_reaches_the_goal_on_the_scoring_prompts_and_one_node_less_does_not(model, task, found):
    scoring, _ = task.split(0.5, 3)
    order = found.scores.values.flatten().argsort(descending=True, stable=True)
    assert torch.equal(found.node_mask.flatten().nonzero()[:, 0], order[: found.n_nodes].sort().values)
    smaller = found.node_mask.clone()
    smaller.view(-1)[order[found.n_nodes - 1]] = False
    masks = torch.stack([found.node_mask, smaller])
    values = metrics.measure(model, scoring, masks, level="neuron")
    errors = faithfulness_errors(values)
    reached = [one.value - error for one, error in zip(metrics.faithfulness(values), errors, strict=True)]
    assert reached[0] >= 0.85
    assert reached[1] < 0.85


def test_scores_are_those_of_neurons_and_of_nodes(model, task, found):
    scoring, _ = task.split(0.5, 3)
    summed = neurons(model, scoring, method="eap-ig", summed=["prompt", "position"], quiet=True).values
    assert torch.allclose(found.scores.values, summed / len(scoring), atol=1e-6)
    heads = find_circuit(model, task, level="head", nodes=3, **QUIET)
    nodes = find_circuit(model, task, level="node", nodes=3, **QUIET)
    graph = heads.graph
    for layer in range(LAYERS):
        assert torch.equal(heads.scores.values[layer], nodes.scores.values[graph.head_sources(layer)])
    assert heads.node_mask.shape == (LAYERS, HEADS)
    assert heads.n_nodes == nodes.n_nodes == 3
    assert nodes.node_mask[0]
    assert set(nodes.nodes) < set(graph.sources) - {"input"}


def test_positions_are_counted_apart(model):
    task = tiny_task(model, n=8)
    circuit = find_circuit(model, task, level="neuron", nodes=40, positions="all", **QUIET)
    first = int(task.prompts(model).first_difference.min())
    length = task.prompts(model).clean.shape[1]
    assert circuit.spans == tuple(range(first, length))
    assert circuit.node_mask.shape == (LAYERS, length - first, MLP)
    assert circuit.n_nodes == 40
    assert set(circuit.to_frame()["position"]) <= set(circuit.spans)
    whole = scores_of_nodes(Setting(model, task, run=Run(quiet=True)), EAPIG(), "neuron")
    apart = scores_of_nodes(Setting(model, task, run=Run(quiet=True)), EAPIG(), "neuron", circuit.spans)
    assert torch.allclose(apart.values.sum(1), whole.values, atol=1e-5)
    with pytest.raises(InputError, match="unequal lengths"):
        find_circuit(model, mixed_task(model, [0, 1, 2, 0]), level="neuron", positions="all", **QUIET)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("level", ["neuron", "head", "node"])
def test_scores_along_weights_add_up_to_the_whole_and_exact_ones_are_differences(name, level):
    setting = Setting(model_of(name), tiny_task(model_of(name)), "mean", run=Run(quiet=True))
    along = scores_of_nodes(setting, MaskIG(steps=40), level)
    full = NodeMask(setting.nodes(level).full, level)
    values = setting.measure([full])
    values_sum = along.values.sum() - (along.values[0] if level == "node" else 0)
    assert float(values_sum) == pytest.approx(float((values.clean - values.empty).mean()), rel=1e-5)


@pytest.mark.parametrize("level", ["neuron", "head", "node"])
def test_what_a_method_carries_and_nodes_cannot_heed_is_refused(level):
    setting = Setting(model_of("llama"), tiny_task(model_of("llama")), run=Run(quiet=True))
    inside = NodeMask(setting.nodes(level).full, level)
    with pytest.raises(InputError, match=rf"rules='relp' scores the whole model.*weights of its {level}s"):
        scores_of_nodes(setting, EAP(rules="relp", inside=inside), level)
    with pytest.raises(InputError, match="carries positions, which are those of edges"):
        scores_of_nodes(setting, EAPIG(positions="all"), level)


def test_exact_scores_of_neurons_are_those_of_patching_one_at_a_time():
    model = model_of("llama")
    task = mixed_task(model)
    chosen = [(0, 3), (1, 5), (2, 23)]
    ours = scores_of_nodes(Setting(model, task, run=Run(quiet=True)), Exact(), "neuron").values
    theirs = neurons(model, task, method="exact", only=chosen, quiet=True).kept.groupby(["layer", "neuron"])["score"]
    means = torch.tensor([theirs.mean()[place] for place in chosen], dtype=torch.float64)
    assert error(torch.stack([ours[place] for place in chosen]), means) < 1e-9


def test_a_balanced_circuit_of_a_size_does_as_well_as_the_model(model, task):
    balanced = find_circuit(model, task, level="neuron", nodes=0.5, **QUIET)
    plain = find_circuit(model, task, level="neuron", nodes=0.5, selection="top-n", **QUIET)
    scoring, _ = task.split(0.5, 3)
    distances = [
        abs(1 - metrics.faithfulness(metrics.measure(model, scoring, one, quiet=True))[0].value)
        for one in (balanced, plain)
    ]
    assert balanced.n_nodes == plain.n_nodes == LAYERS * MLP // 2
    assert distances[0] <= distances[1] + 1e-6


def test_random_nodes_are_of_the_same_layers_and_near_in_norm(model, task, found):
    from interp.kernels.node_norms import node_norms
    from metrics.circuit.controls import random_nodes

    setting = Setting(model, task, run=Run(quiet=True))
    mask = NodeMask(found.scores.values > found.scores.values.flatten().topk(9).values[-1], "neuron")
    drawn = random_nodes(setting, [mask], 4, 0)
    for one in drawn:
        assert torch.equal(one.mask.sum(1), mask.mask.sum(1))
        assert not (one.mask & mask.mask).any()
    assert not torch.equal(drawn[0].mask, drawn[1].mask)
    norms = node_norms(setting.nodes("neuron"))
    far = NodeMask((norms < norms.flatten().quantile(0.5)) & ~mask.mask, "neuron")
    own, random, others = (float(norms[one.mask].mean()) for one in (mask, drawn[0], far))
    assert abs(own - random) < abs(own - others)


def test_norms_are_those_of_what_ablation_takes_from_the_stream():
    """A node's norm is that of its own difference, written out by the bridge's own modules."""
    from interp.kernels.node_norms import node_norms
    from tests.oracle import source_outputs

    model = model_of("llama")
    setting = Setting(model, mixed_task(model), run=Run(quiet=True))
    prompts, graph = setting.prompts, setting.graph
    clean, other = (source_outputs(model, tokens) for tokens in (prompts.clean, prompts.corrupted))
    real = prompts.mask

    def norm(name):
        squares = (clean[name] - other[name]).square().sum(-1)
        return (squares * real).sum().div(real.sum()).sqrt()

    expected = torch.stack([torch.zeros((), dtype=torch.float64), *map(norm, graph.sources[1:])])
    assert error(node_norms(setting.nodes("node")), expected) < 1e-9
    neurons_norms = node_norms(setting.nodes("neuron"))
    mlp = model.blocks[1].mlp
    points = ["blocks.1.mlp.out.hook_in"]
    hidden = [model.run_with_cache(t, names_filter=points)[1][points[0]] for t in (prompts.clean, prompts.corrupted)]
    change = ((hidden[0] - hidden[1]).square() * real[..., None]).sum((0, 1)).div(real.sum()).sqrt()
    expected = change * mlp.out.original_component.weight.norm(dim=0)
    assert error(neurons_norms[1], expected.detach()) < 1e-9


# ---- kept, shown, and taken wherever circuits are


def test_it_is_saved_and_loaded_and_files_of_older_versions_still_are(found, tmp_path):
    again = Circuit.load(found.save(tmp_path / "neurons.json"))
    assert isinstance(again, NodeCircuit)
    assert torch.equal(again.node_mask, found.node_mask)
    assert torch.equal(again.scores.values, found.scores.values)
    assert again.report == found.report
    assert again.provenance == found.provenance
    assert again.setting.to_dict() == found.setting.to_dict()
    assert NodeCircuit.load(tmp_path / "neurons.json").nodes == found.nodes
    content = json.loads((tmp_path / "neurons.json").read_text())
    assert content["version"] == 3
    edges = Circuit(Scores(found.graph.edge_mask.float(), found.graph, method="eap"), found.graph.edge_mask)
    path = edges.save(tmp_path / "edges.json")
    older = json.loads(path.read_text())
    older["version"] = 2
    for name in ("level", "complement", "complement_interval", "behaviour"):
        del older["report"][name]
    del older["scores"]["spans"]
    path.write_text(json.dumps(older))
    assert Circuit.load(path).n_edges == found.graph.n_edges
    with pytest.raises(InputError, match=r"Circuit\.load"):
        NodeCircuit.load(path)
    content["nodes"].popitem()
    (tmp_path / "neurons.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="list of nodes differs"):
        Circuit.load(tmp_path / "neurons.json")


def test_heads_and_mlps_are_a_circuit_of_edges_too(model, task, tmp_path):
    nodes = find_circuit(model, task, level="node", nodes=4, **QUIET)
    edges = nodes.to_circuit()
    assert set(edges.nodes) <= {"input", "logits", *nodes.nodes}
    own, same = (metrics.evaluate(model, task, one, quiet=True) for one in (nodes, edges))
    assert torch.allclose(own, same, atol=1e-5)
    again = Circuit.from_eap_ig_json(edges.to_eap_ig_json(tmp_path / "graph.json"))
    assert torch.equal(again.mask, edges.mask)
    assert torch.equal(again.scores.values, nodes.scores.values)
    with pytest.raises(InputError, match="no set of edges"):
        find_circuit(model, task, level="head", nodes=2, **QUIET).to_circuit()


def test_it_reads_as_a_circuit_does(found):
    assert f"{found.n_nodes:,} of {LAYERS * MLP:,} neurons" in repr(found)
    frame = found.to_frame()
    assert list(frame) == ["node", "layer", "neuron", "score"]
    assert len(frame) == found.n_nodes
    assert frame["score"].abs().is_monotonic_decreasing
    assert tuple(frame["node"]) == found.nodes
    html = found._repr_html_()
    assert "Random neurons" in html
    assert "Without the circuit" in html
    assert found.jaccard(found) == 1.0
    with pytest.raises(InputError, match="different nodes"):
        found.jaccard(NodeCircuit(Scores(torch.zeros(LAYERS, HEADS), found.graph, "eap", level="head"),
                                  torch.zeros(LAYERS, HEADS, dtype=torch.bool)))  # fmt: skip


def test_metrics_take_it(model, task, found, tmp_path):
    own = metrics.evaluate(model, task, found, quiet=True)
    assert torch.allclose(metrics.evaluate(model, task, found.node_mask, level="neuron", quiet=True), own, atol=1e-5)
    mask = found.scores.mask(7)
    assert isinstance(mask, NodeMask)
    assert mask.n_nodes == 7
    assert metrics.evaluate(model, task, mask, quiet=True).shape == (16,)
    assert metrics.prompt_faithfulness(model, task, found, quiet=True).mean.value > 0
    assert metrics.output_agreement(model, task, found, n_random=1, quiet=True).kl_random is not None
    under = robustness(model, task, found, n_random=1, ablations=("zero",), quiet=True).to_frame()
    assert {"as found", "ablation", "objective"} <= set(under["varied"])
    needed = metrics.minimality(model, task, found, sets=1, sample=4, quiet=True)
    assert set(needed.frame["node"]) <= set(found.nodes)
    assert metrics.completeness(model, task, found, sets=2, quiet=True).random is not None


def test_curves_count_nodes_and_their_complements(model, task, found, tmp_path):
    scores = found.scores
    curve = metrics.faithfulness_curve(model, task, scores, n_random=1, complement=True, quiet=True)
    assert curve.level == "neuron"
    assert curve.edges[-1] == LAYERS * MLP
    assert curve.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    assert curve.complement[-1].value == pytest.approx(0, abs=1e-4)
    assert {"random", "complement_low"} <= set(curve.to_frame())
    chosen = [scores.mask(n).mask for n in curve.sizes]
    values = metrics.measure(model, task, torch.stack([~one for one in chosen]), level="neuron", quiet=True)
    left = [one.value for one in metrics.faithfulness(values)]
    assert [one.value for one in curve.complement] == pytest.approx(left, abs=1e-4)
    bare = metrics.faithfulness_curve(model, task, scores.values, level="neuron", quiet=True)
    assert bare.faithfulness == pytest.approx(curve.faithfulness, abs=1e-5)
    assert Result.load(curve.save(tmp_path / "curve.json")).level == "neuron"
    balanced = metrics.faithfulness_curve(model, task, scores, selection="balanced", choosing=task, quiet=True)
    assert balanced.cmd <= curve.cmd + 1e-6
    with pytest.raises(InputError, match="'balanced' or 'top-n'"):
        metrics.faithfulness_curve(model, task, scores, selection="greedy", quiet=True)
    with pytest.raises(InputError, match="do not fit"):
        metrics.faithfulness_curve(model, task, torch.zeros(2, 3), level="neuron", quiet=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"level": "neurons"}, "did you mean 'neuron'"),
        ({"level": "feature"}, "needs dictionaries"),
        ({"level": "neuron", "edges": 10}, "edges is for circuits of edges"),
        ({"level": "neuron", "stable": True, "resamples": 5}, "belong to stable"),
        ({"level": "neuron", "reference": "grown"}, "reference is for circuits of edges"),
        ({"level": "neuron", "nodes": 10**6}, "out of range"),
        ({"level": "neuron", "nodes": 5, "faithfulness": 0.5}, "two ways"),
        ({"level": "neuron", "selection": "greedy"}, "selects edges"),
        ({"level": "head", "nodes": 2, "positions": [3]}, "'mask-ig' and 'exact'"),
        ({"level": "neuron", "positions": [99]}, "position 99"),
        ({"level": "neuron", "method": "edge-pruning"}, "no meaning for neurons"),
        ({"nodes": 5}, "for circuits of nodes"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(model, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        find_circuit(model, tiny_task(model, n=8), **settings, **QUIET)
