"""Votes of value vectors for answers, and what they are held against."""
