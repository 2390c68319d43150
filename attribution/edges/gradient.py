"""Methods that take gradients: along a path, under backward rules, or inside a circuit."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attribution.edges.method import Method, Passes, check_objective
from attribution.gradients import GradientScorer
from attribution.inside import AT_THE_CIRCUIT, Inside
from attribution.paths import (
    CREDITS,
    Credit,
    Path,
    activation_path,
    clean_corrupted_path,
    clean_path,
    input_path,
    settle_rule,
)
from attribution.rules.sets import RuleSet, rule_set
from attribution.scores import Level
from attribution.spans import placed_in, refuse_nodes, told_of
from interp.errors import InputError, choose
from interp.graph import ComputationalGraph
from interp.kernels.batching import Plan, plan
from interp.kernels.contract import PRODUCTS, Products
from interp.setting import Setting
from interp.spans import Placed


@dataclass(frozen=True)
class GradientMethod(Method):
    """Attribution along a path of runs: (clean - corrupted) . mean gradient.

    Attributes:
        level: a node's score is the sum over its edges: the gradient at its output is that of all its readers.
        rules: backward rules, by name or as a `RuleSet`; None: the plain gradient.
        checkpointed: recompute activations in the backward pass; None: when a prompt would not fit otherwise.
        positions: score each edge position by position: `all`, a list of positions, or `spans`, those of the task
            (`interp.spans.asked_spans`); their sum is the edge's score. None: summed.
        products: what the products of differences and gradients are made in: `float32` (float64 for such a model), or
            `bfloat16`, whose sums are float32 all the same; faster on a GPU, slower on a CPU.
    """

    level: Level = "edge"
    rules: str | RuleSet | None = None
    checkpointed: bool | None = None
    positions: Any = None
    products: Products = "float32"

    by_position: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choose("level", self.level, ("edge", "node"))
        refuse_nodes(self.level, self.positions)
        choose("products", self.products, PRODUCTS)
        if self.rules is not None:
            rule_set(self.rules)

    @abstractmethod
    def path(self, n_layers: int) -> Path:
        """Where gradients are taken."""

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_objective(setting.goal, self.name, self.path(setting.graph.n_layers).only_clean)

    def passes(self, graph: ComputationalGraph) -> Passes:
        points = self.path(graph.n_layers).n_points
        return Passes(points + self._further_runs, points)

    _further_runs: ClassVar[int] = 1  # clean and corrupted runs that no point of the path visits

    def backward(self, setting: Setting) -> RuleSet:
        """The rules, as fitted to the model."""
        return rule_set(self.rules or "gradient").for_anatomy(setting.anatomy)

    def scorer(self, setting: Setting, path: Path, planned: Plan, placed: Placed | None) -> GradientScorer:
        """What takes the gradients and scores with them, span by span."""
        return GradientScorer(setting, path, planned, self.backward(setting), placed, self.products)

    def settings(self) -> dict[str, Any]:
        left = {"level", "rules", "checkpointed", "positions"} | ({"products"} if self.products == "float32" else set())
        return {name: value for name, value in super().settings().items() if name not in left}

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        backward, told = self.backward(setting), told_of(placed_in(setting, self.positions))
        return self.values(setting), told | ({"rules": backward.to_dict()} if backward.rules else {})

    def values(self, setting: Setting) -> Tensor:
        placed = placed_in(setting, self.positions)
        path = self.path(setting.graph.n_layers)
        planned = plan(
            setting.anatomy, len(setting), setting.prompts.longest, copies=path.n_points,
            batch_size=setting.run.batch_size, checkpointed=self.checkpointed, memory=setting.run.memory,
        )  # fmt: skip
        with setting.run.progress(f"scoring edges ({self.name})", len(setting)) as bar:
            scorer = self.scorer(setting, path, planned, placed)
            with torch.inference_mode(False):
                values = scorer.scores(bar.advance)
        if placed is not None:
            return values
        return values[0].sum(1) if self.level == "node" else values[0]


@dataclass(frozen=True)
class EAP(GradientMethod):
    """Edge attribution patching: the gradient at the clean run.

    With `inside` (a bool mask `[source, target]` or anything with such a `.mask`) every edge outside of that circuit is
    ablated: an edge inside is scored by how much the circuit's objective falls when that edge is ablated too, to
    first order; an edge outside by how much it rises when that edge is added.
    """

    inside: Any = None

    name = "eap"
    paper: ClassVar[str] = "Syed et al. 2023, arXiv:2310.10348"
    formula: ClassVar[tuple[str, str]] = ("2", "1")

    def path(self, n_layers: int) -> Path:
        return clean_path()

    def check(self, setting: Setting) -> None:
        if self.inside is None:
            return super().check(setting)
        self.refuse_rules("edges")
        if self.products != "float32":
            raise InputError("products='bfloat16' is for scores of the whole model; leave it out with inside=")
        return self._at(setting).check(self.name, AT_THE_CIRCUIT)

    def _at(self, setting: Setting) -> Inside:
        return Inside.of(self.inside, setting, self.positions)

    def refuse_rules(self, of: str) -> None:
        """Raise `InputError` for backward rules beside `inside`: they are for gradients of the whole model."""
        if self.rules is not None:
            raise InputError(
                f"method={self.name!r} with rules={self.rules!r} scores the whole model; inside a circuit use "
                f"method='eap' without rules (the gradient at the circuit) or 'mask-ig' (along the weights of its {of})"
            )

    def _found(self, setting: Setting) -> tuple[Tensor, dict[str, Any]]:
        if self.inside is None:
            return super()._found(setting)
        inside = self._at(setting)
        values = inside.scores(AT_THE_CIRCUIT, self.name)
        return inside.at_level(values, self.level), inside.told(self.level)

    def values(self, setting: Setting) -> Tensor:
        return super().values(setting) if self.inside is None else self._found(setting)[0]


@dataclass(frozen=True)
class AttributionPatching(EAP):
    """Attribution patching of nodes: the sum of the scores of a node's edges, by the chain rule."""

    level: Level = "node"

    name = "attribution-patching"
    paper: ClassVar[str] = "Nanda 2023; Kramar et al. 2024, arXiv:2403.00745"


