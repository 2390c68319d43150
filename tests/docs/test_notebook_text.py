"""What notebooks say is what their cells show: each claim stands beside the figure that it rests on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.notebook_shell import NOTEBOOKS

# what a notebook says, and what one of its outputs shows: the same figure, to the digits that the text has
CLAIMS: dict[str, list[tuple[str, str]]] = {
    "01": [
        ("Random circuits of 29 among 123,211 edges can hardly get anything but 0", r"29 of 123,211 edges"),
        ("between nothing and .84 of the behaviour", r"0\.1\s+0\.00\s+0\.70\s+0\.84"),
        ("with half of them\nbetween nothing and .48", r"0\.5\s+0\.00\s+0\.35\s+0\.48"),
    ],
    "02": [
        ("(corrected p = .006)", r"eap-ig\s+random.* 0\.005997"),
        ("EAP-IG is\nfirst (`log_cmd` .08 against .17 and .18)", r"eap-ig .*0\.075105"),
        ("(513 against 2,286 and 5,930)", r"0\.075105\s+513\.0"),
        ("put all true edges first (AUROC 1)", r"eap-ig\s+1\.000000"),
    ],
    "03": [
        ("Ranks agree at .55 over all edges", r"score eap-ig\s+0\.553"),
        ("20 of 110 edges keep .89 [.75, .96]", r"faithfulness=0\.8899.*interval=\(0\.7502.*0\.9550"),
        (
            "All of it, in every head of the second layer, and a tenth or less in the first",
            r"followed last time\s+0\.11\s+0\.06",
        ),
    ],
    "04": [
        (
            "what the same scores get when they are dealt out at random, which need not be 0",
            r"0\.371 \[0\.001, 0\.650\]",
        ),
        ("ranks tokens worse than chance here", r"feature-ablation\s+-0\.651"),
    ],
    "05": [
        ("On three prompts of four, not on all", r"share of equal top tokens 0\.750"),
        (
            "Equivalence fails: this circuit is not the model, as .80 [.70, .91]",
            r"equivalence failed, independence passed",
        ),
        ("share about 63 % of their 1,000 edges; 348 edges", r"between resamples 0\.627.*348 edges always.*1,716 ever"),
        ("All five pass", r"equivalence passed, .*necessity passed"),
    ],
}


def cells(number: str) -> list[dict[str, Any]]:
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(number: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(number) if cell["cell_type"] == "markdown")


def shown(number: str) -> str:
    """All that cells show as text."""
    outputs = [one for cell in cells(number) for one in cell.get("outputs", [])]
    return "\n".join("".join(one.get("text", one.get("data", {}).get("text/plain", ""))) for one in outputs)


@pytest.mark.parametrize("number", CLAIMS)
def test_every_claim_stands_beside_its_figure(number: str) -> None:
    told, seen = prose(number), shown(number)
    for claim, figure in CLAIMS[number]:
        assert claim in told
        assert re.search(figure, seen), (claim, figure)


def test_the_random_control_of_the_first_notebook_can_be_anything_but_0() -> None:
    (cell,) = (one for one in cells("01") if one.get("id") == "cell-exchanged")
    rows = re.findall(r"^\d +0\.[135] .*$", "".join(cell["outputs"][0]["data"]["text/plain"]), re.MULTILINE)
    figures = [float(value) for row in rows for value in row.split()[2:]]
    assert len(figures) == 9
    assert min(figures) == 0.0
    assert max(figures) > 0.5


def test_the_third_notebook_shows_the_attention_pattern_that_it_claims() -> None:
    pictures = [
        cell["source"]
        for cell in cells("03")
        if any("image/png" in one.get("data", {}) for one in cell.get("outputs", []))
    ]
    assert any('attention_figure(model, task, "a1.h0")' in "".join(source) for source in pictures)


def test_no_notebook_says_that_random_scores_get_0_or_reads_one_correlation_as_the_other() -> None:
    told = prose("04")
    assert "get 0" not in told
    assert "get zero" not in told
    reading = shown("04")
    assert len(re.findall(r"rank correlation -?\d.\d+ \[.*?\], of absolute values", reading)) == 1


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_notebook_has_colours_of_its_own(path: Path) -> None:
    sources = "".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    assert "RdBu" not in sources
    assert not re.search(r'color\w*="#?\w', sources)
