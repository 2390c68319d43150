"""What neurons do when they are made weaker or stronger."""
