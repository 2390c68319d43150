"""Hooked models, their computational graphs, tasks, and the kernels that run them."""

from interp.graph import ComputationalGraph

__all__ = ["ComputationalGraph"]
