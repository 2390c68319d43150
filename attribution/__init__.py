"""Scores of edges and nodes: how much each helps a behaviour."""

from attribution.engines import attribute
from attribution.methods import methods
from attribution.scores import Scores

__all__ = ["Scores", "attribute", "methods"]
