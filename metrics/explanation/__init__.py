"""How faithful is an explanation: scores over pixels, patches, features or tokens, judged against a model."""
