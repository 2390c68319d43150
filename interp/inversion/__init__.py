"""From hidden states back to the prompt (SipIt), and how injective a layer is."""

from interp.inversion.injective import Injectivity, injectivity
from interp.inversion.orders import GradientOrder, Order, RandomOrder, Search
from interp.inversion.reading import hidden_states
from interp.inversion.result import Inversion
from interp.inversion.search import invert

__all__ = [
    "GradientOrder",
    "Injectivity",
    "Inversion",
    "Order",
    "RandomOrder",
    "Search",
    "hidden_states",
    "injectivity",
    "invert",
]
