"""Inside attention heads: why a head looks where it looks, and what crosses positions through it."""
