"""Sweeps: circuits of models x tasks x methods x seeds, in one table."""
