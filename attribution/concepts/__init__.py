"""A network's output in terms of concepts (UFO): heads that read them, explanations by a few of them, TCAV beside."""

from attribution.concepts.directions import TCAVScores, tcav
from attribution.concepts.explaining import explain, explain_all
from attribution.concepts.training import train_heads

__all__ = ["TCAVScores", "explain", "explain_all", "tcav", "train_heads"]
