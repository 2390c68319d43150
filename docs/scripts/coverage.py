"""Print the tables of docs/statistics.md: how often intervals hold the truth, and how often equals are told apart.

python docs/scripts/coverage.py           # 4,000 draws of prompts, two minutes of one core
python docs/scripts/coverage.py --draws 400
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp import Interval
from interp.selection import LADDER_FRACTIONS
from metrics.circuit.areas import areas
from metrics.circuit.evaluate import faithfulness_of_means
from metrics.percentiles import Resampled, bootstrap_p, percentile_interval
from metrics.statistics import resampled
from metrics.testing import paired_test

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
SIZES = (8, 16, 32, 64)
_AT_ONCE = 200  # experiments that share their resampling indices

EFFECTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda draw, shape: draw.normal(1, 0.5, shape),
    "lognormal": lambda draw, shape: draw.lognormal(1, 0.8, shape) / np.exp(1.32),
    "a fifth": lambda draw, shape: (draw.random(shape) < 0.2) * draw.normal(5, 1, shape),
    "t, 3 df": lambda draw, shape: 1 + 0.5 * draw.standard_t(3, shape) / np.sqrt(3),
}
TRUTH = 0.8  # faithfulness of every circuit here
TOP = len(LADDER_FRACTIONS)


def objectives(effect: str, n: int, draws: int, circuits: int, seed: int) -> Array:
    """Objectives [clean, empty, circuits..., draw, n] of circuits that all have faithfulness 0.8.

    Each prompt has a level of its own (deviation .5), which all runs share, and an effect of mean 1, which the clean
    run adds; a circuit adds a share of it, normal(.8, .3) anew for each prompt and circuit; each run has noise (.2).
    """
    draw = np.random.default_rng(seed)
    shape = (draws, n)
    level, own = draw.normal(0, 0.5, shape), EFFECTS[effect](draw, shape)
    shares = [1.0, 0.0, *(TRUTH + 0.3 * draw.standard_normal(shape) for _ in range(circuits))]
    return np.stack([level + share * own + 0.2 * draw.standard_normal(shape) for share in shares])


def skewed(effect: str, n: int, draws: int, seed: int) -> Array:
    """Differences [draw, n] of mean zero that are not symmetric: an effect, less 1, and noise of .2."""
    draw = np.random.default_rng(seed)
    return EFFECTS[effect](draw, (draws, n)) - 1 + 0.2 * draw.standard_normal((draws, n))


def experiments(values: Array, statistic: Statistic, resamples: int = 2000) -> list[Resampled]:
    """A statistic [rows, k] of means [rows, ..., draw], resampled in each experiment of `values` [..., draw, n]."""
    parts = range(0, values.shape[-2], _AT_ONCE)
    return [
        resampled(values[..., i : i + _AT_ONCE, :], statistic, Interval(resamples=resamples, seed=i)) for i in parts
    ]


def covered(found: list[Resampled], truth: float, confidence: float = 0.95) -> float:
    """In which share of the experiments the interval holds the truth."""
    ends = [percentile_interval(one, confidence) for one in found]
    return float(np.mean(np.concatenate([(low <= truth) & (truth <= high) for low, high in ends])))


def plainly_covered(found: list[Resampled], truth: float) -> float:
    """The same for plain percentiles, 2.5 to 97.5 %."""
    ends = [np.quantile(one.spread, [0.025, 0.975], axis=0) for one in found]
    return float(np.mean(np.concatenate([(low <= truth) & (truth <= high) for low, high in ends])))


def rejected(found: list[Resampled]) -> float:
    """In which share of the experiments p is below .05."""
    return float(np.mean(np.concatenate([bootstrap_p(one) for one in found]) < 0.05))


def faithfulness(means: Array) -> Array:
    """`[rows, clean | empty | circuit, draw]` -> `[rows, draw]`."""
    return faithfulness_of_means(means[:, :3])[:, 0]


def difference(means: Array) -> Array:
    """Of two circuits' faithfulness, `[rows, draw]`."""
    f = faithfulness_of_means(means)
    return f[:, 0] - f[:, 1]


