"""Sparse dictionaries of a model's activations: sparse autoencoders and transcoders."""

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spliced import Spliced, splice

__all__ = ["Dictionary", "Spliced", "splice"]
