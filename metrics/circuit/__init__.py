"""How faithful is a circuit: run it alone, and compare."""
