"""Benchmarks: each prints ratios to a physical limit that is measured in the same run."""
