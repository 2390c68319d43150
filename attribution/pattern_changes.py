"""What edges into queries and keys do through the attention pattern, recomputed instead of followed by its slope.

    effect = sum over rows i and keys j of (p'_ij - p_ij) g_ij

with p the pattern, p' that of changed queries or keys, and g the gradient at the pattern (Kramar et al. 2024,
arXiv:2403.00745, section 3.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.gradients import BatchScorer
from interp.kernels.contract import expand_sources
from interp.kernels.forward import Residual, attend, attention_parts, attention_scores, write_heads
from interp.kernels.frame import PerHead, PerPort
from interp.parts import Affine, working

Pattern = Float[Tensor, "... head query key"]
Gradient = Float[Tensor, "run batch head query key"]


@dataclass(frozen=True)
class AttentionRead:
    """A layer's attention in the clean run: what it reads, and its queries, keys and values."""

    x: Residual
    q: PerHead
    k: PerPort
    v: PerPort


class PatternChanges:
    """Of one batch and one layer: the clean pattern, and how much what edges change of it moves the objective."""

    def __init__(
        self, owner: BatchScorer, layer: int, read: AttentionRead, added: Float[Tensor, "run batch pos d_model"]
    ) -> None:
        """`added` are the gradients at what attention adds to the residual stream, of several runs."""
        self.owner, self.frame, self.layer, self.read = owner, owner.frame, layer, read
        self.block = owner.anatomy.blocks[layer]
        self.gradient = self._at_pattern(added)
        with torch.no_grad():
            self.scores = working(attention_scores(self.frame, layer, read.q, read.k))
            self.pattern = self.scores.softmax(-1)
            self.moved = self.gradient - of_the_others(self.scores, self.gradient)

    def _at_pattern(self, added: Tensor) -> Gradient:
        read, frame = self.read, self.frame
        with torch.enable_grad():
            z = attend(frame, self.layer, read.q, read.k, read.v).detach().requires_grad_()
            written = write_heads(self.block, z, frame.backward)[1]
            at_z = [torch.autograd.grad(written, z, one, retain_graph=True)[0] for one in added.to(z.dtype)]
        values = attention_parts(frame, self.layer, read.q, read.k, read.v)[1]
        return working(torch.stack(at_z)).transpose(2, 3) @ working(values).transpose(-1, -2)

    @torch.no_grad()
    def scored(self, change: Float[Tensor, "source row d_model"]) -> Float[Tensor, "run source port"]:
        """Scores of edges from sources whose outputs change so much, into all queries and then all keys of the layer.

        Positive where the objective falls without the change. A query's change moves its own row of the pattern; keys
        change one position at a time.
        """
        read, count, graph = self.read, len(change), self.owner.scorer.setting.graph
        less = torch.stack([self.owner.scatter(one) for one in change])
        x = self.block.attention_norm((working(read.x) - less).flatten(0, 1).to(read.x.dtype))
        queries = self._scores(self._projected(self.block.q, x), read.k.repeat(count, 1, 1, 1))
        keys = self._scores(read.q.repeat(count, 1, 1, 1), self._projected(self.block.k, x))
        of_queries = _summed(queries.softmax(-1) - self.pattern, self.gradient)
        of_keys = _summed(one_key_changed(self.scores, keys) - self.pattern, self.moved)
        if graph.n_ports != graph.n_heads:
            of_keys = of_keys.unflatten(-1, (graph.n_ports, -1)).sum(-1)
        return -torch.cat((of_queries, of_keys), -1)

    def _projected(self, affine: Affine, normed: Residual) -> PerPort:
        split: PerPort = affine(normed).unflatten(-1, (-1, self.owner.anatomy.d_head))
        return split

    def _scores(self, q: PerHead, k: PerPort) -> Float[Tensor, "source batch head query key"]:
        stacked = working(attention_scores(self.frame, self.layer, q, k))
        apart: Tensor = stacked.unflatten(0, (-1, len(self.read.x)))
        return apart


@torch.no_grad()
def query_and_key_scores(
    owner: BatchScorer, reads: list[AttentionRead], added: Float[Tensor, "run layer batch pos d_model"]
) -> Float[Tensor, "run source target"]:
    """Scores of all edges into queries and keys, summed over the batch's prompts; 0 for other edges."""
    graph, anatomy, delta = owner.scorer.setting.graph, owner.anatomy, owner.delta()
    layers = [PatternChanges(owner, layer, read, added[:, layer]) for layer, read in enumerate(reads)]
    scores = delta.embedding.new_zeros(len(added), *graph.shape)
    groups = [slice(0, 1)]  # the sources that the same layers read
    groups += [slice(graph.head_sources(i).start, graph.mlp_source(i) + 1) for i in range(graph.n_layers - 1)]
    for first, group in enumerate(groups):
        change = delta.embedding.new_empty(group.stop - group.start, *delta.embedding.shape)
        expand_sources(anatomy, graph, delta, slice(0, len(delta.embedding)), group, change)
        for layer in layers[first:]:
            start = graph.attention_targets(layer.layer).start
            scores[:, group, start : start + graph.n_heads + graph.n_ports] = layer.scored(change).to(scores.dtype)
    return scores


def _summed(
    change: Float[Tensor, "source batch head query key"], gradient: Gradient
) -> Float[Tensor, "run source head"]:
    return torch.einsum("sbhqk,rbhqk->rsh", change, gradient)


def one_key_changed(
    before: Pattern, after: Float[Tensor, "source batch head query key"]
) -> Float[Tensor, "source batch head query key"]:
    """Each key's weight when its own score alone is `after` and those of the others are `before`.

    p'_t = p_t e^d / (1 - p_t + p_t e^d), d the difference of scores; in logarithms, so that it holds where p_t is 1
    but for rounding. 0 where a query may not look.
    """
    seen = before > float("-inf")
    own = before.log_softmax(-1)
    changed = own + torch.where(seen, after - before, 0.0)
    found = (changed - torch.logaddexp(changed, _log_rest(before, own))).exp()
    return torch.where(seen, found, 0.0)


def _log_rest(scores: Pattern, own: Pattern) -> Pattern:
    """log(1 - p) of each key: where p is above one half, from the scores of all other keys."""
    top = scores.argmax(-1, keepdim=True)
    others = scores.scatter(-1, top, float("-inf")).logsumexp(-1, keepdim=True)
    rest = torch.log1p(-own.exp().clamp(max=0.5))
    return rest.scatter(-1, top, others - scores.logsumexp(-1, keepdim=True))


def of_the_others(scores: Pattern, gradient: Gradient) -> Gradient:
    """The mean gradient at the other keys of each key's row, by their weights: what weight that leaves it goes to."""
    pattern, top = scores.softmax(-1), scores.argmax(-1, keepdim=True)
    left = 1 - pattern.clamp(max=0.5)  # only the first key of a row can have more, and it is looked at apart
    mean = ((pattern * gradient).sum(-1, keepdim=True) - pattern * gradient) / left
    without = scores.scatter(-1, top, float("-inf")).softmax(-1).nan_to_num(0.0)  # a row of one key has no others
    at_top = (without * gradient).sum(-1, keepdim=True)
    return mean.scatter(-1, top.expand_as(gradient[..., :1]), at_top)
