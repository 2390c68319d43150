"""Capture: what edge scores need of a run, in its compact form.

At the sources the head outputs before W_O and the MLP outputs; at the targets the gradients at q, k and v behind
their projections and at the inputs of the other norms. That is about seven d_model floats per layer and
position. What W_Q, W_K, W_V, W_O and the norms do to them is linear and is done in `contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy, Block
from interp.graph import ComputationalGraph
from interp.kernels.backward import PLAIN, Backward
from interp.kernels.forward import Recorder, Residual
from interp.kernels.frame import PerHead, PerPort
from interp.parts import Affine, working

Rows = Int[Tensor, " row"]  # flat indices into [batch * pos]


def take_rows(x: Tensor, rows: Rows, copies: int = 1) -> Tensor:
    """[copies * batch, pos, ...] -> [copies, row, ...]: the rows that matter."""
    taken: Tensor = x.unflatten(0, (copies, -1)).flatten(1, 2)[:, rows]
    return taken


@dataclass
class Sources:
    """Outputs of all sources at the rows that matter, heads before W_O; or differences of such outputs."""

    embedding: Float[Tensor, "row d_model"]
    heads: list[Float[Tensor, "row head d_head"]]
    mlps: list[Float[Tensor, "row d_model"]]

    def each(self, change: Callable[[Tensor], Tensor]) -> Sources:
        """The same function of all outputs."""
        return self.beside(change)

    def beside(self, change: Callable[..., Tensor], *others: Sources) -> Sources:
        """A function of each output and of those in the same place of `others`."""
        return Sources(
            change(self.embedding, *(one.embedding for one in others)),
            [change(*parts) for parts in zip(self.heads, *(one.heads for one in others), strict=True)],
            [change(*parts) for parts in zip(self.mlps, *(one.mlps for one in others), strict=True)],
        )

    def minus(self, other: Sources) -> Sources:
        """Differences, taken in at least float32; `other` may broadcast over rows."""
        return self.beside(lambda a, b: working(a) - working(b), other)


class SourceRecorder(Recorder):
    """Keeps the sources of a run, at chosen rows."""

    def __init__(self, embedding: Residual, rows: Rows, copy: int = 0, copies: int = 1) -> None:
        self.rows, self.copy, self.copies = rows, copy, copies
        self.sources = Sources(self._take(embedding), [], [])

    def _take(self, x: Tensor) -> Tensor:
        return take_rows(x.detach(), self.rows, self.copies)[self.copy]

    def heads(self, layer: int, z: PerHead) -> None:
        self.sources.heads.append(self._take(z))

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        self.sources.mlps.append(self._take(m))
        return m


@dataclass
class TargetGradients:
    """Gradients at all targets, summed over the points of a path; norms' rank-one parts point by point.

    With r a norm's divisor, x its centred input and g the gradient at q (k, v): `ports[layer]` is the sum of
    weight * g / r, and per point `inner` is weight * (g . q) / (d_model r^2), q being the projection less its
    constant part, and `inputs` is x. See `contract` for how they make the gradient at the norm's input. Where a
    backward rule holds norms constant, `inner` stays empty; where one changes linear layers, `reads` holds the
    gradients in front of W, behind the norm's gain, in the place of `ports`; where one changes norms in another way,
    `reads` holds the gradients in front of the norm (`whole`), and `inner` stays empty too.
    """

    ports: list[Float[Tensor, "row port d_head"]] = field(default_factory=list)
    inner: list[list[Float[Tensor, "point row port"]]] = field(default_factory=list)
    inputs: list[list[Float[Tensor, "point row d_model"]]] = field(default_factory=list)
    reads: list[Float[Tensor, "row port d_model"]] = field(default_factory=list)
    whole: bool = False
    mlps: list[Float[Tensor, "row d_model"]] = field(default_factory=list)
    logits: Float[Tensor, "row d_model"] | None = None
    points: int = 0


class TargetRecorder(Recorder):
    """Sums the gradients at all targets of a run of stacked points, as the backward pass delivers them.

    `weights` [point] are the points' weights in the path. One recorder per forward pass; several may add to the
    same `TargetGradients`.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        graph: ComputationalGraph,
        rows: Rows,
        weights: Float[Tensor, " point"],
        into: TargetGradients,
        backward: Backward = PLAIN,
    ) -> None:
        self.anatomy, self.graph, self.rows, self.weights, self.into = anatomy, graph, rows, weights, into
        self.backward = backward
        self.open = True  # checkpointing runs blocks again: only the first run is recorded
        if not into.mlps:
            self._allocate()
        into.points += len(weights)

    def _allocate(self) -> None:
        anatomy, n_rows = self.anatomy, len(self.rows)
        like = working(torch.empty(0, dtype=anatomy.dtype, device=anatomy.device))
        ports = self.graph.targets_per_layer - 1
        into = self.into
        into.whole = self.backward.norm_pull is not None
        if self._in_closed_form:
            into.ports = [like.new_zeros(n_rows, ports, anatomy.d_head) for _ in anatomy.blocks]
        else:
            into.reads = [like.new_zeros(n_rows, ports, anatomy.d_model) for _ in anatomy.blocks]
        into.mlps = [like.new_zeros(n_rows, anatomy.d_model) for _ in anatomy.blocks]
        into.logits = like.new_zeros(n_rows, anatomy.d_model)
        into.inner, into.inputs = [[] for _ in anatomy.blocks], [[] for _ in anatomy.blocks]

    @property
    def _in_closed_form(self) -> bool:
        """Whether what norms and projections do to gradients is known without asking a rule."""
        return self.backward.pull is None and self.backward.norm_pull is None

    def _take(self, x: Tensor) -> Tensor:
        return working(take_rows(x.detach(), self.rows, len(self.weights)))

    def attention_input(self, layer: int, x: Residual) -> None:
        if self.open:
            norm = self.anatomy.blocks[layer].attention_norm
            self._read = self._take(x)
            self._divisor = norm.divisor(self._read)
            if not self.into.whole and not self.backward.norms_held:
                self.into.inputs[layer].append(norm.centred(self._read))

    def projections(self, layer: int, q: PerHead, k: PerPort, v: PerPort) -> tuple[PerHead, PerPort, PerPort]:
        if self.graph.kv == "head" and k.shape[2] != q.shape[2]:
            groups = self.anatomy.kv_of_head()
            k, v = k[:, :, groups], v[:, :, groups]
        if self.open:
            inner = self._divisor.new_zeros(*self._divisor.shape[:2], self.graph.targets_per_layer - 1)
            if not self.into.whole and not self.backward.norms_held:
                self.into.inner[layer].append(inner)
            block, first = self.anatomy.blocks[layer], 0
            for part, affine in zip((q, k, v), (block.q, block.k, block.v), strict=True):
                where = slice(first, first + part.shape[2])
                if self._in_closed_form:
                    self._listen(part, block, affine, self.into.ports[layer][:, where], inner[..., where])
                else:
                    self._pull(part, block, affine, self.into.reads[layer][:, where], inner[..., where])
                first = where.stop
        return q, k, v

    def _listen(self, part: PerPort, block: Block, affine: Affine, port: Tensor, inner: Tensor) -> None:
        """When the gradient at `part` arrives, add it to `port` and its product with `part` to `inner`."""
        divisor, held = self._divisor[..., None], self.backward.norms_held  # divisor: [point row 1 1]
        value = None if held else self._take(part)
        constant = None if held else self._per_head(constant_projection(block, affine), part)
        if value is not None and constant is not None:
            value = value - working(constant)
        weights = self.weights[:, None, None, None]

        def receive(gradient: Tensor) -> None:
            scaled = self._take(gradient) * (weights / divisor)
            port.add_(scaled.sum(0))
            if value is not None:
                inner.copy_((scaled * value).sum(-1) / (divisor[..., 0] * self.anatomy.d_model))

        part.register_hook(receive)

    def _pull(self, part: PerPort, block: Block, affine: Affine, read: Tensor, inner: Tensor) -> None:
        """The same where rules decide how the gradient gets in front of the weight, and of the norm."""
        pull, divisor, norm = self.backward.pull or _transposed, self._divisor[..., None], block.attention_norm
        through_norm, read_from = self.backward.norm_pull, self._read[:, :, None]
        weight, bias = self._per_head(affine.weight, part), self._per_head(affine.bias, part)
        assert weight is not None
        value, x = self._take(part), norm(self._read)[:, :, None]
        centred = norm.centred(read_from)
        weights = self.weights[:, None, None, None]

        def receive(gradient: Tensor) -> None:
            pulled = pull(working(weight), None if bias is None else working(bias), x, value, self._take(gradient))
            if through_norm is not None:
                read.add_((through_norm(norm, read_from.expand_as(pulled), pulled) * weights).sum(0))
                return
            scaled = pulled * (weights / divisor)
            read.add_(scaled.sum(0))
            gained = scaled if norm.gain is None else scaled * working(norm.gain)
            inner.copy_((gained * centred).sum(-1) / (divisor[..., 0] ** 2 * self.anatomy.d_model))

        part.register_hook(receive)

    def _per_head(self, values: Tensor | None, part: PerPort) -> Tensor | None:
        """A weight or bias of a projection, [head, ...], with one entry for each head of `part`."""
        if values is None:
            return None
        values = values.unflatten(0, (-1, self.anatomy.d_head))
        return values if len(values) == part.shape[2] else values[self.anatomy.kv_of_head()]

    def mlp_input(self, layer: int, x: Residual) -> Residual:
        branch = x.view_as(x)  # a view of its own, so that the skip path's gradient is not seen
        if self.open:
            self._add(branch, self.into.mlps[layer])
        return branch

    def final(self, x: Residual) -> None:
        """The last residual stream, which only the unembedding reads."""
        assert self.into.logits is not None
        self._add(x, self.into.logits)

    def _add(self, x: Tensor, total: Tensor) -> None:
        weights = self.weights[:, None, None]
        x.register_hook(lambda gradient: _ignore(total.add_((self._take(gradient) * weights).sum(0))))


def _transposed(weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
    """A linear layer's own gradient."""
    return torch.einsum("prho,hoi->prhi", gradient, weight)


def _ignore(_: Tensor) -> None:
    """A gradient hook that returns a tensor would replace the gradient."""


def constant_projection(block: Block, affine: Affine) -> Float[Tensor, " out"] | None:
    """The part of a projection that does not depend on the residual stream: biases of norm and projection."""
    if block.attention_norm.bias is None:
        return affine.bias
    moved = affine.weight @ block.attention_norm.bias
    return moved if affine.bias is None else moved + affine.bias
