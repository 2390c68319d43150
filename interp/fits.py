"""`Fits`: the constants of `optimal` ablation that a setting, and all that are made of it, share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from interp.anatomy import Anatomy
from interp.errors import InputError
from interp.kernels.constants import Constants, FittedConstants
from interp.kernels.fitting import Fitting, fit
from interp.kernels.stacked import NodeGrain
from interp.kernels.unit_constants import UnitConstants, of_others
from interp.kernels.unit_fitting import fit_units
from interp.mlps import Mixture
from interp.run import Run
from interp.tasks.prompts import Prompts

_SOURCES = "sources (the input, heads and MLPs)"


@dataclass(eq=False)
class Fits:
    """Those that were given, or are fitted when they are first asked for, once for a model's weights as they are.

    Attributes:
        given: constants, or how they are fitted.
        prompts: what they are fitted to.
    """

    given: FittedConstants | Fitting | None
    prompts: Callable[[], Prompts]
    _known: dict[tuple[object, ...], FittedConstants] = field(default_factory=dict)

    @property
    def used(self) -> FittedConstants | None:
        """What was given or, of what was fitted, the last; None where there is nothing yet."""
        if isinstance(self.given, FittedConstants):
            return self.given
        return next(reversed(self._known.values()), None)

    @property
    def _how(self) -> Fitting:
        return self.given if isinstance(self.given, Fitting) else Fitting()

    def sources(self, anatomy: Anatomy, run: Run) -> Constants:
        """Those of all sources. Raises `InputError` where others were given, or those of another model."""
        if isinstance(self.given, Constants):
            return self.given.on(anatomy)
        if isinstance(self.given, UnitConstants):
            raise of_others(self.given.nodes, _SOURCES)
        key = _SOURCES, *anatomy.weights_digest()
        if key not in self._known:
            self._known[key] = fit(anatomy, self.prompts(), self._how, run)
        found = self._known[key]
        assert isinstance(found, Constants)
        return found

    def units(self, grain: Callable[[Prompts], NodeGrain], nodes: tuple[object, ...], run: Run) -> UnitConstants:
        """Those of the neurons or features of a grain; `nodes` tells them from others.

        Raises `InputError` where those of sources were given.
        """
        if isinstance(self.given, UnitConstants):
            return self.given
        if isinstance(self.given, Constants):
            raise of_others(_SOURCES, f"{nodes[0]}s")
        over = grain(self.prompts())
        key = *nodes, *over.anatomy.weights_digest()
        if key not in self._known:
            self._known[key] = fit_units(over, self._how, run)
        found = self._known[key]
        assert isinstance(found, UnitConstants)
        return found


def refuse_mixtures(anatomy: Anatomy, level: str) -> None:
    """Raise `InputError` for a mixture of experts, through whose own module no gradient reaches constants."""
    if any(isinstance(block.mlp, Mixture) for block in anatomy.blocks):
        raise InputError(
            f"ablation='optimal' has constants for heads and MLPs of a mixture of experts, none for level={level!r}; "
            "use ablation='mean'"
        )
