"""RACU, the area as a pure function: by hand, its properties, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from interp.errors import InputError
from metrics.explanation.racu import racu

RATIOS = np.arange(11) / 10
RANDOM = np.linspace(0.9, 0.1, 11)


def test_by_hand() -> None:
    # b - m: 0 .4 .2 0 over steps of .25 .25 .5: .25 * .2 + .25 * .3 + .5 * .1 = .175
    # b - b_100: .8 .6 .4 0: .25 * .7 + .25 * .5 + .5 * .2 = .4
    value = racu([0, 0.25, 0.5, 1], [0.9, 0.3, 0.3, 0.1], [0.9, 0.7, 0.5, 0.1])
    assert float(value) == pytest.approx(0.175 / 0.4)


def test_everything_need_not_be_on_the_curve() -> None:
    # b - b_100: .6 .5 .4: trapezia over 0 1 3: .55 + .9; b - m: 0 .2 .1: .1 + .3
    value = racu([0, 1, 3], [0.8, 0.5, 0.5], [0.8, 0.7, 0.6], everything=0.2)
    assert float(value) == pytest.approx(0.4 / 1.45)


def test_the_random_curve_itself_has_none() -> None:
    assert float(racu(RATIOS, RANDOM, RANDOM)) == 0


def test_a_mirrored_curve_has_the_opposite_sign() -> None:
    better = RANDOM - 0.2 * np.sin(np.pi * RATIOS)
    worse = RANDOM + 0.2 * np.sin(np.pi * RATIOS)
    assert float(racu(RATIOS, better, RANDOM)) == pytest.approx(-float(racu(RATIOS, worse, RANDOM)))
    assert float(racu(RATIOS, better, RANDOM)) > 0


def test_units_of_performance_and_ratio_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    measure = np.concatenate(([0.9], rng.uniform(0.1, 0.9, 9), [0.1]))
    value = float(racu(RATIOS, measure, RANDOM))
    assert float(racu(RATIOS * 40, 100 * measure + 7, 100 * RANDOM + 7)) == pytest.approx(value)


def test_many_curves_at_once() -> None:
    rng = np.random.default_rng(1)
    measure, random = rng.uniform(size=(2, 3, 11)), np.broadcast_to(RANDOM, (2, 3, 11))
    together = racu(RATIOS, measure, random)
    assert together.shape == (2, 3)
    for i in np.ndindex(2, 3):
        assert together[i] == pytest.approx(float(racu(RATIOS, measure[i], random[i])))


def test_clipping() -> None:
    above = np.full(11, 3.0)
    assert float(racu(RATIOS, above, RANDOM)) < -1
    assert float(racu(RATIOS, above, RANDOM, clip=True)) == -1
    assert float(racu(RATIOS, -above, RANDOM, clip=True)) == 1


@pytest.mark.parametrize("random", [[0.9, 0.5, 0.9], [0.9, 0.5, 0.895], [0.5, 0.7, 0.9], [0.9, -2.0, 0.1]])
def test_nothing_to_divide_by(random: list[float]) -> None:
    """Masking everything costs nothing, or random masking lies below it: a sign would be noise."""
    assert np.isnan(racu([0, 0.5, 1], [0.9, 0.2, 0.1], random))


def test_what_must_be_lost_is_an_argument() -> None:
    curve = [0.9, 0.896, 0.895]
    assert np.isnan(racu([0, 0.5, 1], curve, curve))
    assert float(racu([0, 0.5, 1], curve, curve, least=1e-4)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0], [1, 0], [1, 0]), "must be at least two numbers that ascend"),
        (([0], [1], [1]), "must be at least two numbers"),
        (([0, 1], [1, 0, 0], [1, 0, 0]), "must be of one shape that ends with the 2 ratios"),
        (([0, 1], [1, 0], [[1, 0]]), "must be of one shape"),
        (([0, 1], [1, 0], [1, 0], [0, 0]), "everything .* one value for each curve"),
    ],
)
def test_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        racu(*arguments)
