"""How good a dictionary is: what a model loses with it, what is alive in it, what another seed finds too."""
