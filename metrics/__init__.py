"""How faithful is a circuit, or an explanation."""
