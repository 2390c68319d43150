"""The picture of a circuit: layer by head, edges coloured by the sign of their scores, on plotly.

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

from circuits.viewer.page import show, to_html
from circuits.viewer.traces import figure

__all__ = ["figure", "show", "to_html"]
