"""The version: the one place where it stands (pyproject.toml, CITATION.cff and the release note follow)."""

__version__ = "0.2.0"
