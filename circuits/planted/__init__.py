"""Small models whose circuits are known: `names()`, `load(name)`."""

from circuits.planted.models import Planted, load, names

__all__ = ["Planted", "load", "names"]
