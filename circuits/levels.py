"""Circuits of edges or of nodes: what is asked for, and how either is scored, in one place for all that finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attribution.edges.method import Method, Passes
from attribution.engines import at_spans, chosen_method
from attribution.scores import Scores
from attribution.units.nodes import check_nodes, passes_of_nodes, scores_of_nodes
from interp.dictionaries.sets import FeatureKeywords
from interp.errors import InputError, choose
from interp.node_mask import NODE_LEVELS, Spans, spans_of
from interp.selection import SELECTIONS, Connected, Selection, TopN
from interp.selection.by_span import refuse_by_span
from interp.setting import Setting
from metrics.circuit.balance import Balanced, node_weight
from metrics.circuit.elements import Elements, elements_at
from metrics.circuit.evaluate import refuse_dictionaries


class LevelKeywords(FeatureKeywords, total=False):
    """What circuits are to be made of."""

    level: str
    positions: Any


class NodeKeywords(LevelKeywords, total=False):
    """The same, and how many nodes."""

    nodes: int | float | None


@dataclass(frozen=True)
class Asked:
    """What circuits are to be made of.

    Attributes:
        level: `edge`, or `neuron`, `expert`, `head`, `node`, `feature`.
        positions: None (a node or edge is at all positions at once), `all` (every position that can matter), or
            positions; of edges also `spans`, those of the task.

    Raises `InputError` for an unknown level.
    """

    level: str = "edge"
    positions: Any = None

    def __post_init__(self) -> None:
        choose("level", self.level, ("edge", *NODE_LEVELS))

    @classmethod
    def of(cls, keywords: Mapping[str, Any], of_edges: Mapping[str, Any]) -> Asked:
        """From a function's keywords; raises `InputError` for what is for nodes beside edges, and the other way round.

        `of_edges`: arguments that have a meaning for edges alone, which are none, or None, where nobody gave them.
        """
        asked = cls(keywords.get("level", "edge"), keywords.get("positions"))
        if asked.level == "edge":
            for name in ("nodes", "dictionaries", "errors"):
                if keywords.get(name) is not None:
                    levels = "'neuron', 'expert', 'head', 'node' or 'feature'" if name == "nodes" else "'feature'"
                    raise InputError(f"{name} is for circuits of nodes: give level={levels} too")
        elif refused := [name for name, given in of_edges.items() if given]:
            raise InputError(f"{refused[0]} is for circuits of edges; of nodes there are nodes= and positions=")
        refuse_dictionaries(keywords, asked.level)
        return asked

    def method(self, method: str | Method, told: Mapping[str, Any]) -> Method:
        """The method that a name (with the settings `told`) or an object means here.

        Features are credited in their own place, which is not what edges take by default.
        """
        if self.level == "edge":
            return chosen_method(method, told, level="edge")
        own = {"credit": "own"} if self.level == "feature" and method == "eap-ig-activations" else {}
        return chosen_method(method, {**own, **told})

    def selection(self, selection: str | Selection, told: Mapping[str, Any] | None = None) -> Selection:
        """The selection that a name (with its settings) or an object means; refuses those of edges for nodes."""
        made = SELECTIONS.make(selection, told)
        if self.level != "edge":
            node_weight(made)
        elif self.positions is not None and not isinstance(made, Balanced | Connected | TopN):
            refuse_by_span(made)
        return made

    def elements(self, setting: Setting) -> Elements:
        """What circuits are made of in a setting; raises `InputError` for positions that its prompts do not have."""
        return elements_at(setting, self.level, self._spans(setting))

    def _spans(self, setting: Setting) -> Spans:
        """`all`: from the first difference of any prompt on, or all positions where none is skipped."""
        if self.positions is None:
            return None
        if self.level == "edge":
            return setting.placed_at(self.positions).spans
        prompts = setting.prompts
        if isinstance(self.positions, str):
            choose("positions", self.positions, ("all",))
            first = int(prompts.first_difference.min()) if setting.skip_prefix else 0
            return tuple(range(first, prompts.clean.shape[1]))
        return spans_of(self.positions)


def scored(elements: Elements, method: Method) -> Scores:
    """A method's scores of edges, or of nodes."""
    if elements.level == "edge":
        return at_spans(method, elements.spans).scores(elements.setting)
    return scores_of_nodes(elements.setting, method, elements.level, elements.spans)


def check(elements: Elements, method: Method) -> None:
    """Raise what scoring by the method would refuse, before any work."""
    if elements.level == "edge":
        at_spans(method, elements.spans).check(elements.setting)
    else:
        check_nodes(elements.setting, method, elements.level, elements.spans)


def passes(elements: Elements, method: Method) -> Passes:
    """What that costs, in passes per prompt."""
    graph = elements.setting.graph
    return method.passes(graph) if elements.level == "edge" else passes_of_nodes(method, graph, len(elements.places))
