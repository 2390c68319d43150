"""Properties that the metrics promise: range, relabelling, monotone rescaling. And where each is worked out by hand.

| metric | numbers worked out by hand |
| --- | --- |
| saco | test_saco: test_by_hand_with_a_tie, test_groups_of_unequal_size_by_hand, test_the_formula_alone |
| removal_curves | test_explanation_curves: test_curves_and_areas_by_hand |
| erasure | test_erasure: test_erasure_by_hand |
| decision_flips | test_erasure: test_flips_by_hand, test_first_and_never |
| normalised_aopc | test_erasure: test_normalised_aopc_by_hand |
| soft_erasure | test_erasure: test_soft_by_hand_where_nothing_is_left_to_chance, test_hellinger_distance_is_bounded |
| road | test_road: test_one_pixel_by_hand, test_two_pixels_by_hand; here: test_road_by_hand |
| sensitivity | test_sensitivity: test_infidelity_by_hand, test_max_sensitivity_by_hand |
| racu | test_racu: test_by_hand, test_everything_need_not_be_on_the_curve |
| recursive_roar | test_roar: test_mask_top_by_hand, test_curves_are_accuracies_of_models_trained_by_hand |
| erasure_curve | test_measurable: test_curve_by_hand |
| MaSF | test_masf: test_simes_and_fisher_by_hand, test_tails_by_hand, test_two_layers_by_hand |
| randomisation | test_randomisation: test_by_the_definition |
| ranks of the report | test_report: test_ranks_by_hand |
| circuit_saco | test_circuit_saco: test_edges_against_the_formula, test_nodes_against_the_formula |
| recursive_curve | test_circuit_recursive: test_areas_by_trapezoids |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.graph import ComputationalGraph
from metrics.circuit.recursive import recursive_curve
from metrics.circuit.saco import circuit_saco
from metrics.explanation.curves import removal_curves
from metrics.explanation.erasure import decision_flips, erasure
from metrics.explanation.measurable import erasure_curve
from metrics.explanation.normalised import normalised_aopc
from metrics.explanation.racu import racu
from metrics.explanation.road import road
from metrics.explanation.roar import recursive_roar
from metrics.explanation.saco import saco
from metrics.explanation.sensitivity import sensitivity
from metrics.explanation.soft import soft_erasure
from tests.tiny import shared, tiny_task

CLASSES, SIDE, N = 3, 3, 8
FEATURES = SIDE * SIDE
DRAW = np.random.default_rng(0)
WEIGHTS, BIAS = DRAW.normal(size=(FEATURES, CLASSES)), torch.tensor([0.3, 0.0, -0.2], dtype=torch.float64)
INPUTS, SALIENCE = DRAW.normal(size=(2, N, FEATURES))
ORDER = DRAW.permutation(FEATURES)

Predict = Callable[[Any], Any]


def predict(inputs: Any) -> Any:
    """Softmax of a linear model of features, images or embeddings of one number, whichever comes."""
    scores = torch.as_tensor(inputs).double().flatten(1) @ torch.from_numpy(WEIGHTS) + BIAS
    return scores.softmax(1) if isinstance(inputs, torch.Tensor) else scores.softmax(1).numpy()


def of_embeddings(model: Predict, inputs: Any, salience: Any, **settings: Any) -> Any:
    """Salience of 0 and 1 alone, so that nothing is drawn by chance."""
    return soft_erasure(model, torch.from_numpy(inputs)[..., None], salience > np.median(salience), **settings)


def of_images(model: Predict, inputs: Any, salience: Any, **settings: Any) -> Any:
    images = torch.from_numpy(inputs.reshape(-1, 1, SIDE, SIDE))
    return road(model, images, salience.reshape(-1, SIDE, SIDE), noise=0, fractions=4, **settings)


ZERO = {"baseline": "zero"}
METRICS: dict[str, Callable[..., Any]] = {
    "saco": partial(saco, groups=4, **ZERO),
    "removal_curves": partial(removal_curves, **ZERO),
    "removal_curves, accuracy": partial(removal_curves, measure="accuracy", **ZERO),
    "erasure": partial(erasure, **ZERO),
    "decision_flips": partial(decision_flips, **ZERO),
    "normalised_aopc": partial(normalised_aopc, exact=9, **ZERO),
    "soft_erasure": of_embeddings,
    "road": of_images,
}
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
RANGES = {
    "saco": DIFFERENCE, "morf": SHARE, "lerf": SHARE, "between": DIFFERENCE, "insertion": SHARE,
    "comprehensiveness": DIFFERENCE, "sufficiency": DIFFERENCE, "log_odds": (-np.inf, np.inf),
    "first": SHARE, "fraction": SHARE,
}  # fmt: skip
every = pytest.mark.parametrize("name", METRICS)
order_only = pytest.mark.parametrize("name", [name for name in METRICS if name not in ("saco", "soft_erasure")])


def table(name: str, model: Predict = predict, inputs: Any = INPUTS, salience: Any = SALIENCE) -> pd.DataFrame:
    """Columns of a metric, per sample."""
    return pd.DataFrame(dict(METRICS[name](model, inputs, salience, quiet=True).columns))


@every
def test_values_are_within_their_range(name: str) -> None:
    for salience in (SALIENCE, -SALIENCE, INPUTS * WEIGHTS[:, 0]):
        for column, values in table(name, salience=salience).items():
            low, high = RANGES[str(column)]
            if name in ("normalised_aopc", "soft_erasure"):
                low = 0
            there = values.dropna()
            assert len(there)
            assert there.between(low - 1e-9, high + 1e-9).all()


@every
def test_names_of_the_classes_do_not_matter(name: str) -> None:
    order = [2, 0, 1]
    pd.testing.assert_frame_equal(table(name, lambda x: predict(x)[:, order]), table(name))


@every
def test_the_order_of_the_elements_does_not_matter(name: str) -> None:
    """For ROAD, which imputes from the pixels around, the image is mirrored instead."""
    order = np.arange(FEATURES).reshape(SIDE, SIDE)[:, ::-1].ravel() if name == "road" else ORDER
    back = np.argsort(order)

    def model(x: Any) -> Any:
        return predict(x.reshape(len(x), -1)[:, back])

    found = table(name, model, INPUTS[:, order], SALIENCE[:, order])
    pd.testing.assert_frame_equal(found, table(name), rtol=1e-7, atol=1e-12)


@every
def test_the_order_of_the_samples_does_not_matter(name: str) -> None:
    order = np.random.default_rng(1).permutation(N)
    found = table(name, inputs=INPUTS[order], salience=SALIENCE[order])
    pd.testing.assert_frame_equal(found, table(name).iloc[order].reset_index(drop=True))


@order_only
def test_a_monotone_rescaling_of_the_salience_changes_nothing(name: str) -> None:
    for rescaled in (np.exp(2 * SALIENCE), SALIENCE**3 - 5, np.arctan(SALIENCE)):
        pd.testing.assert_frame_equal(table(name, salience=rescaled), table(name))
    assert not np.allclose(table(name, salience=-SALIENCE), table(name))  # the order does matter


def test_saco_forgives_a_factor_and_no_more() -> None:
    plain = table("saco")
    pd.testing.assert_frame_equal(table("saco", salience=7 * SALIENCE), plain)
    assert not np.allclose(table("saco", salience=np.exp(2 * SALIENCE)), plain)


def test_soft_erasure_forgives_a_factor_and_a_shift() -> None:
    """Min-max scaling takes both out."""
    embeddings, settings = torch.from_numpy(INPUTS)[..., None], {"draws": 3, "quiet": True}
    plain = soft_erasure(predict, embeddings, SALIENCE, **settings).to_frame()
    pd.testing.assert_frame_equal(soft_erasure(predict, embeddings, 8 * SALIENCE - 3, **settings).to_frame(), plain)


def test_road_by_hand() -> None:
    """One row of three pixels 4 1 0, p = the middle one's brightness / 4, two steps: first one pixel, then two more.

    Most relevant first: the middle pixel goes. Its two neighbours are left, and it becomes their mean 2: p = .5. Least
    relevant first: the left pixel goes, and the middle one stays: p = .25. With none left all are the mean 5/3.
    """
    images = torch.tensor([[[[4.0, 1.0, 0.0]]]])

    def middle(x: Any) -> Any:
        p = x[:, 0, 0, 1].double() / 4
        return torch.stack((1 - p, p), 1)

    result = road(middle, images, [[[1.0, 3.0, 2.0]]], target=1, noise=0, fractions=[0, 1 / 3, 1], quiet=True)
    assert result.curves["morf"][0] == pytest.approx([1 / 4, 1 / 2, 5 / 12])
    assert result.curves["lerf"][0] == pytest.approx([1 / 4, 1 / 4, 5 / 12])
    # trapezoids over steps of a third and two thirds
    assert result["between"].value == pytest.approx((1 / 4 + 1 / 3 * 2) / 3 - (3 / 8 + 11 / 24 * 2) / 3)


def gradient(order: list[int], x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The gradient of the target's probability, the classes in another order."""
    x.requires_grad_()
    return torch.autograd.grad(predict(x)[:, order].gather(1, target[:, None]).sum(), x)[0]


