"""Select a circuit and tell its story."""
