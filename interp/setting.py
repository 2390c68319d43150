"""`Setting`: a model, a task, an ablation and an objective: everything that a number is true under."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import Tensor

from interp import numbers, ranks
from interp.anatomy import Anatomy
from interp.conditions import Conditions, conditions_of, constants_of, objective_of
from interp.dictionaries.circuits import FeatureNodes, feature_norms
from interp.dictionaries.sets import DictionarySet
from interp.errors import InputError, choose, short
from interp.fingerprint import edition
from interp.fits import Fits, refuse_mixtures
from interp.graph import KV, ComputationalGraph
from interp.inspection import anatomy_of
from interp.kernels.ablation import KNOWN, OPTIMAL, Ablator
from interp.kernels.circuit import Edges
from interp.kernels.constants import FittedConstants
from interp.kernels.evaluate import CircuitValues, Masks, Meter
from interp.kernels.fitting import Fitting
from interp.kernels.node_norms import node_norms
from interp.kernels.nodes import Nodes
from interp.kernels.stacked import NodeGrain
from interp.kernels.unit_constants import UnitConstants
from interp.keywords import chosen
from interp.node_mask import OF_UNITS, NodeMask, Spans
from interp.objectives import Objective, ObjectiveFunction, get_objective
from interp.run import Run
from interp.running import door, visit
from interp.span_mask import SpanMask
from interp.spans import Placed, SpanNames, asked_spans, place
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from interp.tasks.token_spans import TokenSpans

MaskObject = NodeMask | SpanMask
GivenObjective = str | Objective | ObjectiveFunction | None


class UnderKeywords(TypedDict, total=False):
    """What is asked of circuits that are there already: their graph is known."""

    ablation: str | None
    objective: GivenObjective
    constants: FittedConstants | Fitting | None


class SettingKeywords(UnderKeywords, total=False):
    """The keywords of a `Setting` beside model and task, as public functions take them."""

    kv: KV


T = TypeVar("T")


class _OfWeights(Generic[T]):
    """A property that is computed once for the model's weights as they are."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, setting: Any, owner: type | None = None) -> T:
        if setting is None:
            return self  # type: ignore[return-value]  # as a property does
        setting.forget_edited()
        known: dict[str, T] = setting.__dict__
        if self.name not in known:
            known[self.name] = self.compute(setting)
        return known[self.name]

    def __set__(self, setting: Any, value: T) -> None:
        raise AttributeError(f"{self.name} cannot be set")


