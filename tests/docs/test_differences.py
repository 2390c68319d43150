"""Where numbers differ from other implementations on purpose (docs/differences.md): the difference, worked out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch

from attribution import RuleSet, attribute, rule_set
from attribution.rules import HeldGate
from attribution.scores import Scores
from circuits import Circuit
from interp import ComputationalGraph
from interp.inspection import anatomy_of
from interp.mlps import Gated
from interp.models import load_model
from interp.selection import top_n
from metrics.explanation.roar_data import counts
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import tiny_module


def test_ties_go_to_the_first_edges_of_the_graph() -> None:
    """An unstable sort, as MIB's, may take any of them; here the same ones on every machine."""
    graph = ComputationalGraph(n_layers=3, n_heads=4)
    places = graph.edge_mask.nonzero()
    scores = torch.zeros(graph.shape)
    scores[tuple(places[50])] = -1.0
    mask = top_n(scores, graph, 8, pruned=False)
    assert mask.nonzero().tolist() == [*places[:7].tolist(), places[50].tolist()]


def test_cp_lrp_halves_the_gate_and_plus_held_gate_stops_it() -> None:
    """LXT's CP-LRP stops the gradient at the gate; with `HeldGate` ours does."""
    model, task = oracle.model_of("llama"), mixed_task(oracle.model_of("llama"))
    halved = attribute(model, task, "cp-lrp", quiet=True).values
    stopped = attribute(model, task, "eap", rules=rule_set("cp-lrp").plus(HeldGate()), quiet=True).values
    assert error(halved, stopped) > 1e-2
    # of one gated MLP by hand: gradients at its input through value alone, and half of those through both
    mlp = anatomy_of(model).blocks[1].mlp
    assert isinstance(mlp, Gated)
    x = torch.randn(1, 2, model.cfg.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gate = torch.nn.functional.linear(x, mlp.gate.weight, mlp.gate.bias)
    slope = mlp.act(gate) / gate
    up = torch.nn.functional.linear(x, mlp.up.weight, mlp.up.bias)
    ones = torch.ones_like(x) @ mlp.down.weight  # what sums the output hands back
    through_value = (ones * mlp.act(gate)) @ mlp.up.weight
    through_gate = (ones * up * slope) @ mlp.gate.weight

    def gradient(rules: RuleSet) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(mlp(leaf, rules).sum(), leaf)[0]

    assert error(gradient(rule_set("cp-lrp")), (through_value + through_gate) / 2) < TOLERANCE
    assert error(gradient(rule_set("cp-lrp").plus(HeldGate())), through_value) < TOLERANCE


def test_recursive_roar_rounds_shares_half_up() -> None:
    """Its authors cut them off: of 7 tokens 10, 30, 50 and 90 % are 0, 2, 3 and 6 there."""
    maskable = torch.ones(1, 7, dtype=torch.bool)
    assert [int(counts(maskable, share)[0]) for share in (0.1, 0.3, 0.5, 0.9)] == [1, 2, 4, 6]
    assert [int(share * 7) for share in (0.1, 0.3, 0.5, 0.9)] == [0, 2, 3, 6]


def test_node_files_of_eap_ig_rank_the_input_which_is_always_in_here(tmp_path: Path) -> None:
    graph = ComputationalGraph(n_layers=2, n_heads=2)
    scores = torch.tensor([9.0, 3.0, -8.0, 1.0, 7.0, -2.0, 4.0])
    written = Circuit(Scores(scores, graph, method="theirs", level="node"), torch.zeros_like(graph.edge_mask))
    document = json.loads(written.to_eap_ig_json(tmp_path / "nodes.json").read_text())
    read = Circuit.from_eap_ig_json(tmp_path / "nodes.json").scores
    assert document["nodes"]["input"]["score"] == read.values[0] == 9
    # theirs: of the three largest the input is one
    theirs = {graph.sources[i] for i in np.argsort(-scores.abs().numpy())[:3]}
    assert theirs == {"input", "a0.h1", "a1.h0"}
    ours = Circuit(read, read.mask(2))
    assert set(ours.nodes) - {"logits"} == theirs
    # and where the input is small, it is in all the same
    low = Scores(torch.tensor([0.1, *scores[1:].tolist()]), graph, method="theirs", level="node")
    assert set(Circuit(low, low.mask(2)).nodes) - {"logits"} == theirs


def test_a_module_that_is_loaded_has_other_names_for_its_weights_and_a_copy_does_not() -> None:
    module = tiny_module("gpt2")
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    load_model(copy.deepcopy(module))
    assert module.state_dict().keys() == before.keys()
    load_model(module)
    after = module.state_dict()
    assert "transformer.wte.weight" not in after
    assert torch.equal(after["transformer.wte._original_component.weight"], before["transformer.wte.weight"])
    assert len(after) > len(before)
