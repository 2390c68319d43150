"""ROAD's imputation against weights worked out by hand and a dense solve, and its curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputError
from metrics.explanation.curves import removal_curves
from metrics.explanation.road import Road, impute, road


def dense(image, mask):
    """The same system built entry by entry."""
    pixels = [tuple(p) for p in np.argwhere(mask)]
    matrix, right = np.zeros((len(pixels),) * 2), np.zeros((len(pixels), len(image)))
    for i, (r, c) in enumerate(pixels):
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                there = (r + a, c + b)
                if (a, b) == (0, 0) or not (0 <= there[0] < mask.shape[0] and 0 <= there[1] < mask.shape[1]):
                    continue
                weight = 1 / 12 if a and b else 1 / 6
                matrix[i, i] += weight
                if mask[there]:
                    matrix[i, pixels.index(there)] -= weight
                else:
                    right[i] += weight * image[:, there[0], there[1]]
    return np.linalg.solve(matrix, right).T


def test_one_pixel_by_hand():
    image = np.array([[[1.0, 2, 3], [4, 5, 6], [7, 8, 10]]])
    middle = np.zeros((3, 3), bool)
    middle[1, 1] = True
    # beside 2 + 4 + 6 + 8 = 20, across 1 + 3 + 7 + 10 = 21
    assert impute(image, middle) == pytest.approx(np.array([[20 / 6 + 21 / 12]]))
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True
    # beside 2 and 4, across 5, with weights that sum to 5/12
    assert impute(image, corner) == pytest.approx(np.array([[(2 / 6 + 4 / 6 + 5 / 12) / (5 / 12)]]))


def test_two_pixels_by_hand():
    # a row 0 x y 3: 2 x = 0 + y, 2 y = x + 3, so x = 1 and y = 2
    image = np.array([[[0.0, 99, 99, 3]]])
    assert impute(image, np.array([[False, True, True, False]])) == pytest.approx(np.array([[1.0, 2.0]]))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_any_mask_agrees_with_a_dense_solve(share):
    generator = np.random.default_rng(0)
    image, mask = generator.normal(size=(3, 7, 9)), generator.uniform(size=(7, 9)) < share
    assert impute(image, mask) == pytest.approx(dense(image, mask))


def test_ramps_come_back_and_values_stay_between_their_neighbours():
    ramp = np.add.outer(np.arange(9.0), 2 * np.arange(9.0))[None]
    mask = np.zeros((9, 9), bool)
    mask[2:6, 3:7] = True
    assert impute(ramp, mask) == pytest.approx(ramp[:, mask])
    noise = np.random.default_rng(0).uniform(size=(1, 9, 9))
    mask = np.random.default_rng(1).uniform(size=(9, 9)) < 0.8
    assert noise[:, ~mask].min() <= impute(noise, mask).min() <= impute(noise, mask).max() <= noise[:, ~mask].max()


def test_an_image_without_any_pixel_left_is_its_means():
    image = np.random.default_rng(0).normal(size=(2, 3, 3))
    assert impute(image, np.ones((3, 3), bool)) == pytest.approx(np.repeat(image.mean((1, 2))[:, None], 9, 1))


def test_noise_is_seeded_the_same_at_every_step_and_only_where_pixels_were_removed():
    inputs = torch.zeros(2, 1, 20, 20)
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    mask[:, 5:15] = True
    fill = Road(0.01).prepare(inputs, 3)
    first, second = fill(torch.tensor([0, 1]), mask)
    assert (first[:, ~mask[0]] == 0).all()
    assert float(first[:, mask[0]].std()) == pytest.approx(0.01, rel=0.2)
    assert not torch.equal(first, second)
    assert torch.equal(fill(torch.tensor([1]), mask[:1])[0], second)
    assert torch.equal(Road(0.01).prepare(inputs, 3)(torch.tensor([0]), mask[:1])[0], first)
    quiet = Road(0).prepare(inputs, 3)(torch.tensor([0]), mask[:1])
    assert (quiet == 0).all()
    assert (inputs == 0).all()


def window(images):
    """Two classes; p(1) is a sigmoid of the brightness within a small square."""
    p = torch.sigmoid(2 * images[:, 0, 3:6, 3:6].double().mean((1, 2)))
    return torch.stack((1 - p, p), 1)


def case(n=12):
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.randn(n, 1, 9, 9, generator=generator)
    images[:, 0, 3:6, 3:6] += 2
    salience = torch.zeros(n, 9, 9)
    salience[:, 3:6, 3:6] = 1
    return images, salience + 0.01 * torch.rand(n, 9, 9, generator=generator)


def test_curves_rank_truth_over_random_over_inverted():
    images, truth = case()
    grid = [0, 1 / 9, 2 / 9, 1 / 2, 1]  # the square is a ninth of the pixels
    best, worst = (road(window, images, s, n_random=2, fractions=grid, quiet=True) for s in (truth, -truth))
    assert best["between"].low > best.random["between"].high
    assert worst["between"].high < best.random["between"].low
    assert best.random["between"].low < 0.05
    assert best.curves["morf"][:, 0] == pytest.approx(best.curves["lerf"][:, 0])
    assert best.curves["morf"][:, 1].mean() < 0.6 < 0.95 < best.curves["lerf"][:, 1].mean()


def test_it_is_removal_curves_with_the_imputation():
    images, truth = case(3)
    settings = {"fractions": 5, "seed": 2, "quiet": True, "measure": "accuracy", "target": 1}
    first = road(window, images, truth, noise=0.1, batch_size=2, **settings)
    second = removal_curves(window, images, truth, baseline=Road(0.1), **settings)
    assert first.to_frame().equals(second.to_frame())


def test_patches_are_imputed_as_pixels():
    images, _ = case(2)
    result = road(window, images, torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)), quiet=True)
    assert result["morf"].value < 1


def test_what_it_cannot_impute_is_refused():
    with pytest.raises(InputError, match="ROAD imputes pixels"):
        road(window, torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(InputError, match="noise=-1"):
        Road(-1)
    with pytest.raises(InputError, match="its own baseline"):
        road(window, *case(2), baseline="mean")