@dataclass(frozen=True)
class Relevance(GradientMethod):
    """A rule set of its own, at the cost of `eap`: RelP, GIM, AttnLRP, CP-LRP, DecompX's linear maps."""

    rules: str | RuleSet | None = "relp"

    formula: ClassVar[tuple[str, str]] = ("2", "1")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The rule set's name."""
        return self.rules if isinstance(self.rules, str) else rule_set(self.rules or "gradient").name

    @property
    def paper(self) -> str:  # type: ignore[override]
        """The rule set's paper."""
        return rule_set(self.rules or "gradient").paper

    def path(self, n_layers: int) -> Path:
        return clean_path()


@dataclass(frozen=True)
class CleanCorrupted(GradientMethod):
    """The mean gradient of the clean and the corrupted run."""

    name = "clean-corrupted"
    paper: ClassVar[str] = "Hanna et al. 2024, arXiv:2403.17806"
    ablations: ClassVar[tuple[str, ...]] = ("patch",)
    formula: ClassVar[tuple[str, str]] = ("2", "2")
    _further_runs: ClassVar[int] = 0

    def path(self, n_layers: int) -> Path:
        return clean_corrupted_path()


@dataclass(frozen=True)
class EAPIG(GradientMethod):
    """EAP with integrated gradients over the input embedding, from corrupted to clean.

    `quadrature`: `left` is what the authors' code does (it visits the corrupted end), or `right`, `midpoint`,
    `gauss-legendre`.
    """

    steps: int = 5
    quadrature: str | None = "left"

    name = "eap-ig"
    paper: ClassVar[str] = "Hanna et al. 2024, arXiv:2403.17806"
    ablations: ClassVar[tuple[str, ...]] = ("patch",)
    formula: ClassVar[tuple[str, str]] = ("S+1", "S")

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_rule(self, "left")

    def path(self, n_layers: int) -> Path:
        return input_path(self.steps, str(self.quadrature))


@dataclass(frozen=True)
class EAPIGActivations(GradientMethod):
    """EAP with integrated gradients over each sub-layer's output in turn.

    `credit`: `all` credits an edge in the passes of every sub-layer, as the authors' code does; `own` in those of its
    own source alone. `quadrature`: `right` (the clean end) is what the authors' code does.
    """

    steps: int = 5
    quadrature: str | None = "right"
    credit: Credit = "all"

    name = "eap-ig-activations"
    paper: ClassVar[str] = "Marks et al. 2024, arXiv:2403.19647"
    formula: ClassVar[tuple[str, str]] = ("S(2L+1)+2", "S(2L+1)")
    _further_runs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_rule(self, "right")
        choose("credit", self.credit, CREDITS)

    def path(self, n_layers: int) -> Path:
        return activation_path(n_layers, self.steps, str(self.quadrature), self.credit)
