"""Images with concepts, and what a network and its concept heads make of them."""

from interp.concepts.digits import digit_network, load_digits
from interp.concepts.explained import ConceptExplanation, ConceptScores
from interp.concepts.folder import load_concepts
from interp.concepts.heads import ConceptHeads
from interp.concepts.images import ConceptImages
from interp.concepts.reading import ConceptReading, read_concepts

__all__ = [
    "ConceptExplanation",
    "ConceptHeads",
    "ConceptImages",
    "ConceptReading",
    "ConceptScores",
    "digit_network",
    "load_concepts",
    "load_digits",
    "read_concepts",
]
