"""The picture of every result: what it names, its axes, that no title is cut off, and one pair of colours for signs."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from circuits.comparison import COLOURS
from circuits.sweeping.planning import SweepPlan
from circuits.viewer import look
from interp import keeping, theme
from interp.errors import InputError
from interp.result import Result
from tests.results import EXAMPLES, given

NOTHING_TO_DRAW = {
    "GeneratedText": "texts: a table counts them",
    "Program": "source: it is read",
    "SweepPlan": "what is to be done: nothing was measured",
}
LETTER = 0.56  # of a font's size: how wide a letter is
KNOWN = {value for name, value in vars(theme).items() if name.isupper() and isinstance(value, str)}
KNOWN |= {*COLOURS, "#ffffff", *look.SIGNS.values()}
PAIRS = ({theme.POSITIVE, theme.NEGATIVE}, {theme.OWN, theme.CONTROL})


def test_every_result_has_a_figure_or_a_reason() -> None:
    for package in ("attribution", "circuits", "circuits.programs", "interp", "metrics"):
        for name in (found := importlib.import_module(package)).__all__:
            getattr(found, name)
    ours = {one for one in keeping.kinds() if issubclass(one, Result) and one.__module__.split(".")[0] != "tests"}
    whole = {one.__name__ for one in ours if not inspect.isabstract(one)}
    assert whole - EXAMPLES.keys() == NOTHING_TO_DRAW.keys()
    for one in (one for one in ours if one.__name__ in whole):
        assert (one.figure is Result.figure) == (one.__name__ in NOTHING_TO_DRAW), one
    with pytest.raises(InputError, match="a SweepPlan has no figure"):
        SweepPlan(pd.DataFrame()).figure()


def names_of(found: Any) -> set[str]:
    """Model, task and method, as far as a result knows them."""
    known: list[Any] = []
    for one in (found, *(getattr(found, part, None) for part in ("setting", "scores", "here"))):
        known += [getattr(one, name, None) for name in ("model", "task", "task_name", "method")]
    for told in (getattr(found, part, None) for part in ("about", "asked", "provenance")):
        if isinstance(told, dict):
            known += [told.get(name) for name in ("model", "task", "method")]
    known = [one.get("name") if isinstance(one, dict) else one for one in known]
    return {one for one in known if isinstance(one, str) and one and not re.fullmatch("[0-9a-f]{64}", one)}


def written(figure: Any) -> str:
    """All that is written in a figure but for what appears under the pointer."""
    title = figure.layout.title
    texts = [title.text, title.subtitle.text, *(trace.name for trace in figure.data)]
    texts += [str(value) for trace in figure.data for value in (() if trace.x is None else trace.x)]
    return html.unescape(" ".join(text for text in texts if text)).replace("<br>", " ")


def used(value: Any) -> Iterator[str]:
    """The colours in a figure, as hexadecimal numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "template":
                yield from used(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from used(item)
    elif isinstance(value, str) and re.fullmatch("#[0-9A-Fa-f]{6}", value):
        yield value


def pairs(figure: Any) -> Iterator[set[str]]:
    """The colours of marks of one trace that are not all alike."""
    for trace in figure.data:
        colours = getattr(getattr(trace, "marker", None), "color", None)
        if isinstance(colours, list | tuple) and len(set(colours)) > 1:
            yield set(colours)


def scales(figure: Any) -> Iterator[tuple[Any, Any]]:
    """Colour scales, each with the value that its middle stands for."""
    axis = figure.layout.coloraxis
    for one in (trace for trace in figure.data if trace.type == "heatmap"):
        source = (axis.colorscale, axis.cmin, axis.cmax) if one.coloraxis else (one.colorscale, one.zmin, one.zmax)
        yield [list(step) for step in source[0]], (source[1], source[2])


def check_axes(figure: Any, width: float, height: float) -> None:
    for name in (key for key in figure.layout if re.fullmatch(r"[xy]axis\d*", key)):
        axis = figure.layout[name]
        if axis.showticklabels is False or axis.visible is False:
            continue
        text = axis.title.text
        assert text, f"{name} has no title"
        length = width if name[0] == "x" else height - figure.layout.margin.t
        share = axis.domain[1] - axis.domain[0] if axis.domain else 1.0
        longest = max(map(len, text.split("<br>")))
        assert longest * LETTER * 14 < max(length * share * 1.2, 90), f"{name}: {text!r} is cut off"


def check_titles(figure: Any, width: float) -> None:
    title = figure.layout.title
    for text, size in ((title.text, theme.TITLE), (title.subtitle.text, theme.SUBTITLE)):
        for line in html.unescape(text or "").split("<br>"):
            assert len(line) * LETTER * size <= width or " " not in line, f"{line!r} is cut off"
    lines = title.text.count("<br>") + 1
    assert figure.layout.margin.t >= 20 * lines + 14 * bool(title.subtitle.text), "no room for the title"
    panels = [one for one in figure.layout.annotations if (one.xref, one.yref) == ("paper", "paper") and one.text]
    beside = max(1, len({one.x for one in panels}))
    for one in panels:
        longest = max(map(len, html.unescape(one.text).split("<br>")))
        assert longest * LETTER * theme.PANEL < 1.2 * width / beside, f"{one.text!r} runs into the next panel's"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_picture_is_named_has_axes_and_the_common_colours(name: str) -> None:
    found = EXAMPLES[name]()
    figure = found.figure()
    width, height = figure.layout.width or theme.WIDE, figure.layout.height or 450
    for known in names_of(found):
        assert known in written(figure), f"{known} is not named"
    check_titles(figure, width)
    check_axes(figure, width, height)
    content = figure.to_plotly_json()
    assert {colour.lower() for colour in used(content)} <= {one.lower() for one in KNOWN}
    for colours in pairs(figure):
        assert colours in PAIRS
    for scale, (low, high) in scales(figure):
        signed = scale == [list(step) for step in theme.DIVERGING]
        assert low == -high if signed else low in (0, None), scale
        assert signed or theme.NEGATIVE.lower() not in str(scale).lower()


def test_a_long_title_is_broken_and_has_room() -> None:
    scores = given()[2]
    long = type(scores)(
        scores.values, scores.graph, method="eap", model="a-model-of-a-long-name", task={"name": "t" * 40}
    )
    figure = long.figure()
    assert figure.layout.title.text.count("<br>") == 1
    assert figure.layout.margin.t > scores.figure().layout.margin.t
    check_titles(figure, theme.WIDE)
