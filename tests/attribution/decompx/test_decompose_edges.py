"""DecompX as a method for edges: every target's input, decomposed over its sources; against bridge surrogates."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from attribution import attribute, component_scores, methods
from circuits import Circuit, find_circuit
from interp.errors import InputError
from tests import oracle, rule_oracle
from tests.circuits.test_approximation import linear_model
from tests.oracle import MODELS, TOLERANCE, Outputs, error, mixed_task
from tests.rule_oracle import Hook, Ruled, Rules, edge_scores, parts_of
from tests.tiny import mostly_slow, tiny, tiny_task

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral")
HELD = Rules(norm=True, activation=True, routing=True, attention="held")


class HeldGates(Ruled):
    """Surrogates in which the gate of a gated MLP is a constant as well."""

    def run_with_hooks(self, tokens: Tensor, fwd_hooks: list[Hook]) -> Tensor:
        def held(gate: Tensor, up: Tensor, activated: Tensor, rules: Rules) -> Tensor:
            return activated.detach() * up

        with patch.object(rule_oracle, "gated", held):
            return super().run_with_hooks(tokens, fwd_hooks)


def scores(name: str, method: str = "decompx", **settings: Any) -> Tensor:
    model = oracle.model_of(name)
    return attribute(model, mixed_task(model), method, quiet=True, **settings).values


def coefficients(name: str) -> Outputs:
    model, prompts, graph = parts_of(name)
    return oracle.input_gradients(HeldGates(model, HELD), prompts, {}, graph.targets)


def read_differences(name: str) -> Outputs:
    """By target: what its norm reads in the clean run, less what it reads in the corrupted run."""
    model, prompts, graph = parts_of(name)
    points = oracle.norm_inputs(model)
    with torch.no_grad():
        clean, corrupted = (oracle.run(model, ids, keep=points)[1] for ids in (prompts.clean, prompts.corrupted))
    where = {target: oracle.norm_input(model, *oracle.place_of(target)[:2]) for target in graph.targets}
    return {target: clean[point] - corrupted[point] for target, point in where.items()}


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_differences_times_coefficients_of_the_held_network(name: str) -> None:
    ours = scores(name)
    assert error(ours, edge_scores(name, [(1.0, coefficients(name))])) < TOLERANCE
    assert error(scores(name, "eap"), ours) > 1e-2
    if name in GATED:  # the gate's own rule tells it from CP-LRP, which halves
        assert error(scores(name, "cp-lrp"), ours) > 1e-2
    else:
        assert error(scores(name, "cp-lrp"), ours) < TOLERANCE


@pytest.mark.parametrize("name", mostly_slow(MODELS, {"gpt2", "gemma2", "llama"}.__contains__))
def test_the_shares_of_a_target_sum_to_its_total(name: str) -> None:
    # the total knows nothing of sources: what the target reads, from the residual stream itself
    _, prompts, graph = parts_of(name)
    slopes, differences = coefficients(name), read_differences(name)
    totals = torch.stack([(slopes[t] * differences[t]).sum() / len(prompts) for t in graph.targets])
    assert error(scores(name).sum(0), totals) < TOLERANCE
    assert float(totals[graph.targets.index("logits")].abs()) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_queries_and_keys_get_nothing(name: str) -> None:
    _, _, graph = parts_of(name)
    routes = [i for i, target in enumerate(graph.targets) if target.endswith(("<q>", "<k>"))]
    values = scores(name)
    assert not values[:, routes].any()
    assert values[:, [i for i in range(len(graph.targets)) if i not in routes]].any(0).all()


def test_on_a_linear_model_scores_are_exact_patching() -> None:
    model = linear_model()
    task = mixed_task(model)
    exact = attribute(model, task, "exact", quiet=True).values
    assert error(attribute(model, task, "decompx", quiet=True).values, exact) < 1e-8
    for level in ("edge", "node"):
        patched = attribute(model, task, "exact" if level == "edge" else "activation-patching", quiet=True).values
        assert error(attribute(model, task, "decompx", level=level, quiet=True).values, patched) < 1e-8
    places = component_scores(model, task, "exact", quiet=True).values
    found = component_scores(model, task, "decompx", quiet=True).values
    assert all(error(found[kind], places[kind]) < 1e-8 for kind in places)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_batches_change_nothing(name: str) -> None:
    assert error(scores(name, batch_size=1), scores(name)) < TOLERANCE
    assert error(scores(name, memory=1 << 20), scores(name)) < TOLERANCE


def test_the_method_is_its_rule_set_and_says_so() -> None:
    assert "decompx" in set(methods()["method"])
    model = oracle.model_of("llama")
    found = attribute(model, mixed_task(model), "decompx", quiet=True)
    assert found.method == "decompx"
    assert found.settings["rules"]["name"] == "decompx"
    assert "HeldGate()" in found.settings["rules"]["rules"]
    assert torch.equal(scores("llama", "eap", rules="decompx"), found.values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rules": "relp"}, "rules is no setting of method='decompx'"), ({"objective": "kl"}, "gradient of zero")],
    ids=str,
)
def test_what_has_no_meaning_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scores("gpt2", **settings)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_circuit_found_by_it_is_saved_with_its_method(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    task = tiny_task(model, 12)
    found = find_circuit(model, task, method="decompx", edges=40, selection="top-n", n_random=1, quiet=True)
    expected = attribute(model, task.split(0.5, 0)[0], "decompx", quiet=True)
    assert torch.equal(found.scores.values, expected.values)
    assert torch.equal(found.mask, expected.mask(40))
    assert found.scores.method == found.provenance["method"] == "decompx"
    found.save(tmp_path / "circuit")
    again = Circuit.load(tmp_path / "circuit")
    assert again.scores.method == again.provenance["method"] == "decompx"
    assert torch.equal(again.mask, found.mask)
    assert torch.equal(again.scores.values, found.scores.values)
    assert again.scores.settings["rules"] == expected.settings["rules"]
