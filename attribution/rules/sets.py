"""Rule sets: rules put together, by name or by the user, as the kernels ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import pandas as pd
from torch import Tensor

from attribution.rules.check import CALLS, check_values
from attribution.rules.rules import (
    AttentionFactors,
    Half,
    HeldGate,
    HeldRouting,
    HeldScale,
    Identity,
    Rule,
    pattern_held,
)
from attribution.rules.shortcuts import constant_factors, stated, through_affine, through_norm
from interp.anatomy import Anatomy
from interp.errors import InputError, choose
from interp.inspection import anatomy_of
from interp.keeping import kept
from interp.kernels.backward import Backward, NormPull, Pull
from interp.mlps import Gated, Mixture
from interp.parts import Affine, Norm
from interp.plugins import Registry

OPERATIONS = tuple(CALLS)
V = TypeVar("V")


@kept
@dataclass(frozen=True)
class RuleSet(Backward):
    """At most one rule for each kind of operation; operations without a rule keep their own gradient.

    Compose with `plus` and `without`; a rule takes the place of another one for the same operation. A set of your own
    is taken wherever a name is; `RULE_SETS.register(name, yours)`, an entry point `faithful_circuits.rules` or
    `"module:NAME"` give it a name.

    >>> from attribution.rules import RuleSet, HeldScale, Identity, rule_set
    >>> RuleSet.of(HeldScale(), Identity(), name="mine")
    RuleSet('mine': HeldScale(), Identity())
    >>> rule_set("attnlrp").plus(pattern_held()).without("product").rules[2]
    AttentionFactors(query=0.0, key=0.0, value=1.0, temperature=None)
    """

    name: str
    by_operation: dict[str, Rule] = field(default_factory=dict)
    what: str = field(default="", compare=False)
    paper: str = field(default="", compare=False)

    @classmethod
    def of(cls, *rules: Rule, name: str = "custom", what: str = "", paper: str = "") -> RuleSet:
        """A set of these rules, with what it does and where it comes from.

        Raises `InputError` for what is no rule, and for two for one operation.
        """
        chosen: dict[str, Rule] = {}
        for rule in rules:
            operation = getattr(rule, "operation", None)
            if not isinstance(rule, Rule) or operation not in OPERATIONS:
                raise InputError(f"rules must hold rules of attribution.rules, such as HeldScale(); got {rule!r}")
            if not callable(rule):
                raise InputError(f"rules: {rule!r} has no __call__({CALLS[operation][1]}), which says what it does")
            if operation in chosen:
                raise InputError(f"rules name two rules for {operation}: {chosen[operation]!r} and {rule!r}")
            chosen[operation] = rule
        return cls(name, {operation: chosen[operation] for operation in OPERATIONS if operation in chosen}, what, paper)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order of `OPERATIONS`."""
        return tuple(self.by_operation.values())

    def plus(self, *rules: Rule, name: str | None = None) -> RuleSet:
        """A copy with further rules, each in the place of the one for the same operation."""
        added = RuleSet.of(*rules)
        return RuleSet.of(*{**self.by_operation, **added.by_operation}.values(), name=name or self._changed())

    def without(self, *operations: str, name: str | None = None) -> RuleSet:
        """A copy in which some operations keep their own gradient."""
        for operation in operations:
            choose("operation", operation, OPERATIONS)
        kept = [rule for operation, rule in self.by_operation.items() if operation not in operations]
        return RuleSet.of(*kept, name=name or self._changed())

    def _changed(self) -> str:
        return self.name if self.name.endswith("*") else f"{self.name}*"

    def for_anatomy(self, anatomy: Anatomy) -> RuleSet:
        """The rules that have something to act on in this model; a mixture's routing is held wherever a rule is.

        Only the plain gradient (no rule at all) leaves routing its own gradient. Raises `InputError` for a rule that
        changes values.
        """
        kinds = {type(block.mlp) for block in anatomy.blocks}
        lacking = set() if Gated in kinds or Mixture in kinds else {"product"}
        chosen = {operation: rule for operation, rule in self.by_operation.items() if operation not in lacking}
        if Mixture in kinds and chosen:
            chosen.setdefault("routing", HeldRouting())
        elif Mixture not in kinds:
            chosen.pop("routing", None)
        for operation, rule in chosen.items():
            check_values(operation, rule, anatomy)
        return RuleSet.of(*chosen.values(), name=self.name, what=self.what, paper=self.paper)

    def to_dict(self) -> dict[str, Any]:
        """The name and the rules with their settings, as JSON can hold them."""
        return {"name": self.name, "rules": [repr(rule) for rule in self.rules]}

    def __repr__(self) -> str:
        return f"RuleSet({self.name!r}: {', '.join(map(repr, self.rules)) or 'plain gradient'})"

    def __hash__(self) -> int:
        return hash((self.name, self.rules))

    # ---- what the kernels ask for

    @property
    def norms_held(self) -> bool:  # type: ignore[override]
        rule = self.by_operation.get("norm")
        return rule is not None and stated(rule, "holds_divisor")

    @property
    def norm_pull(self) -> NormPull | None:  # type: ignore[override]
        rule = self.by_operation.get("norm")
        return None if rule is None or self.norms_held else partial(through_norm, rule)

    @property
    def pull(self) -> Pull | None:  # type: ignore[override]
        rule: Any = self.by_operation.get("linear")
        if rule is None:
            return None
        return rule.pull if stated(rule, "pull") else partial(through_affine, rule)

    @property
    def temperature(self) -> float | None:  # type: ignore[override]
        return getattr(self.by_operation.get("attention"), "temperature", None)

    def norm(self, norm: Norm, x: Tensor) -> Tensor:
        return self._asked("norm", super().norm, norm, x)

    def activation(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return self._asked("activation", super().activation, function, x)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return self._asked("product", super().product, a, b)

    def factors(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._asked("attention", super().factors, q, k, v)

    def affine(self, affine: Affine, x: Tensor) -> Tensor:
        return self._asked("linear", super().affine, affine, x)

    def mixture(self, value: Tensor, held: Callable[[], Tensor]) -> Tensor:
        return self._asked("routing", super().mixture, value, held)

    @property
    def attention_factors(self) -> tuple[float, float, float] | None:
        """The constants on the gradients of queries, keys and values; None if the rule is more than constants."""
        rule = self.by_operation.get("attention")
        return (1.0, 1.0, 1.0) if rule is None else constant_factors(rule)

    def _asked(self, operation: str, own: Callable[..., V], *given: Any) -> V:
        return cast("Callable[..., V]", self.by_operation.get(operation, own))(*given)


_HALVED = AttentionFactors(0.25, 0.25, 0.5)
_SOFTENED = AttentionFactors(0.25, 0.25, 0.5, temperature=2.0)

RULE_SETS: Registry[RuleSet] = Registry("rules", RuleSet, "faithful_circuits.rules")
for _set in (
    RuleSet.of(name="gradient", what="the plain gradient", paper="Simonyan et al. 2014, arXiv:1312.6034"),
    RuleSet.of(
        HeldScale(), Identity(), Half(), HeldRouting(), name="relp",
        what="relevance patching; attention keeps its own gradient",
        paper="Rezaei Jafari et al. 2025, arXiv:2508.21258",
    ),
    RuleSet.of(
        HeldScale(), Identity(), Half(), HeldRouting(), pattern_held(), name="relp-ah",
        what="relevance patching with attention patterns held constant",
        paper="Rezaei Jafari et al. 2025, arXiv:2508.21258",
    ),
    RuleSet.of(
        HeldScale(), Half(), HeldRouting(), _SOFTENED, name="gim",
        what="gradient interaction modifications", paper="Edin et al. 2025, arXiv:2505.17630",
    ),
    RuleSet.of(
        HeldScale(), Identity(), Half(), HeldRouting(), _HALVED, name="attnlrp",
        what="attention-aware LRP; leaks in the softmax", paper="Achtibat et al. 2024, arXiv:2402.05602",
    ),
    RuleSet.of(
        HeldScale(), Identity(), Half(), HeldRouting(), pattern_held(), name="cp-lrp",
        what="LRP with queries and keys held constant; conserves exactly up to biases",
        paper="Ali et al. 2022, arXiv:2202.07304",
    ),
    RuleSet.of(
        HeldScale(), Identity(), HeldGate(), HeldRouting(), pattern_held(), name="decompx",
        what="the linear maps of DecompX: patterns, scales, slopes and gates held constant",
        paper="Modarressi et al. 2023, arXiv:2306.02873",
    ),
):  # fmt: skip
    RULE_SETS.register(_set.name, _set)


def rule_set(rules: str | RuleSet, model: Any = None) -> RuleSet:
    """A rule set by name (or the one given), fitted to a model's architecture where a model is given.

    Fitting drops rules that have nothing to act on, so that the set says what it does: see `RuleSet.for_anatomy`.
    Raises `InputError` for an unknown name and for what is no rule set.

    >>> rule_set("relp-ah").without("attention", "routing")
    RuleSet('relp-ah*': HeldScale(), Identity(), Half())
    """
    chosen = RULE_SETS.make(rules)
    return chosen if model is None else chosen.for_anatomy(anatomy_of(model))


def rule_sets() -> pd.DataFrame:
    """The rule sets by name: what each does and where it comes from.

    >>> rule_sets()["name"].tolist()
    ['gradient', 'relp', 'relp-ah', 'gim', 'attnlrp', 'cp-lrp', 'decompx']
    """
    rows = []
    for name in RULE_SETS.names():
        one = RULE_SETS.make(name)
        rows.append({"name": name, "what": one.what, "rules": ", ".join(map(repr, one.rules)), "paper": one.paper})
    return pd.DataFrame(rows)