@dataclass(frozen=True, eq=False, repr=False)
class Setting:
    """A model on a task under an ablation and an objective, and what is computed once for all that is asked of it.

    Everything that measures takes one: methods, selections, metrics. The functions that take a model and a task make
    one. After an edit of the model's weights all is computed anew; torch does not count those in place through `.data`,
    after which a new setting is to be made.

    Attributes:
        model: what `interp.load_model` returns.
        task: the prompts; `split` and `select` give settings of fewer.
        ablation: what an edge outside of a circuit gives: `patch` (the source's value in the corrupted prompt),
            `zero`, `zero-token` (the input keeps its learned position, as in MIB), `mean` or `mean-positional` over the
            task's clean prompts, `optimal` (the constant under which the model loses least). None: `patch`.
        objective: what a circuit is to preserve; None: the task's own. An `Objective` in any case.
        kv: key and value targets per query `head` or per key-value `group`.
        run: how runs are made.
        features: the dictionaries whose features are nodes of level `feature`, and what becomes of their errors.
        constants: those of `optimal` ablation (of sources, or of the neurons or features that are ablated), or how
            they are fitted (`Fitting`; None: as by default). They are fitted once, at the first use, to this setting's
            clean prompts, and hold for every setting that `on`, `select` and `split` make of it; `split` fits them to
            the first part alone.
        method: what found the circuit or the scores that are judged, by name, for the titles of pictures.

    Raises `InputError` for unknown names, and for a model or prompts that cannot be used.
    """

    model: Any
    task: Task
    ablation: str | None = None
    objective: GivenObjective = None
    kv: KV = "head"
    run: Run = field(default_factory=Run)
    features: DictionarySet | None = None
    constants: FittedConstants | Fitting | None = None
    method: str = ""

    def __post_init__(self) -> None:
        if not hasattr(self.task, "prompts"):
            raise InputError(
                f"task is a {type(self.task).__name__}; give a Task, such as tasks.ioi(model=model) or "
                "Task.from_pairs(name, pairs)"
            )
        object.__setattr__(self, "ablation", choose("ablation", self.ablation or "patch", KNOWN))
        if self.constants is not None and (
            self.ablation != OPTIMAL or not isinstance(self.constants, FittedConstants | Fitting)
        ):
            raise InputError(
                f"constants={short(self.constants)} with ablation={self.ablation!r}: constants (those that scores or a "
                "circuit carry, or an interp.Fitting) belong to ablation='optimal'"
            )
        goal = get_objective(self.task.objective if self.objective is None else self.objective)
        object.__setattr__(self, "objective", goal)

    @classmethod
    def of(cls, model: Any, task: Task, keywords: Mapping[str, Any], circuit: Any = None) -> Setting:
        """From a function's model, task and keywords; those of others are passed over.

        What is not asked for is as the `circuit` (or the scores) was found, which a bare mask knows nothing of: an
        ablation of None is then `patch`, an objective of None the task's own.
        """
        told = chosen(keywords, SettingKeywords)
        if told.get("ablation") is None:
            told["ablation"] = conditions_of(circuit).ablation
            if told.get("constants") is None:
                told["constants"] = constants_of(circuit)
        if told.get("objective") is None:
            told["objective"] = objective_of(circuit, task)
        told["features"], told["method"] = DictionarySet.of(keywords, circuit), conditions_of(circuit).method
        made = cls(model, task, run=Run.of(keywords), **told)
        if ranks.count() > 1:
            made._agree()
        return made

    def _agree(self) -> None:
        """Raise `InputError` unless all ranks ask the same of the same model, and each has a prompt to run."""
        told, anatomy = self.task.to_dict(), self.anatomy
        ranks.agree("tasks", f"{told['name']}, {told['n']} prompts, {told['sha256'][:12]}")
        ranks.agree("models", f"{anatomy.name}, {anatomy.dtype}, {sum(anatomy.weights_digest())!r}")
        ranks.agree("ablations and objectives", f"{self.ablation}, {self.goal.name}")
        if len(self) < ranks.count():
            raise InputError(
                f"task={self.task.name!r} has {len(self)} prompts for {ranks.count()} ranks; start at most one rank "
                "for each prompt (--nproc-per-node), or give more prompts"
            )

    @property
    def goal(self) -> Objective:
        """The objective."""
        assert isinstance(self.objective, Objective)
        return self.objective

    @_OfWeights
    def anatomy(self) -> Anatomy:
        """The model's parts, read and checked."""
        return anatomy_of(self.model)

    @_OfWeights
    def graph(self) -> ComputationalGraph:
        """The computational graph that scores and circuits are over."""
        return ComputationalGraph.of_anatomy(self.anatomy, self.kv)

    @functools.cached_property
    def prompts(self) -> Prompts:
        """The tokenised prompts."""
        return self.task.prompts(self.model)

    @functools.cached_property
    def _named_spans(self) -> TokenSpans:
        """The task's spans: found by tokenising its prompts once more."""
        return self.task.spans(self.model)

    def placed(self, spans: SpanNames) -> Placed:
        """Which of some spans each position of the prompts is in; raises `InputError` for names that the task lacks."""
        return place(spans, self.prompts, self._named_spans)

    def placed_at(self, positions: Any) -> Placed:
        """The same of those that `positions=` means: `all`, `spans` (or True), or a list (`interp.spans`)."""
        return self.placed(asked_spans(positions, self.prompts, self._named_spans, skip_prefix=self.skip_prefix))

    @_OfWeights
    def ablator(self) -> Ablator:
        """What corrupted sources give; means are taken, and constants fitted, at the first use."""
        if self.ablation == OPTIMAL:
            return Ablator(self.anatomy, OPTIMAL, self._fits.sources(self.anatomy, self.run))
        return Ablator.of(self.anatomy, str(self.ablation), self.prompts, self.run.batch_size, self.run.memory)

    @property
    def skip_prefix(self) -> bool:
        """Whether positions before the first difference keep their clean values in every run."""
        return self.ablation == "patch"

    @property
    def fitted(self) -> FittedConstants | None:
        """The constants of `optimal` ablation that runs took here, of sources where none ran yet; None under others."""
        return None if self.ablation != OPTIMAL else self._fits.used or self._fits.sources(self.anatomy, self.run)

    @functools.cached_property
    def _fits(self) -> Fits:
        return Fits(self.constants, lambda: self.prompts)

    def ablator_at(self, level: str) -> Ablator:
        """The same; of neurons and features, which have constants of their own, without those of sources."""
        return Ablator(self.anatomy, OPTIMAL) if self.ablation == OPTIMAL and level in OF_UNITS else self.ablator

    @_OfWeights
    def meter(self) -> Meter:
        """What measures circuits of edges, and remembers the runs that they share."""
        grain = Edges(self.anatomy, self.graph, self.ablator)
        return Meter(grain, self.prompts, self.run.batch_size, self.run.memory)

    @functools.cached_property
    def _node_meters(self) -> dict[tuple[str, Spans], Meter]:
        return {}

    def nodes(self, level: str, spans: Spans = None) -> NodeGrain:
        """The nodes of a level under this ablation, and how they are run.

        Raises `InputError` for features without dictionaries, and for constants of a mixture's neurons or experts.
        """
        fitted = None
        if self.ablation == OPTIMAL and level in OF_UNITS:
            refuse_mixtures(self.anatomy, level)
            features = None if self.features is None else (self.features.digests, self.features.errors)
            zero = functools.partial(self._grain, level, None, Ablator(self.anatomy, "zero"), fitted=None)
            fitted = functools.partial(self._fits.units, zero, (level, features), self.run)
        return self._grain(level, spans, self.ablator_at(level), self.prompts, fitted=fitted)

    def _grain(
        self, level: str, spans: Spans, ablator: Ablator, prompts: Prompts, fitted: Callable[[], UnitConstants] | None
    ) -> NodeGrain:
        told: dict[str, Any] = {"anatomy": self.anatomy, "ablator": ablator, "prompts": prompts, "fitted": fitted}
        told |= {"level": level, "spans": spans, "batch_size": self.run.batch_size, "memory": self.run.memory}
        if level != "feature":
            return Nodes(**told)
        if self.features is None:
            raise InputError(
                "level='feature' needs dictionaries=: those that the features are of, in the order of the mask (a file "
                "holds their digests alone)"
            )
        return FeatureNodes(of=self.features, **told)

    @functools.cached_property
    def _node_norms(self) -> dict[str, Tensor]:
        return {}

    def node_norms(self, level: str) -> Tensor:
        """How much each node of a level moves the residual stream when it is ablated. Two forward passes, once."""
        grain = self.nodes(level)
        if level not in self._node_norms:
            if isinstance(grain, FeatureNodes):
                self._node_norms[level] = feature_norms(grain)
            else:
                assert isinstance(grain, Nodes)
                self._node_norms[level] = node_norms(grain)
        return self._node_norms[level]

    def _node_meter(self, level: str, spans: Spans) -> Meter:
        """What measures circuits of nodes of one level."""
        if (level, spans) not in self._node_meters:
            grain = self.nodes(level, spans)
            self._node_meters[level, spans] = Meter(grain, self.prompts, self.run.batch_size, self.run.memory)
        return self._node_meters[level, spans]

    def forget_edited(self) -> None:
        """Forget what was computed with weights that have been edited since."""
        known = self.__dict__
        if (here := visit()) is not None and known.get("_looked") == here:
            return  # nobody edits weights during a call
        now = edition(self.model)
        if known.get("_edition", now) != now:
            for name in ("anatomy", "graph", "ablator", "meter", "_node_meters", "_node_norms"):
                known.pop(name, None)
        known["_edition"], known["_looked"] = now, here

    def __len__(self) -> int:
        return len(self.task)

    def measure(self, masks: Masks | Sequence[MaskObject]) -> CircuitValues:
        """Objectives of the clean model, of the empty circuit and of each circuit, prompt by prompt.

        `masks` are bool `[circuit, source, target]`, masks of edges by position, or masks of nodes of one level, whose
        empty circuit ablates all nodes of that level; what was measured before is not measured again.
        """
        return self.measure_all(masks, (self.goal,))[0]

    @door
    def measure_all(
        self, masks: Masks | Sequence[MaskObject], objectives: Sequence[GivenObjective]
    ) -> list[CircuitValues]:
        """The same for several objectives (None: the setting's own) at the cost of one."""
        nodes, by_span = _told_apart(masks)
        if isinstance(masks, Tensor):
            meter, checked = self._of_edges(masks)
        else:
            meter, checked = self._of_spans(by_span) if by_span else self._of_nodes(nodes)
        goals = [self.goal if one is None else get_objective(one) for one in objectives]
        stacked = torch.stack(checked) if checked else meter.grain.empty()[None][:0]
        with self.run.progress("running circuits", len(checked) * len(self)) as bar:
            return meter.values(stacked, goals, bar.advance)

    def _of_edges(self, masks: Masks) -> tuple[Meter, list[Tensor]]:
        return self.meter, [self.graph.check_mask(one) for one in masks]

    def _of_spans(self, masks: Sequence[SpanMask]) -> tuple[Meter, list[Tensor]]:
        if len({one.spans for one in masks}) != 1:
            raise InputError("masks of edges by position that are run together must have the same spans")
        spans, known = masks[0].spans, self._node_meters
        checked = [one.check(self.graph, self.anatomy.name) for one in masks]
        if ("edge", spans) not in known:
            grain = Edges(self.anatomy, self.graph, self.ablator, self.placed(spans))
            known["edge", spans] = Meter(grain, self.prompts, self.run.batch_size, self.run.memory)
        return known["edge", spans], checked

    def _of_nodes(self, masks: Sequence[NodeMask]) -> tuple[Meter, list[Tensor]]:
        kinds = {(one.level, one.spans) for one in masks}
        if len(kinds) != 1:
            raise InputError(f"masks of nodes that are run together are of one level and its spans; got {len(kinds)}")
        ((level, spans),) = kinds
        full = self.nodes(level, spans).full
        return self._node_meter(level, spans), [one.check(full, self.anatomy.name) for one in masks]

    def on(self, task: Task) -> Setting:
        """The same on other prompts; what constants were fitted holds on."""
        _ = self._fits
        return self._sharing(replace(self, task=task), "anatomy", "graph", "_fits")

    def under(self, **changes: Any) -> Setting:
        """The same but for `ablation`, `objective`, `kv`, `run` or `features`; what these leave stays computed."""
        if changes.get("ablation", OPTIMAL) != OPTIMAL:
            changes.setdefault("constants", None)
        shared = ["anatomy", "prompts"]
        shared += [] if "kv" in changes else ["graph"]
        fitted = {"run"} if self.ablation == OPTIMAL else set()
        shared += ["ablator"] if changes.keys() <= {"objective", "kv", "features", *fitted} else []
        shared += ["meter", "_node_meters", "_node_norms"] if changes.keys() <= {"objective"} else []
        shared += [] if changes.keys() & {"ablation", "constants"} else ["_fits"]
        _ = self._fits
        return self._sharing(replace(self, **changes), *shared)

    def _sharing(self, other: Setting, *names: str) -> Setting:
        self.forget_edited()
        shared = ("_edition", *names)
        other.__dict__.update({name: self.__dict__[name] for name in shared if name in self.__dict__})
        return other

    def select(self, indices: Iterable[int] | Tensor) -> Setting:
        """The same on some of the prompts (`Task.select`)."""
        return self.on(self.task.select(indices))

    @numbers.checked(n=numbers.COUNT)
    def first(self, n: int) -> Setting:
        """The same on the first `n` prompts; itself, with what it has computed, where it has no more."""
        return self if len(self) <= n else self.select(range(n))

    @numbers.checked()
    def split(self, share: float, seed: int) -> tuple[Setting, Setting]:
        """Two settings of disjoint prompts (`Task.split`)."""
        first, second = self.task.split(share, seed)
        if self.ablation != OPTIMAL:
            return self.on(first), self.on(second)
        here = self._sharing(replace(self, task=first), "anatomy", "graph")
        return here, here.on(second)

    @property
    def conditions(self) -> Conditions:
        """The record of it that results carry."""
        known: dict[str, Any] = {"constants": self.fitted, "model": self.anatomy.name, "task_name": self.task.name}
        known["method"] = self.method
        if self.features is not None:
            known |= {"dictionaries": self.features.digests, "errors": self.features.errors}
        return Conditions(self.ablation, self.goal, self.kv, self.task.to_dict()["sha256"], **known)

    def to_dict(self) -> dict[str, Any]:
        """Names, for files and tables: model, task, ablation, objective, kv."""
        return {
            "model": self.anatomy.name,
            "task": self.task.to_dict(),
            "ablation": self.ablation,
            "objective": self.goal.name,
            "kv": self.kv,
        }

    def __repr__(self) -> str:
        return (
            f"Setting({getattr(self.model.cfg, 'model_name', '?')}, {self.task.name!r}, n={len(self)}, "
            f"ablation={self.ablation}, objective={self.goal}, kv={self.kv})"
        )


def _told_apart(masks: Tensor | Sequence[MaskObject]) -> tuple[list[NodeMask], list[SpanMask]]:
    """Masks of nodes, and those of edges by position."""
    objects = [] if isinstance(masks, Tensor) else masks
    return (
        [one for one in objects if isinstance(one, NodeMask)],
        [one for one in objects if isinstance(one, SpanMask)],
    )
