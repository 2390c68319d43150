"""Scores of the features of dictionaries and of the errors that these leave."""
