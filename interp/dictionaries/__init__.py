"""Sparse dictionaries of a model's activations: sparse autoencoders and transcoders."""

from interp.dictionaries.dictionary import Dictionary

__all__ = ["Dictionary"]
