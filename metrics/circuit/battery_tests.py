"""The five hypothesis tests of a circuit, one by one; `metrics.circuit.battery` says what each asks."""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.kernels.evaluate import CircuitValues
from metrics.circuit.battery_result import NullTest
from metrics.circuit.elements import Elements, Mask
from metrics.circuit.evaluate import resolution_of
from metrics.circuit.nulls import equivalence_p_value, independence_p_value, quantile_p_value
from metrics.testing import Testing, adjust

Array = NDArray[np.float64]

ELEMENT_COLUMNS = ("change", "beaten", "p", "p_corrected", "superfluous")  # behind the name


@dataclass(frozen=True)
class Setup:
    """What the tests against random circuits share; circuits are measured in a setting of few prompts.

    Attributes:
        elements: what the circuit is made of, in that setting.
        mask: the circuit.
        quantile: share of the random circuits that has to be beaten.
        reference, reference_size: how random circuits are drawn, and how large; None: as the elements have it.
        n_random, seed: how many, and of which seed.
    """

    elements: Elements
    mask: Mask
    quantile: float
    reference: str | None
    reference_size: int | None
    n_random: int
    seed: int


def equivalence(values: CircuitValues, tolerance: float) -> NullTest:
    """Sign test of circuit against model; `values` hold the circuit first."""
    clean, circuit = values.clean.numpy(), values.circuits[0].numpy()
    p, share = equivalence_p_value(clean, circuit, tolerance, resolution_of(values))
    side = "above" if share > 0.5 else "below"
    return NullTest(
        "equivalence",
        null=f"the circuit scores above the model on half of the prompts, within {tolerance:g}",
        observed=f"above on {share:.0%} of {len(clean)} prompts, by {float((circuit - clean).mean()):+z.3f} on average",
        statistic=share,
        p=p,
        wanted="not rejected",
        meanings=(
            "no sign that circuit and model score differently",
            f"the circuit scores {side} the model too often to be as good as it",
        ),
    )


def independence(values: CircuitValues, permutations: int, seed: int) -> NullTest:
    """HSIC test of the model without the circuit (second in `values`) against the model."""
    rest = values.circuits[1].double().numpy()
    # what is constant but for rounding depends on nothing
    rest = np.full_like(rest, rest.mean()) if np.ptp(rest) <= resolution_of(values) else rest
    p, statistic = independence_p_value(values.clean.double().numpy(), rest, permutations, seed)
    return NullTest(
        "independence",
        null="without the circuit, the rest of the model scores independently of the model",
        observed=f"HSIC {statistic:.3g}",
        statistic=statistic,
        p=p,
        wanted="not rejected",
        meanings=(
            "no sign of the behaviour outside of the circuit",
            "the rest of the model still knows how the model scores: some of the behaviour is outside",
        ),
    )


def minimality(setup: Setup, sample: int | None, testing: Testing) -> tuple[NullTest, pd.DataFrame]:
    """Each element of the circuit against random ones of inflated circuits; the elements as a frame, too."""
    elements, mask, seed = setup.elements, setup.mask, setup.seed
    rng = python_random.Random(seed)
    level, inside = elements.level, elements.inside(mask).tolist()
    tested = inside
    if sample is not None and sample < len(inside):
        tested = sorted(rng.sample(inside, sample))
    null = f"each {level} does more than {setup.quantile:.0%} of random {level}s of inflated circuits"
    added = elements.additions(mask, setup.n_random, seed)
    if not added:
        nothing = _not_made("minimality", null, "not rejected", f"no {level} can be added")
        return nothing, pd.DataFrame(columns=[elements.noun, *ELEMENT_COLUMNS])
    masks = [mask]
    where: dict[tuple[int, ...], int] = {(): 0}

    def place(more: Sequence[int]) -> int:
        """Where the circuit with these elements added stands among the masks; each is run once."""
        if tuple(more) not in where:
            where[tuple(more)] = len(masks)
            masks.append(elements.adding(mask, more))
        return where[tuple(more)]

    pairs = []
    for more in added:
        out = rng.choice(more)
        pairs.append((place(more), place([one for one in more if one != out])))
    first = len(masks)
    values = elements.measure(masks + [elements.without(mask, [one]) for one in tested])
    scores = values.circuits.double().numpy()
    random = np.array([np.abs(scores[one] - scores[other]).mean() for one, other in pairs])
    changes = np.abs(scores[first:] - scores[0]).mean(1)
    frame = minimality_frame(changes, random, setup.quantile, testing, resolution_of(values))
    frame.insert(0, elements.noun, elements.names(torch.tensor(tested, device="cpu")))
    frame = frame.sort_values(["beaten", "change"], ignore_index=True, kind="stable")
    flagged = int(frame["superfluous"].sum())
    test = NullTest(
        "minimality",
        null=null,
        observed=f"{flagged} of {len(tested)} {level}s tested do not, of {len(inside):,} in the circuit",
        statistic=flagged / len(tested),
        p=float(frame["p_corrected"].min()),
        wanted="not rejected",
        meanings=(
            f"no {level} is shown to do as little as a random one",
            f"some {level}s do no more than random ones: the circuit could be smaller",
        ),
    )
    return test, frame


