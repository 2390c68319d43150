"""Scores and circuits by position where a prompt has a row for each answer: all its rows have its spans."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import metrics
from attribution import attribute
from circuits import find_circuit
from interp import ComputationalGraph, Task
from interp.setting import Setting
from tests import oracle
from tests.interp.test_answers import differences_said, pairs_of
from tests.oracle import TOLERANCE, error, model_of

SLICES = [{"a": (0, 2), "b": (4, 5)}, {"b": (1, 2), "a": (3, 4)}, {"a": (2, 4)}]


def spanned() -> Task:
    """Answers of one to four tokens, up to two on a side: eight rows for three prompts."""
    return Task.from_pairs("t", pairs_of(), spans=SLICES)


def span_of(prompt: int, position: int, spans: tuple[Any, ...]) -> int:
    """The number of the span that a position of any row of a prompt is in; what is behind the prompt is in `rest`."""
    names = [name for name, (start, stop) in SLICES[prompt].items() if start <= position < stop]
    return spans.index(position if position in spans else names[0] if names and names[0] in spans else "rest")


def slow(task: Task, spans: tuple[Any, ...], masks: Tensor, ablation: str = "patch") -> Tensor:
    """[circuit, n] by the bridge, every edge with a weight of 0 or 1 at every position of every row."""
    model, graph = oracle.expanded("llama"), ComputationalGraph.of(model_of("llama"))
    prompts = task.prompts(model)
    assert prompts.answers is not None
    where = torch.tensor(
        [[span_of(i, p, spans) for p in range(prompts.clean.shape[1])] for i in prompts.answers.prompt.tolist()]
    )
    other = oracle.ablated_outputs(model, prompts, ablation)
    circuits = []
    for mask in masks:
        at = {edge: graph.edge_index(edge) for edge in graph.edges()}
        circuits.append(({edge: mask[:, u, v].double()[where] for edge, (u, v) in at.items()}, other))
    return differences_said(oracle.circuit_logits(model, prompts, circuits), pairs_of())


@pytest.mark.parametrize(
    ("spans", "ablation"), [(("a", "b", "rest"), "patch"), ((2, 5, 6, "rest"), "patch"), (("b", "rest"), "zero")]
)
def test_circuits_are_slow_runs_in_which_each_position_of_each_row_reads_its_own_mixture(
    spans: Any, ablation: str
) -> None:
    model, task = model_of("llama"), spanned()
    graph, draw = ComputationalGraph.of(model), torch.Generator().manual_seed(0)
    masks = torch.stack(
        [graph.edge_mask & (torch.rand(len(spans), *graph.shape, generator=draw) < p) for p in (0.4, 0.9)]
    )
    told = {"spans": spans, "ablation": ablation, "quiet": True}
    found = metrics.evaluate(model, task, masks, **told)
    assert error(found, slow(task, spans, masks, ablation)) < TOLERANCE
    assert error(metrics.evaluate(model, task, masks, batch_size=1, **told), found) < TOLERANCE


def test_exact_scores_are_those_of_brute_force_patching_at_a_span() -> None:
    model, task, edges = model_of("llama"), spanned(), ["input->a0.h1<k>", "m0->a1.h3<v>", "a0.h2->m1", "m2->logits"]
    scores = attribute(model, task, "exact", positions="spans", edges=edges, quiet=True)
    assert scores.spans == ("a", "b", "rest")
    full = scores.graph.edge_mask.repeat(3, 1, 1)
    masks = [full]
    for edge in edges:
        for span in range(3):
            masks.append(full.clone())
            masks[-1][span][scores.graph.edge_index(edge)] = False
    values = slow(task, scores.spans, torch.stack(masks)).mean(1)
    found = torch.stack([scores.values[:, *scores.graph.edge_index(edge)] for edge in edges])
    assert error(found, (values[0] - values[1:]).view(len(edges), 3)) < TOLERANCE


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations", "relp", "mask-ig"])
@pytest.mark.parametrize("positions", ["spans", "all"])
def test_spans_add_up(method: str, positions: str) -> None:
    model, task = model_of("llama"), spanned()
    steps = {"steps": 2} if method.endswith(("ig", "activations")) else {}
    plain = attribute(model, task, method, quiet=True, **steps).values
    scores = attribute(model, task, method, positions=positions, quiet=True, **steps)
    assert error(scores.values.sum(0), plain) < 1e-12
    parts = attribute(model, task, method, positions=positions, batch_size=1, quiet=True, **steps)
    assert error(parts.values, scores.values) < TOLERANCE


def test_a_circuit_by_position_is_found_for_answers_of_several_tokens() -> None:
    model, task = model_of("llama"), Task.from_pairs("t", pairs_of(((5, 5),) * 6), spans={"front": (0, 3)})
    circuit = find_circuit(model, task, positions="spans", edges=120, quiet=True)
    assert circuit.spans == ("front", "rest")
    assert circuit.mask.sum() == 120
    # logits are read at the prompt's last token and in the answer
    assert Setting(model, task).placed(circuit.spans).read == {1}
