"""The picture and the page of a circuit of nodes: its neurons, heads or features by layer and by position."""
