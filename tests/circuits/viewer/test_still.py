"""Still pictures: what a notebook shows where it allows no page, and what a circuit is shown by."""

from __future__ import annotations

import base64
import io
import re
import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attribution.scores import Scores
from circuits import NodeCircuit
from circuits.tracing.viewer.still import graph_sketch
from circuits.viewer.page import sketch
from circuits.viewer.sketch import TALL, WIDE, Line, Mark, Sketch, Words
from interp import theme
from tests.circuits.tracing.test_trace_page import traced
from tests.circuits.viewer.test_nodes_page import make as make_nodes
from tests.circuits.viewer.test_viewer import make

SMALL = 120_000  # bytes of a cell's picture
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(seen: np.ndarray, colour: tuple[int, ...]) -> int:
    return int((np.abs(seen - np.array(colour)).max(-1) < 24).sum())


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is displayed in a notebook that is not there."""
    bundles: list[dict[str, Any]] = []
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    display = types.SimpleNamespace(display=lambda data, raw: bundles.append(data))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return bundles


def test_svg_and_png_show_the_same_shapes():
    drawn = Sketch("told")
    drawn.add([Line([(10, 100), (800, 100)], theme.POSITIVE, 6), Line([(10, 300), (800, 300)], theme.NEGATIVE, 6, 0.5)])
    drawn.add([Mark((400, 500), 30, theme.GREEN, square=True), Words((20, 600), "a<b", size=30)])
    seen = pixels(drawn.png())
    assert seen.shape == (TALL, WIDE, 3)
    assert tuple(seen[100, 400]) == BLUE
    assert seen[300, 400] == pytest.approx(np.array(ORANGE) / 2 + 255 / 2, abs=2)
    assert tuple(seen[200, 400]) == (255, 255, 255)
    assert near(seen[470:530, 370:430], (0, 158, 115)) > 3_000
    assert (seen[575:605, 20:80].sum(-1) < 200).any()
    svg = drawn.svg()
    assert f'points="10.0,100.0 800.0,100.0" fill="none" stroke="{theme.POSITIVE}" stroke-width="6" opacity="1' in svg
    assert '<rect x="370.0" y="470.0" width="60" height="60"' in svg
    assert ">a&lt;b</text>" in svg


@pytest.mark.parametrize("kind", ["edges", "neuron", "head", "trace"])
def test_every_kind_of_picture_is_small_and_has_both_colours(kind: str):
    drawn = {
        "edges": lambda: sketch(make(n=120)),
        "trace": lambda: graph_sketch(traced("gpt2")),
    }.get(kind, lambda: sketch(make_nodes(kind)))()
    png = drawn.png()
    assert len(png) < SMALL
    seen = pixels(png)
    assert near(seen, BLUE) > 20
    assert near(seen, ORANGE) > 20
    assert drawn.told in drawn.image("png", png)


@pytest.mark.parametrize("spans", [None, (2, 4, 5)])
def test_nodes_stand_in_their_rows_at_their_scores(spans):
    circuit = make_nodes("neuron", spans)
    marks = [shape for shape in sketch(circuit).shapes if isinstance(shape, Mark)]
    frame = circuit.to_frame()
    assert len(marks) == len(frame)
    assert len({mark.at[1] for mark in marks}) == frame["layer"].nunique()
    negative = sum(mark.fill == theme.NEGATIVE for mark in marks)
    assert negative == (frame["score"] < 0).sum()
    strongest = marks[::-1]  # drawn last
    if spans is None:
        places, scores = [mark.at[0] for mark in strongest], frame["score"]
        assert np.argsort(places).tolist() == np.argsort(scores.to_numpy(), kind="stable").tolist()
    else:
        assert len({mark.at[0] for mark in marks}) == len(spans)


def test_a_circuit_of_no_nodes_is_an_empty_picture():
    empty = make_nodes("neuron", share=0.0)
    assert not [shape for shape in sketch(empty).shapes if isinstance(shape, Mark)]
    assert "The 0 strongest of 0 nodes" in empty._repr_html_()


@pytest.mark.parametrize("kind", ["edges", "nodes", "two", "trace"])
def test_a_notebook_holds_a_picture_beside_the_page(displayed, kind: str):
    made = {"edges": lambda: make(n=120), "nodes": lambda: make_nodes("neuron"), "trace": traced}
    made["two"] = lambda: make_nodes("neuron").compare(make_nodes("neuron", share=0.2))
    made[kind]().show()
    (bundle,) = displayed
    frame, after = re.fullmatch(r"(<iframe [^>]*></iframe>)(.*)", bundle["text/html"], re.DOTALL).groups()
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    # the frame is what hides it: where a notebook strips frames or styles the picture is seen
    assert after.endswith("</div><style>iframe + .circuit-still { display: none }</style>")
    assert "script" not in after
    (picture,) = re.findall(r'<img alt="[^"]+" width="900" src="data:image/png;base64,([^"]+)">', after)
    assert base64.b64decode(picture) == bundle["image/png"]
    assert pixels(bundle["image/png"]).shape == (TALL, WIDE, 3)
    assert ("by their score in here" if kind == "two" else "strongest of") in bundle["text/plain"]


@pytest.mark.parametrize("circuit", [make(n=30), make_nodes("head")], ids=["edges", "nodes"])
def test_a_circuit_alone_shows_a_small_picture_and_the_table(circuit):
    shown = circuit._repr_html_()
    assert shown.count('width="450" src="data:image/png;base64,') == 1
    assert "<table" in shown
    assert "<script" not in shown
    assert len(shown) < SMALL


def test_features_say_that_rows_are_dictionaries():
    values = Scores(make_nodes("neuron").scores.values, make_nodes("neuron").graph, method="eap", level="neuron")
    assert "rows are layers" in sketch(NodeCircuit(values, values.values > 0)).told
