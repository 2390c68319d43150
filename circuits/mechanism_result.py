"""The result that `mechanisms` returns: clusters of prompts, a circuit of each, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.node_circuit import NodeCircuit
from interp import theme
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Mechanisms(Result):
    """The circuits of a task whose prompts need not share one.

    Attributes:
        prompts: a frame with `prompt` (its number in the task), `cluster` (0 is the largest) and `clean`.
        circuits: of each cluster, in that order; None where it has too few prompts to find and to judge one.
        faithfulness: a frame with one row for each cluster's circuit on the prompts of each cluster that did not
            choose it: `circuit`, `prompts_of`, `n`, `faithfulness`, `low`, `high`. Circuits are judged on their own
            cluster's held-out prompts.
        pairs: a frame with one row for each two clusters: `first`, `second`; `distance` of their mean scores (one
            minus the cosine); `halves`, that of two random halves of one of them (the mean of both); `jaccard` of
            their circuits; `p`, how often prompts of one normal cloud, clustered the same way, come out as far apart;
            `p_corrected` (Holm).
        counts: a frame with `clusters` and `found_again`: how well so many clusters of one half of the prompts are
            those of the other half (adjusted Rand index: 1 the same, 0 as by chance).
        cosines: of the scores of each two prompts, `[n, n]`.
        asked: what was asked for: task, model, method, level, seed, how many clusters if that was given.
    """

    prompts: pd.DataFrame
    circuits: tuple[Circuit | NodeCircuit | None, ...]
    faithfulness: pd.DataFrame
    pairs: pd.DataFrame
    counts: pd.DataFrame
    cosines: Float[Tensor, "n n"]
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def n_clusters(self) -> int:
        """How many clusters there are; 1: nothing says that the prompts differ."""
        return len(self.circuits)

    def to_frame(self) -> pd.DataFrame:
        """One row a cluster: its prompts, the size of its circuit, and its faithfulness on held-out prompts."""
        own = self.faithfulness[self.faithfulness["circuit"] == self.faithfulness["prompts_of"]].set_index("circuit")
        rows = []
        for cluster, circuit in enumerate(self.circuits):
            inside = self.prompts[self.prompts["cluster"] == cluster]
            figures: Mapping[Any, Any] = own.loc[cluster].to_dict() if cluster in own.index else {}
            rows.append(
                {
                    "cluster": cluster,
                    "prompts": len(inside),
                    "size": None if circuit is None else _size(circuit),
                    **{name: figures.get(name, np.nan) for name in ("faithfulness", "low", "high")},
                    "example": inside["clean"].iloc[0],
                }
            )
        return pd.DataFrame(rows)

    def headline(self) -> str:
        task, sizes = self.asked.get("task", "the task"), self.prompts["cluster"].value_counts().sort_index().tolist()
        if self.n_clusters == 1:
            best = self.counts["found_again"].max() if len(self.counts) else float("nan")
            return f"one mechanism in {sizes[0]} prompts of {task}: no division is found again (at most {best:.2f})"
        differ = int((self.pairs["p_corrected"] < 0.05).sum())
        return (
            f"{self.n_clusters} mechanisms in {task}, of {', '.join(map(str, sizes))} prompts; {differ} of "
            f"{len(self.pairs)} pairs are farther apart than one cluster would be (p < .05)"
        )

    def figure(self) -> Figure:
        """The cosines of all prompts' scores, cluster by cluster."""
        import plotly.graph_objects as go

        order = np.argsort(self.prompts["cluster"].to_numpy(), kind="stable")
        names = [f"{i}: {theme.label(self.prompts['clean'].iloc[i][-40:])}" for i in order]
        cells = self.cosines.numpy()[np.ix_(order, order)]
        figure = go.Figure(
            go.Heatmap(z=cells, customdata=[[(a, b) for b in names] for a in names], zmin=-1, zmax=1,
                       colorscale=theme.DIVERGING, colorbar={"title": "cosine"},
                       hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{z:.2f}<extra></extra>")
        )  # fmt: skip
        for edge in np.flatnonzero(np.diff(self.prompts["cluster"].to_numpy()[order])) + 0.5:
            figure.add_hline(y=edge, line={"color": theme.INK})
            figure.add_vline(x=edge, line={"color": theme.INK})
        figure.update_yaxes(autorange="reversed", title="prompt, by cluster")
        figure.update_xaxes(title="prompt, by cluster")
        asked = [self.asked.get(name) for name in ("model", "task", "method")]
        return theme.styled(figure, theme.named(*asked, "how alike the scores of two prompts are"))


def _size(circuit: Circuit | NodeCircuit) -> int:
    return circuit.n_edges if isinstance(circuit, Circuit) else circuit.n_nodes
