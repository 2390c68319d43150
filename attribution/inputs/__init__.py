"""Scores of input tokens and of latents: which words of a prompt speak for what a model says."""