def minimality_frame(
    changes: Array, random: Array, quantile: float, testing: Testing, resolution: float = 0.0
) -> pd.DataFrame:
    """Each element's change `[element]` against those of random ones `[draw]`; see `CircuitTests.edges`."""
    wins = (changes[:, None] > random[None] + resolution).sum(1)
    p = [quantile_p_value(int(won), len(random), quantile, "less") for won in wins]
    corrected = adjust(p, testing.correction)
    return pd.DataFrame(
        {
            "change": changes,
            "beaten": wins / len(random),
            "p": p,
            "p_corrected": corrected,
            "superfluous": corrected <= testing.alpha,
        }
    )


def sufficiency(setup: Setup) -> NullTest:
    """The circuit's distance from the model against that of random circuits."""
    elements = setup.elements
    drawn = elements.random(setup.mask, setup.n_random, setup.seed, setup.reference, setup.reference_size)
    values = elements.measure([setup.mask, *drawn])
    own, *others = _distances(values)
    wins = int((own + resolution_of(values) < np.array(others)).sum())
    size = f"{elements.count(drawn[0]):,} {elements.level}s"
    return NullTest(
        "sufficiency",
        null=f"the circuit is closer to the model than at most {setup.quantile:.0%} of random circuits",
        observed=(
            f"closer than {wins} of {len(others)} of {size}{_different(drawn)}; distance {own:.3f}, theirs "
            f"{np.median(others):.3f}"
        ),
        statistic=wins / len(others),
        p=quantile_p_value(wins, len(others), setup.quantile),
        wanted="rejected",
        meanings=(
            "not shown to be better than random circuits",
            f"closer to the model than more than {setup.quantile:.0%} of random circuits",
        ),
    )


def necessity(setup: Setup) -> NullTest:
    """What knocking out the circuit does, against random circuits from its complement."""
    elements, mask = setup.elements, setup.mask
    null = f"knocking the circuit out hurts more than knocking out at most {setup.quantile:.0%} of random circuits"
    drawn = elements.outside(mask, setup.n_random, setup.seed)
    if not drawn:
        return _not_made(
            "necessity", null, "rejected", f"too few {elements.level}s outside of the circuit to draw from"
        )
    values = elements.measure([elements.rest(one) for one in (mask, *drawn)])
    own, *others = _distances(values)
    wins = int((own > np.array(others) + resolution_of(values)).sum())
    return NullTest(
        "necessity",
        null=null,
        observed=(
            f"it hurts more than {wins} of {len(others)} from the complement{_different(drawn)}; distance {own:.3f}, "
            f"theirs {np.median(others):.3f}"
        ),
        statistic=wins / len(others),
        p=quantile_p_value(wins, len(others), setup.quantile),
        wanted="rejected",
        meanings=(
            "not shown to be more needed than random circuits",
            f"more needed than more than {setup.quantile:.0%} of random circuits outside of it",
        ),
    )


def _different(drawn: Sequence[Mask]) -> str:
    """How many of random circuits are different ones, where some are alike: of few elements there are not many."""
    different = len({one.numpy().tobytes() for one in drawn})
    return "" if different == len(drawn) else f" ({different} different ones)"


def _distances(values: CircuitValues) -> list[float]:
    """d(M, circuit) of each circuit."""
    return (values.circuits - values.clean).double().abs().mean(1).tolist()


def _not_made(name: str, null: str, wanted: str, why: str) -> NullTest:
    return NullTest(name, null, why, math.nan, math.nan, wanted, ("", ""))
