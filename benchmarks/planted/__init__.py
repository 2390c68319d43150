"""Makes the planted models of `circuits.planted`: `python -m benchmarks.planted`."""
