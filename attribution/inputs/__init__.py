"""Scores of input tokens: which words of a prompt speak for what the model says next."""

from attribution.inputs.explain import tokens
from attribution.inputs.latents import relevance
from attribution.inputs.methods import token_methods
from attribution.inputs.relevance_map import Relevance
from attribution.inputs.result import TokenAttributions

__all__ = ["Relevance", "TokenAttributions", "relevance", "token_methods", "tokens"]