def test_sensitivity_is_not_negative_and_does_not_know_names() -> None:
    inputs = torch.from_numpy(INPUTS)
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        model = partial(lambda order, x: predict(x)[:, order], order)
        found.append(sensitivity(model, inputs, partial(gradient, order), quiet=True).to_frame())
    pd.testing.assert_frame_equal(*found)
    assert (found[0][["infidelity", "max_sensitivity"]] > 0).all(axis=None)


def test_clipped_racu_is_within_its_range_and_forgives_the_units() -> None:
    ratios, random = np.linspace(0, 1, 6), np.linspace(1, 0.2, 6)
    for performance in np.random.default_rng(0).uniform(-1, 2, size=(20, 6)):
        value = float(racu(ratios, performance, random, clip=True))
        assert -1 <= value <= 1
        assert float(racu(50 * ratios, 3 * performance - 2, 3 * random - 2, clip=True)) == pytest.approx(value)


def nearest_mean(train: Any, validation: Any, seed: int) -> torch.Tensor:
    """Means [class, feature]: training without chance."""
    return torch.stack([train[0][train[1] == label].mean(0) for label in range(CLASSES)])


def closeness(means: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return -torch.cdist(inputs, means)


def by_input(model: Any, inputs: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
    return inputs


def by_its_cube(model: Any, inputs: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
    return inputs**3 - 1


def test_recursive_roar_knows_the_order_of_scores_alone_and_no_names() -> None:
    inputs = torch.randn(160, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = predict(inputs).argmax(1)
    found = []
    for names, explain in (([0, 1, 2], by_input), ([0, 1, 2], by_its_cube), ([1, 2, 0], by_input)):
        renamed = torch.tensor(names)[labels]
        parts = {"train": slice(80), "validation": slice(80, 90), "test": slice(90, None)}
        data = {name: (inputs[part], renamed[part]) for name, part in parts.items()}
        result = recursive_roar(
            nearest_mean, data, {"own": explain}, seeds=2, ratios=(0.3, 0.6, 1.0), predict=closeness
        )
        # where all is masked, all classes are equally near and the first name wins
        found.append(result.curves.query("ratio < 1")["performance"].tolist())
        assert result.curves["performance"].between(0, 1).all()
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_the_erasure_curve_knows_the_order_of_scores_alone_and_no_names() -> None:
    ids = torch.randint(1, 9, (30, FEATURES), generator=torch.Generator().manual_seed(0))

    def model(order: list[int], ids: torch.Tensor) -> torch.Tensor:
        return predict(ids / 8)[:, order]

    found = []
    for names, explain in (([0, 1, 2], by_input), ([0, 1, 2], by_its_cube), ([1, 2, 0], by_input)):
        labels = model(names, ids).argmax(1)
        result = erasure_curve(
            names, (ids, labels), {"own": explain}, mask=0, ratios=[0.25, 0.5, 1], predict=model, quiet=True,
            resamples=20, recursive=False,
        )  # fmt: skip
        found.append(result.values["own"])
        assert ((found[-1] >= 0) & (found[-1] <= 1)).all()
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_circuits_too() -> None:
    model = shared("gpt2", n_layer=1, n_head=2)
    task, graph = tiny_task(model, n=2), ComputationalGraph.of(model)
    scores = torch.randn(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.edge_mask
    values = circuit_saco(model, task, scores, 5, quiet=True, resamples=20).values
    assert (np.abs(values) <= 1).all()
    factor = circuit_saco(model, task, 3 * scores, 5, quiet=True, resamples=20).values
    np.testing.assert_allclose(factor, values)
    rescaled = (2 * scores).exp() * graph.edge_mask
    plain, other = (
        recursive_curve(
            model, task, SimpleNamespace(values=values), (0.1, 0.5, 1.0), n_random=1, quiet=True, resamples=20
        )
        for values in (scores, rescaled)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.masks, other.masks, strict=True))
