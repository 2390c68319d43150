"""The numbers of the page of a circuit tell the whole truth: slider, curve, held-out figure, card, prompts."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuits.circuit import Circuit, Report
from interp.graph import ComputationalGraph
from interp.setting import Setting
from metrics.circuit.evaluate import faithfulness_values
from tests.browser.conftest import make_circuit
from tests.tiny import shared, tiny_task

LIKE_THE_MODEL = {"of": "circuit", "kl": 0.25, "same_argmax": 0.75}


def report() -> Report:
    return Report(
        faithfulness=1.2,
        interval=(0.9, 1.4),
        n_held_out=6,
        edges=60,
        fraction=0.2,
        ablation="patch",
        objective="logit-diff",
        random_faithfulness=0.1,
        random_interval=(0.0, 0.3),
        per_prompt={"clean": [1.0, 2.0], "empty": [0.0, 0.0], "circuit": [1.1, 3.0]},
        output=[{**LIKE_THE_MODEL, "kl_low": 0.2, "kl_high": 0.3, "same_low": 0.5, "same_high": 0.9}],
        tests=[{"test": "minimality", "passed": False, "p_corrected": 0.5, "meaning": "some edge is not needed"}],
        ladder=[{"size": 20, "edges": 20, "faithfulness": 0.4}],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def found(model: Any) -> Circuit:
    return replace(make_circuit(ComputationalGraph.of(model), n=60), report=report())


@pytest.fixture(scope="module")
def measured_page(model: Any, found: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("pages") / "measured.html"
    found.to_html(path, model=model, task=tiny_task(model))
    return path


def test_the_slider_meets_the_curve_below_the_circuit_at_it_and_beyond(open_page, measured_page, model, found):
    opened = open_page(measured_page)
    assert opened.shown == 60
    points = opened.charted("['strongest edges']")
    assert {1, 3, 10, 30, 60, 100} < set(points["x"])
    order = found.to_frame()["edge"].tolist()
    names = list(found.graph.edges(found.graph.edge_mask))
    setting = Setting.of(model, tiny_task(model), {}, found)
    for size in (30, 60):
        mask = found.graph.edge_mask.clone()
        mask[mask.clone()] = torch.tensor([name in order[:size] for name in names])
        expected = faithfulness_values(setting.measure(mask[None]))[0]
        assert points["y"][points["x"].index(size)] == pytest.approx(expected, abs=1e-4)
    assert "at 60" in opened.text("#faithfulness-value")
    assert "≈" not in opened.text("#faithfulness-value")
    opened.slide("top", 1250)  # the circuit grows by what the page holds beside it
    assert opened.shown == max(points["x"]) > 60
    assert "the circuit’s 60 edges and" in opened.text("#shown")
    assert "60 and" in opened.text("#top-value")
    marker = opened.charted(".here")
    assert [marker["x"][0], marker["y"][0]] == [opened.shown, points["y"][-1]]
    opened.slide("mass", 1000)
    assert opened.shown == 60
    opened.select(order[0])
    assert opened.text("#selected .figures").startswith("score")


def test_where_nothing_was_measured_no_marker_is_drawn(open_page, circuit_page):
    opened = open_page(circuit_page)  # its ladder begins at 10
    opened.slide("top", 100)
    assert opened.text("#faithfulness-value") == "not measured at 2"
    assert opened.charted(".here") is None
    opened.slide("top", 700)
    assert "≈" in opened.text("#faithfulness-value")
    assert opened.charted(".here.marker.symbol") == "diamond-open"


def test_the_held_out_figure_is_a_bar_and_random_circuits_a_band(open_page, measured_page):
    opened = open_page(measured_page)
    traces = opened.charted("")
    held = traces["held-out"]
    assert (held["x"], held["y"]) == ([60], [1.2])
    assert held["error_y"]["array"] == pytest.approx([0.2])
    assert held["error_y"]["arrayminus"] == pytest.approx([0.3])
    assert traces["random circuits, held-out"]["y"] == [0.1]
    assert len(traces["random circuits"]["y"]) == len(traces["strongest edges"]["y"])
    assert traces["visited by the search"]["x"] == [20]
    titles = "(({ xaxis, yaxis }) => [xaxis.title.text, yaxis.title.text])(document.getElementById('curve').layout)"
    assert opened.page.evaluate(titles) == ["edges", "faithfulness"]
    assert opened.text("#curve-of") == (
        "Curve: 3 prompts of the circuit's task. Bar: the 60 edges on 6 held-out prompts, 1.20 [0.90, 1.40]."
    )


def test_a_card_says_how_good_it_is(open_page, measured_page):
    opened = open_page(measured_page)
    names = opened.page.locator("#quality dt").all_inner_texts()
    assert names == ["Faithfulness", "Overshoot", "Same top token", "KL from the model", "Within 20% of the model",
                     "Random circuits", "Ablation", "Edges", "Test of minimality"]  # fmt: skip
    told = opened.text("#quality")
    for text in (
        "0.200 above the model",
        "75% of prompts",
        "0.250 nats",
        "50% of prompts",
        "patch",
        "60 (20.00%",
        "failed",
    ):
        assert text in told
    assert "how far the objective (logit-diff) falls" in opened.text("#unit")


def test_prompts_of_another_task_are_named(open_page, model, found):
    task = tiny_task(model)
    known = replace(
        found, setting=replace(found.setting, task="0" * 64), provenance={**found.provenance, "task": {"name": "ioi"}}
    )
    opened = open_page(known.to_html(model=model, task=task))
    assert opened.text("#notes") == "The prompts shown here are of the task 'tiny'; the circuit was found on 'ioi'."
    assert "not of the circuit" in opened.text("#curve-of")
    assert np.isclose(len(opened.charted("['strongest edges'].x")), 8, atol=3)


def test_prompts_of_the_circuit_are_not_remarked_upon(open_page, measured_page):
    assert open_page(measured_page).page.is_hidden("#notes")


@pytest.mark.parametrize(("pages", "library"), [(["whole", "light"], "here"), (["light"], "absent")])
def test_a_second_page_of_a_notebook_takes_its_library_from_the_first(browser, circuit, pages, library):
    whole = circuit.to_html()
    light = re.sub(r'(<script type="text/plain" id="library">)[^<]+', r"\1", whole)
    assert len(light) < len(whole) / 4
    frames = [f'<iframe srcdoc="{html.escape(whole if one == "whole" else light)}"></iframe>' for one in pages]
    page = browser.new_page()
    page.set_content("".join(frames))
    last = page.frames[-1]
    last.wait_for_function(f"document.getElementById('curve')?.dataset.library === '{library}'")
    assert ("first picture of this notebook" in last.locator("#curve").inner_text()) == (library == "absent")
    assert last.evaluate("Boolean(document.getElementById('curve').data)") == (library == "here")
    page.close()
