"""What writes and reads circuits: our own files, and those of other programs."""
