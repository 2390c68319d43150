"""The registry of methods, apart from those that are in it: what a method is made of may be named, too."""

from __future__ import annotations

from attribution.edges.method import Method
from interp.plugins import Registry

METHODS: Registry[Method] = Registry("method", Method, "faithful_circuits.methods")  # type: ignore[type-abstract]
