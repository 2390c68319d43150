"""Pictures of results: a map of heads, tests, the check of a task, the output panel; one pair of colours in all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import attribution
from attribution import Scores, TokenAttributions
from circuits import Circuit, Report
from interp import theme
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.interval import Estimate
from interp.kernels.evaluate import CircuitValues
from interp.tasks.check import TaskCheck
from metrics import Curve
from metrics.circuit.battery_result import CircuitTests, NullTest
from metrics.circuit.output import OutputAgreement

GRAPH = ComputationalGraph(3, 4)
TASK = {"name": "ioi"}


def scores(level: str, shape: tuple[int, ...], **known) -> Scores:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = values * GRAPH.edge_mask if level == "edge" else values
    return Scores(values, GRAPH, method="eap", level=level, model="tiny", task=TASK, **known)


def test_a_map_of_heads_adds_up_what_leaves_each_node():
    given = scores("edge", GRAPH.shape)
    figure = attribution.head_map(given)
    table = np.array(figure.data[0].z)
    frame = given.to_frame()
    for layer in range(3):
        for column, name in enumerate([*(f"a{layer}.h{head}" for head in range(4)), f"m{layer}"]):
            assert table[layer, column] == pytest.approx(frame.loc[frame["source"] == name, "score"].sum())
    assert list(figure.data[0].x) == ["h0", "h1", "h2", "h3", "MLP"]
    assert figure.data[0].zmin == -figure.data[0].zmax == -np.abs(table).max()
    assert figure.data[0].colorscale[-1] == (1, theme.POSITIVE)
    assert figure.layout.title.text == "tiny · ioi · eap: edges that leave a node"
    assert figure.layout.yaxis.title.text == "layer"


def test_a_map_of_heads_takes_heads_and_nodes_and_no_neurons():
    heads = scores("head", (3, 4))
    assert np.array(attribution.head_map(heads).data[0].z) == pytest.approx(heads.values.numpy())
    nodes = scores("node", (len(GRAPH.sources),))
    table = np.array(attribution.head_map(nodes).data[0].z)
    assert table[2, 4] == pytest.approx(float(nodes.values[GRAPH.sources.index("m2")]))
    with pytest.raises(InputError, match="scores are of neurons, which have no map of heads"):
        attribution.head_map(scores("neuron", (3, 7)))


def test_bars_of_scores_name_model_task_and_method():
    figure = scores("edge", GRAPH.shape).figure()
    assert figure.layout.title.text == "tiny · ioi · eap: strongest edges"
    colours = [theme.POSITIVE if x > 0 else theme.NEGATIVE for x in figure.data[0].x]
    assert list(figure.data[0].marker.color) == colours
    assert len(set(colours)) == 2


def token_scores(method: str, values: list[float], tokens: list[str]) -> TokenAttributions:
    ids = torch.arange(len(tokens))[None]
    return TokenAttributions(
        torch.tensor([values]), torch.ones_like(ids).bool(), ids, [tokens], torch.tensor([[1, -1]]), [" Mary"],
        torch.tensor([2.0]), method, model="tiny",
    )  # fmt: skip


def test_token_methods_stand_side_by_side_each_over_its_largest():
    words = ["When", " Mary", "<b>"]
    found = {"attnlrp": token_scores("attnlrp", [1.0, -4.0, 2.0], words)}
    found |= {"<own>": token_scores("own", [0.1, 0.0, 0.0], words)}
    (drawn,) = (figure := attribution.token_map(found)).data
    assert [list(row) for row in drawn.z] == [[0.25, -1.0, 0.5], [1.0, 0.0, 0.0]]
    assert list(drawn.y) == ["attnlrp", "&lt;own&gt;"]
    assert "&lt;b&gt;" in figure.layout.xaxis.ticktext[2]
    assert figure.layout.title.text == "tiny · attnlrp, &lt;own&gt; · what speaks for Mary"
    other = token_scores("attnlrp", [1.0], ["When"])
    for wrong, place, told in (
        ({}, 0, "found names no result"),
        (found, 1, "input=1 must be from 0 to 0"),
        (found | {"other": other}, 0, r"found\['other'\] is of other tokens"),
    ):
        with pytest.raises(InputError, match=told):
            attribution.token_map(wrong, place)


def test_the_curve_has_a_band_of_random_circuits_and_the_held_out_point():
    points = tuple(Estimate(value, value - 0.1, value + 0.1) for value in (0.2, 0.9))
    one, values = points[0], CircuitValues(*(torch.zeros(1) for _ in range(2)), torch.zeros(2, 1))
    curve = Curve((0.1, 1.0), (5, 50), (5, 50), points, one, one, one, one, values, random=points[::-1])
    report = Report(faithfulness=0.8, interval=(0.7, 0.95), fraction=0.2, edges=10)
    circuit = Circuit(scores("edge", GRAPH.shape), GRAPH.edge_mask, report)
    band, line, random, held = curve.figure(circuit).data
    assert (band.fill, list(band.y)) == ("toself", pytest.approx([1.0, 0.3, 0.1, 0.8]))
    assert (line.name, random.name) == ("circuit", "random circuits of equal size")
    assert (list(held.x), list(held.y)) == ([0.2], [0.8])
    assert (held.error_y.array[0], held.error_y.arrayminus[0]) == pytest.approx((0.15, 0.1))
    for bare in (torch.ones(3), Circuit(circuit.scores, circuit.mask)):
        with pytest.raises(InputError, match="circuit has no report with a faithfulness on held-out prompts"):
            curve.figure(bare)


def test_tests_are_drawn_with_their_level_and_what_could_not_be_made_is_left_out():
    meanings = ("<kept>", "gone")
    made = [
        NullTest("equivalence", "null", "seen", 0.1, 0.2, "not rejected", meanings, 0.4),
        NullTest("minimality", "null", "seen", 0.1, 0.01, "not rejected", meanings, 0.02, True),
        NullTest("necessity", "null", "seen", math.nan, math.nan, "rejected", meanings),
    ]
    settings = {
        "prompts": 8,
        "n_random": 20,
        "correction": "holm",
        "alpha": 0.05,
        "objective": "kl",
        "ablation": "zero",
    }
    found = CircuitTests(tuple(made), pd.DataFrame(), settings)
    figure = found.figure()
    assert list(figure.data[0].y) == ["minimality (failed)", "equivalence (passed)"]
    assert list(figure.data[0].x) == [0.02, 0.4]
    assert list(figure.data[0].marker.color) == [theme.NEGATIVE, theme.POSITIVE]
    assert figure.layout.shapes[0].x0 == 0.05
    assert figure.layout.title.text == "tests of the circuit"
    assert "8 prompts, 20 random circuits" in figure.layout.title.subtitle.text
    assert "&lt;kept&gt;" in figure.data[0].hovertext[1]
    with pytest.raises(InputError, match="no test could be made"):
        CircuitTests(tuple(made[2:]), pd.DataFrame(), settings).figure()


def test_the_check_of_a_task_is_drawn():
    check = TaskCheck("ioi", "logit-difference", 16, 3.8, -4.7, 2.0, 1.0, 0.1, 15, (), model="tiny")
    figure = check.figure()
    assert [list(bar.y) for bar in figure.data] == [[3.8, -4.7], [1.0, 0.1]]
    assert figure.layout.title.text == "tiny · ioi"
    assert figure.layout.title.subtitle.text == "15 of 16 prompts higher when clean"
    bad = TaskCheck("ioi", "logit-difference", 16, 0.0, 0.0, -1.0, 0.1, 0.1, 8, ("none",))
    assert "no behaviour to explain" in bad.figure().layout.title.text


def test_the_output_panel_has_the_circuit_the_empty_one_and_random_ones():
    found = OutputAgreement(
        kl=Estimate(0.3, 0.2, 0.4), same=Estimate(0.7, 0.5, 0.9), kl_empty=Estimate(2.0, 1.0, 3.0),
        same_empty=Estimate(0.1, 0.0, 0.2), kl_random=Estimate(1.9, 1.0, 3.0), same_random=Estimate(0.2, 0.1, 0.3),
        kl_values=[0.1, 0.5], same_values=[1.0, 0.4], setting=None,
    )  # fmt: skip
    kl, same, by_prompt = found.figure().data
    assert list(kl.x) == ["circuit", "empty", "random"]
    assert list(kl.y) == [0.3, 2.0, 1.9]
    assert list(same.error_y.array) == pytest.approx([0.2, 0.1, 0.1])
    assert list(by_prompt.x) == [0.1, 0.5]


def test_no_picture_has_a_pair_of_colours_of_its_own():
    root = Path(attribution.__file__).parents[1]
    for folder in ("attribution", "circuits", "interp", "metrics"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "theme.py" or not any(
                name in text for name in ("RdBu", "theme.VERMILION if", "theme.BLUE if")
            ), path
