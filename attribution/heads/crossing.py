"""What crosses positions in one layer's attention, from each key position s to each query position t.

With A the pattern, g_t the gradient at a head's output z_t, v and k the clean values and keys, s_ts their score:

    values, pattern held       A_ts (v_s - v_s') . g_t
    keys, linear               dM/ds_ts (change of s_ts along k_s - k_s')
    queries, linear            dM/ds_ts (change of s_ts along q_t - q_t')
    keys or queries, finite    g_t . (z_t - z_t with s_ts alone replaced)

dM/ds_ts = A_ts (g_t . v_s - g_t . z_t); with one score replaced by s' = s + d the softmax gives, in closed form,
z' - z = A (e^d - 1) / (1 + A (e^d - 1)) (v_s - z), so that no softmax is taken anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attribution.heads.recorded import LayerAttention, Pairs, Projected
from interp.kernels.forward import capped
from interp.parts import working

PORTS = ("q", "k", "v")
_LARGEST = 80.0  # of a change in score: beyond it e^d overflows float32, and the pattern is 1 all the same


def crossings(clean: LayerAttention, corrupted: Projected, form: str) -> dict[str, Pairs]:
    """By port what passes from position s (key) to t (query); positive where the clean value helps."""
    q, k, v = clean.ready
    other_q, other_k, other_v = clean.made_ready(corrupted)
    values = clean.pattern * (clean.gradient @ (v - other_v).transpose(-1, -2))
    if form == "peap":
        return {"q": _replaced(clean, other_q, k), "k": _replaced(clean, q, other_k), "v": values}
    dq, dk = _tangents(clean, corrupted)
    return {
        "q": clean.score_gradient * clean.scores_of(dq, k),
        "k": clean.score_gradient * clean.scores_of(q, dk),
        "v": values,
    }


def _tangents(clean: LayerAttention, corrupted: Projected) -> tuple[Tensor, Tensor]:
    """Changes of queries and keys as they are multiplied, to first order in those behind the projections."""
    q, k, v = (working(part) for part in clean.projected)

    def moved(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return clean.made_ready((q, k, v))[:2]

    changes = tuple(one - working(other) for one, other in zip((q, k), corrupted, strict=False))
    with torch.enable_grad():
        found: tuple[Tensor, Tensor] = torch.autograd.functional.jvp(moved, (q, k), changes)[1]
    return found


def _replaced(clean: LayerAttention, q: Tensor, k: Tensor) -> Pairs:
    """The objective's fall, by the gradient at what heads give, where one score alone is of other keys or queries."""
    before, after = (capped(clean.block, scores) for scores in (clean.scores, clean.scores_of(q, k)))
    grown = clean.pattern * torch.expm1((after - before).clamp(max=_LARGEST))
    return -grown / (1 + grown) * clean.gain


def by_span(pairs: Pairs, index: Tensor, n_spans: int, pooled: str) -> Tensor:
    """[batch, head, query, key] -> [batch, head, span of the key, span of the query].

    `index` [batch, pos] holds spans' numbers, -1 at padding; `mean` is over pairs in which the key is not behind the
    query.
    """
    if pooled in ("absolute", "largest"):
        pairs = pairs.abs()
    if pooled == "mean":
        seen = torch.ones_like(pairs[:, :1]).tril()
        return by_span(pairs, index, n_spans, "sum") / by_span(seen, index, n_spans, "sum").clamp(min=1)
    reduced = "amax" if pooled == "largest" else "sum"
    places = torch.where(index < 0, n_spans, index)  # a span more, which is dropped, holds the padding
    by_key = _reduced(pairs, places, n_spans + 1, reduced)
    return _reduced(by_key.transpose(-1, -2), places, n_spans + 1, reduced)[..., :-1, :-1]


def _reduced(values: Tensor, places: Tensor, n: int, reduced: str) -> Tensor:
    """The last axis, by place."""
    out = values.new_zeros(*values.shape[:-1], n)
    return out.scatter_reduce(-1, places[:, None, None].expand_as(values), values, reduced)
