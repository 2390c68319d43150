"""Facts in mirrored pairs, and true and false statements and questions made of them."""
