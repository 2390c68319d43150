"""Neurons whose attribution differs between two kinds of answers."""
