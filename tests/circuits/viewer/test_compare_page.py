"""The figures of a comparison and its page: what is drawn, and that no name can break out of it."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import pandas as pd
import pytest

from circuits import MethodComparison
from interp import theme
from interp.errors import InputError
from interp.selection import LADDER_FRACTIONS

EVIL = "<script>alert(1)</script>"
AREAS = ("cpr", "cmd", "log_cpr", "log_cmd")


def made_up() -> MethodComparison:
    """Three methods and a control, with figures made up."""
    names, cmds = [EVIL, "slow|best", "slow, worse", "random"], [0.2, 0.1, 0.3, 0.8]
    data: dict[str, object] = {"method": names, "rank": [2, 1, 3, 4]}
    for area in AREAS:
        for suffix in ("", "_signed"):
            values = cmds if "cmd" in area else [1 - value for value in cmds]
            for end, shift in (("", 0.0), ("_low", -0.05), ("_high", 0.05)):
                data[f"{area}{suffix}{end}"] = [value + shift for value in values]
    for goal in ("edges_85", "edges_95"):
        data |= {goal: [1234.0] * 4, f"{goal}_low": [616.0] * 4, f"{goal}_high": [float("nan")] * 4}
    data |= {
        "auroc": [float("nan")] * 4, "average_precision": [float("nan")] * 4, "forwards": [2.0, 6.0, 6.0, 0.0],
        "backwards": [1.0, 5.0, 5.0, 0.0], "seconds": [1.0, 4.0, 5.0, 0.0],
        "peak_memory_mb": [10.0, 20.0, float("nan"), float("nan")], "memory_kind": ["process", "process", "", ""],
    }  # fmt: skip
    points = pd.DataFrame(
        {
            "method": name, "ranking": ranking, "fraction": p, "edges": int(1000 * p), "faithfulness": p,
            "low": p - 0.1, "high": p + 0.1,
        }
        for name in names for ranking in ("absolute", "signed") for p in LADDER_FRACTIONS
    )  # fmt: skip
    pairs = pd.DataFrame(
        [{"area": "cmd", "first": EVIL, "second": "random", "difference": -0.6, "low": -0.7, "high": -0.5, "p": 0.01,
          "p_adjusted": 0.06}]
    )  # fmt: skip
    about = {
        "model": EVIL, "task": {"name": f"{EVIL} & co"}, "n_scoring": 8, "n_judging": 9, "edges": 1000,
        "ablation": "patch", "selection": "top-n", "confidence": 0.95, "seed": 0, "correction": "holm",
        "notes": [f"Mind the {EVIL}."],
    }  # fmt: skip
    return MethodComparison(pd.DataFrame(data), pairs=pairs, points=points, about=about)


@pytest.fixture
def table() -> MethodComparison:
    return made_up()


def test_curves_with_bands(table: MethodComparison) -> None:
    figure = table.curves()
    bands, lines = figure.data[::2], figure.data[1::2]
    assert [line.name for line in lines] == [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "slow|best",
        "slow, worse",
        "random",
    ]
    assert figure.layout.xaxis.type == "log"
    assert list(lines[0].x) == list(lines[0].y) == list(LADDER_FRACTIONS)
    assert list(bands[0].y) == pytest.approx(
        [p + 0.1 for p in LADDER_FRACTIONS] + [p - 0.1 for p in LADDER_FRACTIONS][::-1]
    )
    assert len({line.line.color for line in lines}) == 4
    assert lines[3].line.color == theme.CONTROL
    assert "signed" in table.curves("signed").layout.title.text
    with pytest.raises(InputError, match="ranking='best' is unknown"):
        table.curves("best")


def test_the_pareto_front_leaves_out_what_is_beaten_in_both(table: MethodComparison) -> None:
    front, *points = table.pareto().data
    assert list(front.x) == [1.0, 4.0]
    assert list(front.y) == [0.2, 0.1]
    assert [point.text[0] for point in points] == ["&lt;script&gt;alert(1)&lt;/script&gt;", "slow|best", "slow, worse"]
    assert list(table.pareto("passes").data[0].x) == [3.0, 11.0]
    assert list(table.pareto("seconds", "cpr").data[0].y) == [0.8, 0.9]
    assert len(table.pareto("peak_memory_mb").data) == 3
    with pytest.raises(InputError, match="cost='hours' is unknown"):
        table.pareto("hours")
    with pytest.raises(InputError, match="quality='beauty' is unknown"):
        table.pareto(quality="beauty")


def test_the_page_is_whole_and_safe(table: MethodComparison, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    page = table.to_html(path)
    assert path.read_text() == page
    assert page.startswith("<!doctype html>")
    assert len(page) < 2_500_000
    library = re.search(r'<script type="text/plain" id="library">([^<]*)</script>', page)
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(library[1]))
    own = page.replace(library[0], "")
    assert "alert(1)</script>" not in own
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in own
    assert "Mind the &lt;script&gt;" in own
    assert not re.search(r"(src|href)\s*=", own)
    assert "default-src 'none'" in own
    assert own.count('class="figure"') == 4
    assert own.count("<script") == own.count("</script>") == 2
    assert "-0.6000" in own
    assert EVIL not in table._repr_html_()
    assert table.to_html() == page


def test_summary_and_markdown(table: MethodComparison) -> None:
    summary = table.summary()
    assert summary["cmd"].tolist()[0] == "0.200 [0.150, 0.250]"
    assert summary["edges_85"].tolist()[0] == "1,234 [616, nan]"
    assert "auroc" not in summary
    assert summary["peak MB"].tolist() == ["10", "20", "n/a", "n/a"]
    assert summary["passes"].tolist()[0] == "2 + 1"
    assert "| slow\\|best |" in table.markdown()
