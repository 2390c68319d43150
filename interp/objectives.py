"""What a circuit is to preserve: a number per prompt from the logits at its answer's positions, higher is better.

An answer of one token is read at the prompt's last position. What becomes of the built-in objectives where answers have
several tokens stands in `interp.answer_objectives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from interp.answer_objectives import ON_ANSWERS, at_answer, at_first
from interp.errors import InputError, choose, refused, unknown

if TYPE_CHECKING:
    from interp.tasks.prompts import Prompts

_ALIKE, _ROUNDED = 1e-3, 1e-6  # of the largest value and the largest logit: what rounding may change

ObjectiveFunction = Callable[[Tensor, "Prompts", "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Objective:
    """A named function `(logits, prompts, clean_logits) -> values`, with what engines must know about it.

    Called with `logits` [read, vocab] (one for each prompt, or with answers of several tokens one for each of these;
    float16 and bfloat16 are computed in float32) and the `Prompts` they belong to, it returns [n] values,
    differentiable in the logits where `differentiable` says so. Cost: none beyond the logits.

    Attributes:
        name: what tables and files call it.
        function: the function itself; no python loop over prompts.
        differentiable: False for objectives that are for evaluation only.
        flat_at_clean: True if the gradient vanishes at the clean run, so that methods which take gradients
            only there must refuse it.
        needs_clean: True if the clean run's logits are needed.
        needs_incorrect: True if every prompt must have an incorrect answer.
        positions: what somebody's own function sees: `last`, the logits behind the prompt, [n, vocab]; `answer`, those
            at all tokens of the first correct answer (`prompts.answer`), [n, answer, vocab], 0 where that is shorter.

    Raises `InputError` when called with logits of the wrong shape, without clean logits where it needs them,
    or when the function does not return one real value per prompt. At its first use on several prompts somebody's own
    function is also called on two of them alone: `InputError`, where a value depends on the other prompts.

    >>> get_objective("logit-difference").differentiable
    True
    """

    name: str
    function: ObjectiveFunction
    differentiable: bool = True
    flat_at_clean: bool = False
    needs_clean: bool = False
    needs_incorrect: bool = False
    positions: Literal["last", "answer"] = "last"

    def __post_init__(self) -> None:
        choose("positions", self.positions, ("last", "answer"))

    def __call__(
        self,
        logits: Float[Tensor, "read vocab"],
        prompts: Prompts,
        clean_logits: Float[Tensor, "read vocab"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Values of the objective, one per prompt."""
        expected = len(prompts) if prompts.answers is None else len(prompts.reads.row)
        if logits.ndim != 2 or len(logits) != expected:
            what = "row per prompt" if prompts.answers is None else "row for each token of the answers"
            raise InputError(
                f"logits has the shape {list(logits.shape)}; the objective {self.name!r} needs [n, vocab] "
                f"with n={expected}, one {what}"
            )
        if self.needs_clean:
            if clean_logits is None:
                raise InputError(f"the objective {self.name!r} compares with the clean run: pass clean_logits")
            if clean_logits.shape != logits.shape:
                raise InputError(
                    f"clean_logits has the shape {list(clean_logits.shape)}, logits {list(logits.shape)}; "
                    "they must be equal"
                )
            clean_logits = _at_least_float32(clean_logits).to(logits.device)
        logits = _at_least_float32(logits)
        if self in _OBJECTIVES.values():
            function = self.function if prompts.answers is None else ON_ANSWERS[self.name]
            return function(logits, prompts, clean_logits)
        seen = at_answer if self.positions == "answer" else at_first
        logits = seen(logits, prompts)
        clean_logits = None if clean_logits is None else seen(clean_logits, prompts)
        values = self._called(logits, prompts, clean_logits)
        if len(prompts) > 1 and not self.__dict__.get("_apart"):
            self._check_apart(values.detach(), logits.detach(), prompts, clean_logits)
            object.__setattr__(self, "_apart", True)
        return values

    def _called(self, logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
        """The values of somebody's own function, which may write into what it gets: others get it too."""
        clean_logits = None if clean_logits is None else clean_logits.clone()
        values = self.function(logits.clone(), prompts.copy(), clean_logits)
        if not isinstance(values, Tensor) or values.shape != (len(prompts),) or values.is_complex():
            given = str(list(values.shape)) if isinstance(values, Tensor) else type(values).__name__
            if isinstance(values, Tensor) and values.is_complex():
                given = f"complex numbers of shape {given}"
            raise InputError(
                f"the objective {self.name!r} returned {given}; it must return a tensor of shape "
                f"[{len(prompts)}], one real value per prompt"
            )
        return values

    @torch.no_grad()
    def _check_apart(self, values: Tensor, logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> None:
        """Raise `InputError` unless the first and the last prompt get alone what they get among all."""
        near = _ALIKE * float(values.abs().max()) + _ROUNDED * float(logits.abs().max())
        for row in (0, len(prompts) - 1):
            clean = None if clean_logits is None else clean_logits[row : row + 1].detach()
            with refused(f"the objective {self.name!r} cannot be computed for one prompt alone, as batches need it"):
                alone = self._called(logits[row : row + 1], prompts.select([row]), clean)
            if float((alone[0] - values[row]).abs()) > near:
                raise InputError(
                    f"the objective {self.name!r} mixes prompts: it gives prompt {row} {float(values[row]):.4g} among "
                    f"{len(prompts)}, and {float(alone[0]):.4g} alone, so that figures would depend on the batch size; "
                    "it must compute each prompt's value from its own row"
                )

    def __str__(self) -> str:
        return self.name


def names() -> list[str]:
    """Names of the built-in objectives.

    >>> names()
    ['logit-difference', 'probability-difference', 'log-probability', 'kl', 'accuracy', 'log-probability-per-token', \
'logit-difference-per-token']
    """
    return list(_OBJECTIVES)


def get_objective(objective: str | Objective | ObjectiveFunction) -> Objective:
    """The objective of that name; an `Objective` is returned as it is, any other callable is wrapped.

    A callable `f(logits, prompts, clean_logits) -> [n]` is taken to be differentiable, to have a gradient at
    the clean run, and to want the clean logits; build an `Objective` yourself to say otherwise.

    Raises `InputError` for an unknown name, and for what is neither a name nor callable.

    >>> get_objective("kl").flat_at_clean
    True
    >>> get_objective(lambda logits, prompts, clean: logits[:, 0]).name
    '<lambda>'
    """
    if isinstance(objective, Objective):
        return objective
    if callable(objective):
        name = getattr(objective, "__name__", type(objective).__name__)
        return Objective(name, objective, needs_clean=True)
    if not isinstance(objective, str) or objective not in _OBJECTIVES:
        raise unknown("objective", objective, _OBJECTIVES)
    return _OBJECTIVES[objective]


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _gather(values: Float[Tensor, "n vocab"], ids: Int[Tensor, "n k"], padding: float) -> Float[Tensor, "n k"]:
    """Values at the ids; `padding` where the id is -1."""
    ids = ids.to(values.device)
    return values.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, padding)


def _mean(values: Float[Tensor, "n vocab"], ids: Int[Tensor, "n k"]) -> Float[Tensor, " n"]:
    return _gather(values, ids, 0.0).sum(1) / (ids >= 0).sum(1).to(values.device)


def _logit_difference(logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
    return _mean(logits, prompts.correct) - _mean(logits, prompts.incorrect)


def _probability_difference(logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
    probabilities = logits.softmax(1)
    correct = _gather(probabilities, prompts.correct, 0.0).sum(1)
    return correct - _gather(probabilities, prompts.incorrect, 0.0).sum(1)


def _log_probability(logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
    return _gather(logits, prompts.correct, -torch.inf).logsumexp(1) - logits.logsumexp(1)


def _minus_kl(logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
    assert clean_logits is not None
    clean = clean_logits.detach().log_softmax(1)
    difference = clean - logits.log_softmax(1)
    # a token that the clean run rules out (a logit of -inf) adds nothing, and must not make a nan
    return -torch.where(clean > -torch.inf, clean.exp() * difference, 0.0).sum(1)


def _accuracy(logits: Tensor, prompts: Prompts, clean_logits: Tensor | None) -> Tensor:
    best = _gather(logits, prompts.correct, -torch.inf).amax(1)
    # a further column of -inf: there may be no incorrect ids at all, and an empty amax is an error
    rival = pad(_gather(logits, prompts.incorrect, -torch.inf), (0, 1), value=-torch.inf).amax(1)
    contrasted = prompts.incorrect_mask.any(1).to(logits.device)
    won: Bool[Tensor, " n"] = torch.where(contrasted, best > rival, best >= logits.amax(1))
    return won.to(logits.dtype)


_OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("logit-difference", _logit_difference, needs_incorrect=True),
        Objective("probability-difference", _probability_difference),
        Objective("log-probability", _log_probability),
        Objective("kl", _minus_kl, flat_at_clean=True, needs_clean=True),
        Objective("accuracy", _accuracy, differentiable=False),
        Objective("log-probability-per-token", _log_probability),
        Objective("logit-difference-per-token", _logit_difference, needs_incorrect=True),
    )
}
