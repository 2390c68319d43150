"""Concept heads: what they read, what they weigh, where they are read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from attribution.concepts import train_heads
from interp import InputError, Result
from interp.concepts import ConceptHeads, ConceptImages
from interp.concepts.site import Site
from interp.run import Run
from tests.planted_concepts import NAMES, draw, images, network

QUIET: dict[str, Any] = {"quiet": True}


class Twice(nn.Module):
    """Runs one module two times in a pass, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.idle = nn.Conv2d(8, 8, 1, dtype=torch.float64), nn.ReLU()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.shared(self.shared(pictures)).mean((2, 3))


def test_heads_find_concepts_that_the_features_hold() -> None:
    model = network().train()
    heads = train_heads(model, "0", images(), **QUIET)
    assert all(part.training and not part._forward_hooks for part in model.modules())
    features, _ = Site(network(), "0").read(images().images, Run(quiet=True))
    assert ((heads.logits(features) > 0) == images().concepts).double().mean() > 0.98
    assert (heads.losses < 0.3 * heads.chance).all()
    share = images().concepts.double().mean(0)
    entropy = -(share * share.log() + (1 - share) * (1 - share).log())
    torch.testing.assert_close(heads.chance, entropy)
    torch.testing.assert_close(heads.means, heads.logits(features).mean(0))


def test_trained_long_on_noisy_concepts_they_are_logistic_regressions() -> None:
    pictures = draw(200, 3, 1, 1)
    concepts = (pictures[:, :2, 0, 0] + draw(200, 2, seed=1)) > 0
    data = ConceptImages(pictures, concepts, ("a", "b"))
    heads = train_heads(nn.Sequential(nn.Identity(), nn.Flatten()), "0", data, epochs=300, **QUIET)
    x = pictures[:, :, 0, 0].numpy()
    for own, bias, truth in zip(heads.weights, heads.bias, concepts.T, strict=True):
        other = LogisticRegression(C=1e8, tol=1e-10).fit(x, truth.numpy())
        np.testing.assert_allclose(own.numpy(), other.coef_[0], atol=1e-3)
        assert float(bias) == pytest.approx(float(other.intercept_[0]), abs=1e-3)


def test_features_are_averages_of_a_modules_output_by_hand() -> None:
    pictures = images().images
    conv = network()[0]
    by_hand = torch.einsum("fc,nchw->nfhw", conv.weight[:, :, 0, 0], pictures).sum((2, 3)) / 4  # type: ignore[index]
    for layer, batch_size in (("0", None), ("1", 7), ("2", 1)):
        features, logits = Site(network(), layer).read(pictures, Run(batch_size=batch_size, quiet=True))
        torch.testing.assert_close(features, by_hand)
        torch.testing.assert_close(logits, network()(pictures))


def test_a_step_in_a_concepts_direction_moves_it_alone_and_no_likelier_step_does() -> None:
    heads = train_heads(network(), "0", images(), **QUIET)
    torch.testing.assert_close(heads.weights @ heads.directions.T, torch.eye(8, dtype=torch.float64), atol=1e-6, rtol=0)
    few = images().only(NAMES[:3])  # of 8 features: there is a choice
    heads = train_heads(network(), "0", few, **QUIET)
    features, _ = Site(network(), "0").read(images().images, Run(quiet=True))
    precision = torch.linalg.inv(torch.cov(features.T))
    free = torch.linalg.svd(heads.weights).Vh[3:]  # what no concept's logit feels
    for step in heads.directions:
        torch.testing.assert_close(free @ precision @ step, torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_seed_decides_and_the_size_of_features_does_not() -> None:
    one, other = (train_heads(network(), "0", images(), batch_size=32, seed=seed, **QUIET) for seed in (0, 1))
    again = train_heads(network(), "0", images(), batch_size=32, **QUIET)
    assert torch.equal(one.weights, again.weights)
    assert not torch.equal(one.weights, other.weights)
    wide = ConceptImages(1000 * images().images, images().concepts, NAMES)
    far = train_heads(network(), "0", wide, batch_size=32, **QUIET)
    torch.testing.assert_close(far.weights * 1000, one.weights, atol=1e-6, rtol=1e-6)


def test_a_result_is_read_as_it_was_written(tmp_path: Any) -> None:
    heads = train_heads(network(), "0", images(), epochs=5, **QUIET)
    read = Result.load(heads.save(tmp_path / "heads.json"))
    assert isinstance(read, ConceptHeads)
    assert torch.equal(read.weights, heads.weights)
    assert "8 concepts from 8 features of 0" in repr(heads)
    assert list(heads.to_frame().columns) == ["concept", "loss", "chance", "explained"]
    assert len(heads.figure().data[0].x) == 8


def everywhere() -> ConceptImages:
    concepts = images().concepts.clone()
    concepts[:, 2] = True
    return ConceptImages(images().images, concepts, NAMES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layer": "9"}, "layer='9' is unknown"),
        ({"images": everywhere()}, "concept 'c2' is there in all of 120 images"),
        ({"model": Twice(), "layer": "shared"}, "layer='shared' runs 2 times in a pass"),
        ({"model": Twice(), "layer": "idle"}, "layer='idle' runs 0 times in a pass"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 4)))}, r"logits \[n, class\].*got \[120, 8, 4\]"),
        (
            {"model": nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())},
            "model cannot take torch.float64 images of 8x2x2:",
        ),
        ({"model": "resnet"}, "model must be a torch module from images to logits; got a str"),
        ({"momentum": 2.0}, "momentum=2.0 must be"),
        ({"epochs": 0}, "epochs=0 must be"),
        ({"rate": 0.1}, "keyword of train_heads='rate' is unknown"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        train_heads(**{"model": network(), "layer": "0", "images": images(), **given}, **QUIET)
    assert "\n" not in str(caught.value)


def test_features_of_another_width_are_refused() -> None:
    heads = train_heads(network(), "0", images(), epochs=1, **QUIET)
    with pytest.raises(InputError, match=r"features must be \[n, 8\]"):
        heads.logits(draw(3, 5))
