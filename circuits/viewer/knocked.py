"""What happens to the objective when nodes are knocked out of the whole model, measured when the page is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from circuits.viewer.measuring import Prompts
from interp.errors import InputError, choose
from interp.node_mask import NodeMask, Spans

MOST_NODES = 40  # each is knocked out alone: the strongest
IN_PAIRS = 4  # of these every two together
MOST_PROMPTS = 6  # that it is measured on


def knocked(
    prompts: Prompts,
    level: str,
    spans: Spans,
    places: Mapping[str, int],
    first: Sequence[str],
    sets: Iterable[Sequence[str]] = (),
) -> dict[str, Any]:
    """Mean objective of the model, and how far it changes without nodes.

    Knocked out are each of the `first` nodes, each pair of the very first, and `sets`. `places` are flat indices into
    masks of the level by name. `changes` has names in alphabetical order, joined by commas. Raises `InputError` for
    sets of other nodes. Cost: a forward pass of each prompt for each set.
    """
    first = first[:MOST_NODES]
    named = {tuple(sorted(choose("knock", name, places) for name in _named(one))) for one in sets}
    asked = [*dict.fromkeys([*((name,) for name in first), *map(_sorted, combinations(first[:IN_PAIRS], 2)), *named])]
    of = prompts.setting.first(MOST_PROMPTS)
    masks = [_without([places[name] for name in one], of.nodes(level, spans).full, level, spans) for one in asked]
    values = of.measure(masks)
    changes = (values.circuits - values.clean).double().mean(-1).tolist()
    return {
        "objective": of.goal.name,
        "ablation": str(of.ablation),
        "prompts": len(of),
        "of": prompts.of,
        "clean": _short(float(values.clean.double().mean())),
        "changes": {",".join(one): _short(change) for one, change in zip(asked, changes, strict=True)},
    }


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _named(one: Any) -> Sequence[str]:
    if isinstance(one, str) or not all(isinstance(name, str) for name in one) or not one:
        raise InputError(f"knock holds {one!r}; give sets of names, such as knock=[('a0.h1', 'm2')]")
    return list(dict.fromkeys(one))


def _without(places: Sequence[int], full: Any, level: str, spans: Spans) -> NodeMask:
    mask = full.clone()
    mask.view(-1)[list(places)] = False
    return NodeMask(mask, level, spans)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
