"""Direct effects between the units of one prompt: attribution graphs, row by row."""
