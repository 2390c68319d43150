"""How faithful explanations by concepts are."""

from metrics.concepts.effects import concept_effects
from metrics.concepts.faithfulness import concept_faithfulness
from metrics.concepts.result import ConceptFaithfulness, Disagreement, JudgedConcepts

__all__ = ["ConceptFaithfulness", "Disagreement", "JudgedConcepts", "concept_effects", "concept_faithfulness"]
