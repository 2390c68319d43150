"""Scores of the units inside MLPs: neurons."""
