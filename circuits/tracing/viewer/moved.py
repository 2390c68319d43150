"""What units write, read straight through the final norm: the tokens that each promotes and suppresses."""

from __future__ import annotations

import torch

from attribution.tracing.units import Places
from circuits.tracing.graph import AttributionGraph
from circuits.tracing.intervention import subject
from circuits.viewer.promoted import Moved, promoted, through_final_norm

MOST = 600  # units, those of largest influence: a page has room for so many tokens


@torch.no_grad()
def moved_tokens(graph: AttributionGraph) -> dict[str, tuple[Moved, Moved]]:
    """By node name: promoted and suppressed tokens, with what each gains.

        logits = W_U (a_u w_u behind the final norm, its divisor held at the last position), less their mean

    What a unit does through later layers is not in it, nor that a unit at an earlier position reaches the logits only
    through attention. Raises `InputError` for a graph from a file, which holds no model.
    """
    of = subject(graph)
    rows = graph.nodes[graph.kinds().units.numpy()]
    rows = rows.sort_values("influence", ascending=False, kind="stable").head(MOST)
    names, written = [], []
    for layer, here in rows.groupby("layer", sort=True):
        places = Places.of(torch.from_numpy(here[["layer", "position", "unit"]].to_numpy(copy=True)))
        own = int(str(layer))
        written.append(torch.stack([of.units.writes(own, places, into) for into in of.units.reaches(own)]).sum(0))
        names += here["name"].tolist()
    if not names:
        return {}
    anatomy = of.held.anatomy
    through = through_final_norm(anatomy, torch.cat(written), of.held.stream[-1:])
    return dict(zip(names, promoted(of.model, anatomy, through), strict=True))
