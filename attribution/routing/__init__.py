"""Routers of mixtures: which experts are used where."""
