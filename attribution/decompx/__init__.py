"""DecompX: a prediction split into one contribution per input token (Modarressi et al. 2023, arXiv:2306.02873)."""
