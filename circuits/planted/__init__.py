"""Small models whose circuits are known: `names()`, `load(name)`."""

from circuits.planted.models import Planted, load, names
from circuits.planted.positions import ByPosition, by_position

__all__ = ["ByPosition", "Planted", "by_position", "load", "names"]
