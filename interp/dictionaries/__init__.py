"""Sparse dictionaries of a model's activations: sparse autoencoders and transcoders."""

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spliced import Spliced, splice
from interp.dictionaries.training import capture_activations, train_dictionary

__all__ = ["Dictionary", "Spliced", "capture_activations", "splice", "train_dictionary"]
