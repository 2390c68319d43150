"""`ConceptFaithfulness`: understandable against faithful, explanation by explanation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp import theme
from interp.interval import Estimate
from interp.keeping import kept
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURES = ("agreement", "explained", "saco")
_TITLES = {
    "agreement": "agreement in decisions",
    "explained": "variance explained",
    "saco": "SaCo",
}
_DASHES = {"logits": "solid", "decisions": "dot"}


@kept
@dataclass(frozen=True)
class JudgedConcepts:
    """What one explanation is worth.

    Attributes:
        method, inputs, target, size, control: `ConceptScores` says what these are.
        agreement, explained, saco: `concept_faithfulness` says what these are; NaN where there is no such thing.
        random_saco: of the same saliences dealt out at random over concepts, and `saco_gain` by how much `saco` is
            larger, image by image; None without them.
    """

    method: str
    inputs: str
    target: str
    size: int
    control: bool
    agreement: Estimate
    explained: Estimate
    saco: Estimate
    random_saco: Estimate | None
    saco_gain: Estimate | None

    def row(self) -> dict[str, Any]:
        """Cells of a table."""
        none = Estimate(float("nan"), float("nan"), float("nan"))
        return {
            "method": self.method,
            "inputs": self.inputs,
            "target": self.target,
            "size": self.size,
            "control": self.control,
            **self.agreement.columns("agreement"),
            **self.explained.columns("explained"),
            **self.saco.columns("saco"),
            **(self.random_saco or none).columns("random_saco"),
            **(self.saco_gain or none).columns("saco_gain"),
        }


@kept
@dataclass(frozen=True)
class Disagreement:
    """How alike two explanations' saliences are: the mean correlation over concepts, image by image."""

    one: str
    other: str
    size: int
    correlation: Estimate


@dataclass(frozen=True, repr=False, kw_only=True)
class ConceptFaithfulness(Result):
    """Faithfulness of explanations by concepts; made by `metrics.concepts.concept_faithfulness`.

    Attributes:
        judged: each explanation, in the order in which they were given.
        apart: every two explanations that are no controls: of one size, or of two kinds, as TCAV and a linear map.
        n_concepts, n: concepts that there are, and held-out images.
        layer: where the concepts are read.
    """

    judged: list[JudgedConcepts]
    apart: list[Disagreement]
    n_concepts: int
    n: int
    layer: str

    def to_frame(self) -> pd.DataFrame:
        """One row an explanation.

        Columns: method, inputs, target, size, control; agreement, explained, saco, random_saco, saco_gain, each with
        _low and _high.
        """
        return pd.DataFrame([one.row() for one in self.judged])

    def disagreement(self) -> pd.DataFrame:
        """One row for two explanations. Columns: one, other, size, correlation with _low and _high."""
        names = ["one", "other", "size", "correlation", "correlation_low", "correlation_high"]
        rows = [
            {"one": pair.one, "other": pair.other, "size": pair.size, **pair.correlation.columns("correlation")}
            for pair in self.apart
        ]
        return pd.DataFrame(rows, columns=names)

    def figure(self) -> Figure:
        """Each measure over the number of concepts: a colour for each input, dots for decisions, grey for controls."""
        from plotly.subplots import make_subplots

        picture = make_subplots(cols=len(MEASURES), subplot_titles=[_TITLES[name] for name in MEASURES])
        colours = dict(
            zip(dict.fromkeys(one.inputs for one in self.judged), itertools.cycle(theme.SERIES), strict=False)
        )
        lines: dict[str, list[JudgedConcepts]] = {}
        for one in sorted(self.judged, key=lambda one: one.size):
            lines.setdefault(one.method, []).append(one)
        told: set[str] = set()  # what the legend has
        for name, points in lines.items():
            control = points[0].control
            label = "random concepts" if control else name
            colour = theme.CONTROL if control else colours[points[0].inputs]
            for column, measure in enumerate(MEASURES, 1):
                known = [one for one in points if _known(one, measure)]
                if not known:
                    continue
                values = [getattr(one, measure) for one in known]
                picture.add_scatter(
                    x=[one.size for one in known], y=[value.value for value in values], row=1, col=column,
                    mode="markers" if control else "lines+markers", name=theme.label(label), legendgroup=label,
                    showlegend=label not in told, marker={"color": colour, "opacity": 0.5 if control else 1},
                    line={"color": colour, "dash": _DASHES.get(points[0].target, "solid")},
                    error_y=theme.error_bars(values),
                )  # fmt: skip
                told.add(label)
        picture.update_xaxes(title="concepts")
        for column, measure in enumerate(MEASURES, 1):
            picture.update_yaxes(title=measure, row=1, col=column)
        return theme.styled(picture, f"Understandable against faithful, {self.n} held-out images", height=420)

    def headline(self) -> str:
        known = [one for one in self.judged if _known(one, "agreement")]
        if not known:
            best = max(self.judged, key=lambda one: one.saco.value)
            return f"SaCo {best.saco} at best ({best.method}); {self.n} held-out images"
        best = max(known, key=lambda one: one.agreement.value)
        return (
            f"agreement {best.agreement} at best ({best.method}, {best.size} of {self.n_concepts} concepts), SaCo "
            f"{best.saco}; {len(self.judged)} explanations, {self.n} held-out images"
        )


def _known(one: JudgedConcepts, measure: str) -> bool:
    value: float = getattr(one, measure).value
    return value == value
