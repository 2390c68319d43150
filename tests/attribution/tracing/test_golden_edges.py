"""Direct edges of the real SmolLM2-135M against figures of the paper authors' code (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

from attribution.tracing.effects import Tracer
from attribution.tracing.held import hold
from attribution.tracing.logits import logit_targets
from attribution.tracing.neurons import Neurons
from attribution.tracing.totals import largest
from attribution.tracing.units import Places, Targets
from interp.inspection import anatomy_of

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["ioi", "capital"])
def test_edges_are_the_references(name, golden, smollm2):
    tensors, _ = golden("neurons_smollm2")
    case = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    held = hold(anatomy_of(smollm2), case["tokens"])
    neurons, chosen = Neurons(held), Places.of(case["top2000.index"][:64])
    logits, values = logit_targets(held, [(case["target"].tolist(), ())], centred=False)
    rows = [neurons.reads(int(layer), chosen.select(chosen.layers == layer)) for layer in chosen.layers.unique()]
    order = chosen.layers.argsort(stable=True)
    found = Tracer(held, neurons, chosen).effects(Targets.joined([*rows, logits]))
    edges, embedded = torch.zeros(64, 64), torch.zeros(len(case["tokens"]), 64)
    edges[:, order], embedded[:, order] = found.units[:-1].T, found.tokens[:-1].T
    assert (edges - case["edges.absolute"]).abs().max() < 1e-5 * case["edges.absolute"].abs().max()
    assert (embedded - case["embed_edges.absolute"]).abs().max() < 1e-5 * case["embed_edges.absolute"].abs().max()
    direct = case["logit_edges.absolute"]
    assert (found.units[-1] - direct).abs().max() < 1e-5 * direct.abs().max()
    assert (found.tokens[-1] - case["embed_logit_edges.absolute"]).abs().max() < 1e-5
    activations = case["top2000.activation"][:64]
    small = 1e-6 * activations.abs().mean()
    assert (edges / (activations + small) - case["edges.relative"]).abs().max() < 1e-4
    assert values.tolist() == pytest.approx(case["logit"].tolist(), abs=1e-4)
    best = largest(held, neurons, logits, torch.ones(1), 200, ())
    assert set(map(tuple, best.places.rows().tolist())) == set(map(tuple, case["top2000.index"][:200].tolist()))