def mean(means: Array) -> Array:
    """Means as they are, `[rows, draw]`."""
    return means


def flipped(differences: Array) -> float:
    """In which share of the experiments [draw, n] sign flips give p below .05."""
    zero = np.zeros(differences.shape[1])
    return float(np.mean([paired_test(one, zero, resamples=999) < 0.05 for one in differences]))


def curves(effect: str, n: int, draws: int, seed: int) -> tuple[float, float]:
    """False positives of two equal methods in CPR and CMD, on curves that rise to .8."""
    values = objectives(effect, n, draws, 2 * TOP, seed)
    rise = np.tile(np.linspace(0.1, 1, TOP), 2)[:, None, None]
    values[2:] = values[1] + rise * (values[2:] - values[1])

    def statistic(means: Array) -> Array:
        f = np.moveaxis(faithfulness_of_means(means).reshape(len(means), 2, TOP, -1), 2, -1)
        both = areas(f)[..., :2]  # [rows, method, draw, area]
        return np.asarray((both[:, 0] - both[:, 1]).reshape(len(means), -1))

    found = experiments(values, statistic)
    cpr, cmd = ([one.columns(slice(i, None, 2)) for one in found] for i in range(2))
    return rejected(cpr), rejected(cmd)


def distances(n: int, draws: int, top: float, seed: int) -> float:
    """Coverage of CMD where faithfulness rises to `top` on the ladder; normal effects.

    Deviations of the estimate from 1 in either direction add to CMD, so that it is too large where circuits are at 1.
    """
    values = objectives("normal", n, draws, TOP, seed)
    rise = np.linspace(0.1, 1, TOP) * top / TRUTH
    values[2:] = values[1] + rise[:, None, None] * (values[2:] - values[1])

    def statistic(means: Array) -> Array:
        return np.asarray(areas(np.moveaxis(faithfulness_of_means(means), 1, -1))[..., 1])

    return covered(experiments(values, statistic), float(areas(rise * TRUTH)[1]))


def correlations(n: int, draws: int, seed: int) -> float:
    """Coverage of Pearson's correlation of .7 of normal pairs, as a function of means of products."""
    draw = np.random.default_rng(seed)
    x, noise = draw.standard_normal((2, draws, n))
    y = 0.7 * x + np.sqrt(1 - 0.49) * noise

    def statistic(means: Array) -> Array:
        a, b, aa, bb, ab = np.moveaxis(means, 1, 0)
        return np.asarray((ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b)))

    return covered(experiments(np.stack([x, y, x * x, y * y, x * y]), statistic), 0.7)


def table(heads: list[str], rows: list[list[Any]]) -> str:
    """As Markdown; shares with three decimals."""
    cells = [[f"{one:.3f}" if isinstance(one, float) else str(one) for one in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    intervals, paired, uneven = [], [], []
    for effect in EFFECTS:
        for n in SIZES:
            values = objectives(effect, n, draws, 2, seed=1)
            one, two = experiments(values, faithfulness), experiments(values, difference)
            intervals.append([effect, n, plainly_covered(one, TRUTH), covered(one, TRUTH), covered(two, 0.0)])
            few = max(draws // 4, 1)
            paired.append(
                [effect, n, 1 - plainly_covered(two, 0.0), rejected(two), *curves(effect, n, few, 2),
                 flipped((values[2] - values[3])[:few])]
            )  # fmt: skip
            apart = skewed(effect, n, draws, seed=3)
            uneven.append([effect, n, rejected(experiments(apart, mean)), flipped(apart[:few])])
    print(table(["effect", "n", "plain percentile", "faithfulness", "difference of two"], intervals))
    print()
    print(table(["effect", "n", "plain percentile", "difference", "CPR", "CMD", "`paired_test`"], paired))
    print()
    print(table(["effect", "n", "bootstrap", "`paired_test`"], uneven))
    print()
    others = [[n, *(distances(n, draws, top, 5) for top in (0.8, 1.0)), correlations(n, draws, 4)] for n in SIZES]
    print(table(["n", "CMD, curve to 0.8", "CMD, curve to 1", "Pearson's r of 0.7"], others))


if __name__ == "__main__":
    main()
