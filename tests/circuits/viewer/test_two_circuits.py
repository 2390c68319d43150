"""The page and the figure of two circuits: signs, both circuits' faithfulness, prompts, and what is flattened."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import metrics
from attribution.scores import Scores
from circuits import Circuit
from circuits.report import Report
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.spans import span_names
from tests.tiny import shared, tiny_task

FIRST = Report(faithfulness=0.9, interval=(0.8, 1.0))


def pair(graph: ComputationalGraph, spans: Any = None) -> tuple[Circuit, Circuit]:
    """Two circuits over a graph whose scores differ, in sign too."""
    shape = graph.shape if spans is None else (len(spans), *graph.shape)
    noise = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shape, generator=noise).pow(3) * graph.edge_mask for _ in range(2))
    circuits = []
    for values, report in ((first, FIRST), (second, Report())):
        scores = Scores(values, graph, method="eap", spans=spans, model="tiny", task={"name": "ioi"})
        circuits.append(Circuit(scores, values.abs() > 0.7, report))
    return circuits[0], circuits[1]


def embedded(page: str) -> Any:
    return json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])


def test_the_figure_dashes_what_hurts_in_the_colour_of_whose_it_is():
    one, two = pair(ComputationalGraph(3, 4))
    figure = one.compare(two, ("one", "two")).figure()
    values = [circuit.scores.values for circuit in (one, two)]
    shown = torch.where(one.mask, *values)
    members = {"both": one.mask & two.mask, "only one": one.mask & ~two.mask, "only two": ~one.mask & two.mask}
    for name, inside in members.items():
        drawn = dict.fromkeys(("solid", "dash"), 0)
        for trace in figure.data:
            if trace.legendgroup == name and trace.line.dash:
                drawn[trace.line.dash] += int(np.isnan(trace.x).sum())
        assert drawn == {"solid": int((inside & (shown >= 0)).sum()), "dash": int((inside & (shown < 0)).sum())}
        assert min(drawn.values()) > 0
    told = figure.layout.title.subtitle.text
    assert "dashed: hurts" in told
    assert "one, " in told
    assert "faithfulness 0.90" in told


def test_the_page_tells_both_circuits_faithfulness_on_the_same_prompts():
    model = shared("llama")
    task = tiny_task(model)
    one, two = pair(ComputationalGraph.of(model))
    plain = embedded(one.compare(two, ("one", "two")).to_html())
    assert plain["compare"]["faithfulness"] == ["0.900, 95 % interval 0.800 to 1.000", "not measured"]
    assert plain["compare"]["samePrompts"] is None
    assert plain["quality"]["lines"] == []
    data = embedded(one.compare(two, ("one", "two")).to_html(model=model, task=task, example=1))
    assert data["linked"]["example"] == 1
    both = metrics.measure(model, task, torch.stack([one.mask, two.mask]))
    for expected, told in zip(metrics.faithfulness(both), data["compare"]["samePrompts"], strict=True):
        assert told.startswith(f"{expected.value:.3f}, 95 % interval")
    assert data["knocked"] is None


def test_circuits_by_position_are_not_flattened_in_silence():
    graph = ComputationalGraph(2, 2)
    one, two = pair(graph, span_names((0, 2)))
    comparison = one.compare(two, ("one", "two"))
    told = f"drawn at any position, of {one.n_edges:,} edges at 2 spans"
    assert told in comparison.to_html()
    assert told in comparison.figure().layout.title.subtitle.text.replace("<br>", " ")
    assert told in one.figure().layout.title.subtitle.text.replace("<br>", " ")


def test_what_the_page_cannot_be_told_is_refused():
    model = shared("llama")
    one, two = pair(ComputationalGraph.of(model))
    with pytest.raises(InputError, match="model and task go together"):
        one.compare(two).to_html(model=model)
    with pytest.raises(InputError, match="keyword of comparison_to_html='curve' is unknown"):
        one.compare(two).to_html(curve=[])
    small, other = pair(ComputationalGraph(1, 1))
    with pytest.raises(InputError, match="model has another graph"):
        small.compare(other).to_html(model=model, task=tiny_task(model))
