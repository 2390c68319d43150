"""The picture of a circuit: layer by head, edges coloured by the sign of their scores.

>>> import torch
>>> from attribution.scores import Scores
>>> from circuits.circuit import Circuit
>>> from interp.graph import ComputationalGraph
>>> graph = ComputationalGraph(n_layers=2, n_heads=2)
>>> circuit = Circuit(Scores(torch.zeros(graph.shape), graph, method="eap"), graph.edge_mask)
>>> page = to_html(circuit)
>>> page.startswith("<!doctype html>")
True
"""

from circuits.viewer.comparing import compare, comparison_to_html
from circuits.viewer.figures import comparison_figure, figure
from circuits.viewer.page import show, to_html
from circuits.viewer.positions import scores_by_position
from circuits.viewer.prompt_figures import answer_figure, attention_figure
from circuits.viewer.shell import show_page

__all__ = [
    "answer_figure",
    "attention_figure",
    "compare",
    "comparison_figure",
    "comparison_to_html",
    "figure",
    "scores_by_position",
    "show",
    "show_page",
    "to_html",
]
