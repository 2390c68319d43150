"""ACDC: edges are cut one after the other, from the logits down, while the output stays near the model's."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attribution.edges.method import Method, Passes
from interp import numbers
from interp.errors import choose
from interp.graph import ComputationalGraph
from interp.objectives import get_objective
from interp.resumed import Resumed
from interp.setting import Setting

TAU = numbers.Limits(0, open_low=True, advice="the loss may rise by so much for an edge: 0.001 to 1 are usual")


@dataclass(frozen=True)
class ACDC(Method):
    """Cut edges one after the other, and leave out each that the circuit can do without (Conmy et al. 2023).

    M is KL(model || circuit) at the answer, a mean over prompts. Of the logits, then layer by layer downwards of the
    MLP and of each q, k and v, every incoming edge is ablated in turn: where dM = M(without it) - M(circuit so far) is
    below `tau`, it stays ablated. A node that nothing reads any more loses its incoming edges untried.

    The score of an edge that stays is its dM, when it was tried; that of one that went is tau exp(dM / tau - 1), which
    is below tau, above 0 and in the order of dM; that of one that went untried is 0. So `scores >= tau` is the circuit
    (`scores.mask(threshold=tau, pruned=False)`, or its `settings["edges"]` best), and smaller and larger circuits take
    the edges in the order of dM.

    The result depends on the order of edges. It is drawn with `seed` where the graph leaves it open: among the heads'
    inputs of a layer, and among the edges into one target. Where dM is tau but for rounding, batches may decide.

    Cost: one run of a circuit for each edge that is tried, and some for naught: edges into one target are run together
    on the guess that they all go, and those behind one that stays are run again. Layers below the target are not run.

    Attributes:
        tau: by how much M may rise for an edge.
        loss: what M is: `kl`, or `objective` for minus the setting's objective, as a mean over prompts.
        seed: of the order.
        resume: a file to keep partial results in, and to go on from.
    """

    tau: float = 0.01
    loss: Literal["kl", "objective"] = "kl"
    seed: int = 0
    resume: str | os.PathLike[str] | None = None

    name = "acdc"
    paper: ClassVar[str] = "Conmy et al. 2023, arXiv:2304.14997"
    formula: ClassVar[tuple[str, str]] = ("E", "0")

    def __post_init__(self) -> None:
        numbers.settle(self, tau=TAU)
        choose("loss", self.loss, ("kl", "objective"))

    def passes(self, graph: ComputationalGraph) -> Passes:
        return Passes(graph.n_edges, 0)

    def drawn_with(self) -> int:
        return self.seed

    def settings(self) -> dict[str, Any]:
        return {"tau": self.tau, "loss": self.loss}

    def order(self, graph: ComputationalGraph) -> list[tuple[int, list[int]]]:
        """The targets in the order in which they are worked off, each with its sources in the order of trial."""
        generator = torch.Generator().manual_seed(self.seed)

        def drawn(items: list[int]) -> list[int]:
            return [items[i] for i in torch.randperm(len(items), generator=generator, device="cpu").tolist()]

        targets = [graph.shape[1] - 1]
        for layer in reversed(range(graph.n_layers)):
            heads = graph.attention_targets(layer)
            targets += [graph.mlp_target(layer), *drawn(list(range(heads.start, heads.stop)))]
        return [(target, drawn(graph.edge_mask[:, target].nonzero()[:, 0].tolist())) for target in targets]

    def values(self, setting: Setting) -> Tensor:
        return self._found(setting)[0]

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        fingerprint = {
            **setting.to_dict(),
            **self.settings(),
            "method": self.name,
            "seed": self.seed,
            "weights": setting.anatomy.weights_digest(),
        }
        graph = setting.graph
        search = _Search(setting, self, Resumed(self.resume, _nothing_done(graph), fingerprint))
        try:
            with setting.run.progress(f"cutting edges ({self.name})", graph.n_edges) as bar:
                for target, sources in self.order(graph):
                    search.into(target, sources, bar.advance)
        finally:
            search.file.save()
        return search.file.state["values"], {"edges": int(search.file.state["mask"].sum())}


def _score(change: float, tau: float) -> float:
    """The score of an edge by which the loss rises so much."""
    if change >= tau:
        return change
    return min(tau * math.exp(change / tau - 1), math.nextafter(tau, 0))


def _nothing_done(graph: ComputationalGraph) -> dict[str, Tensor]:
    """Scores, the circuit so far, its loss, and which targets are done."""
    return {
        "values": torch.zeros(graph.shape, dtype=torch.float64, device="cpu"),
        "mask": graph.edge_mask.clone(),
        "loss": torch.full((1,), math.nan, dtype=torch.float64, device="cpu"),
        "done": torch.zeros(graph.shape[1], dtype=torch.bool, device="cpu"),
    }


class _Search:
    """The circuit so far, and how edges into one target are tried."""

    def __init__(self, setting: Setting, method: ACDC, file: Resumed) -> None:
        self.setting, self.method, self.file = setting, method, file
        self.goal = get_objective("kl") if method.loss == "kl" else setting.goal
        self.most = setting.meter.worth_stacking()
        self.guessed = 1  # how many edges are run together

    def into(self, target: int, sources: list[int], advance: Callable[[int], None]) -> None:
        """Try the edges into a target, unless it is done or nothing reads what it feeds."""
        if not self.file.state["done"][target]:
            values, mask, loss, done = (self.file.state[name].clone() for name in ("values", "mask", "loss", "done"))
            if loss.isnan():
                loss = self._losses(mask[None])
            if self._is_read(target, mask):
                loss[0] = self._try(target, sources, mask, float(loss), values)
            else:
                mask[:, target] = False
            done[target] = True
            self.file.put(values=values, mask=mask, loss=loss, done=done)
        advance(len(sources))

    def _is_read(self, target: int, mask: Bool[Tensor, "source target"]) -> bool:
        """Whether a node that the target feeds has an edge left; the logits are what is asked for."""
        graph = self.setting.graph
        nodes, layer = list(graph.target_sources[target]), target // graph.targets_per_layer
        if self.setting.anatomy.coupled_heads and nodes and nodes != [graph.mlp_source(layer)]:
            heads = graph.head_sources(layer)  # through the norm behind attention every head is read with every other
            nodes = list(range(heads.start, heads.stop))
        return not nodes or bool(mask[nodes].any())

    def _try(self, target: int, sources: list[int], mask: Tensor, loss: float, values: Tensor) -> float:
        """Cut what can go of `mask`, in place, write the scores into `values`, and return the loss that is left."""
        while sources:
            guess = sources[: self.guessed]
            masks = mask.repeat(len(guess), 1, 1)
            for row, source in enumerate(guess):
                masks[row:, source, target] = False  # as if those before it all go
            tried, stayed = 0, False
            for source, without in zip(guess, self._losses(masks).tolist(), strict=True):
                values[source, target] = _score(without - loss, self.method.tau)
                tried, stayed = tried + 1, without - loss >= self.method.tau
                if stayed:
                    break  # those behind it were run without it
                mask[source, target], loss = False, without
            self.guessed = max(1, self.guessed // 2) if stayed else min(self.most, 2 * self.guessed)
            sources = sources[tried:]
        return loss

    def _losses(self, masks: Bool[Tensor, "circuit source target"]) -> Float[Tensor, " circuit"]:
        """How far each circuit is from the model: minus the goal, as a mean over prompts."""
        return -self.setting.meter.values(masks, (self.goal,))[0].circuits.double().mean(1)
