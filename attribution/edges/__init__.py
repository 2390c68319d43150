"""Methods that score edges and nodes: what one is, ours, and their names."""
