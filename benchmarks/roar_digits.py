"""Recursive ROAR end to end on a vision transformer trained on scikit-learn's digits: all ratios, three seeds.

    python -m benchmarks.roar_digits [--folder FOLDER] [--workers 2] [--seeds 3] [--html FILE]

With a folder the run goes on where it was killed. Explanations are of the class that the model predicts.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from benchmarks.digits_vit import PATCH, SIDE, DigitsViT, digits, train_digits
from interp.files import write_text
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_data import mask_top
from metrics.explanation.roar_plan import roar_plan
from metrics.explanation.roar_run import accuracy

Explainer = Callable[[DigitsViT, Tensor, Tensor, int], Tensor]


def gradient_x_input(model: DigitsViT, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Gradient of the predicted class's logit times the pixel, by absolute value."""
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).max(1).values.sum(), images)
    return (gradient * images).detach().abs()


def integrated_gradients(model: DigitsViT, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Captum's integrated gradients from black, by absolute value."""
    with torch.no_grad():
        predicted = model(images).argmax(1)
    found = IntegratedGradients(model).attribute(images, target=predicted, n_steps=8, internal_batch_size=2048)
    return found.detach().abs()


@torch.no_grad()
def attention_rollout(model: DigitsViT, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Attention averaged over heads, half of it the residual stream, multiplied through (Abnar and Zuidema 2020)."""
    _, patterns = model.run(images)
    eye = torch.eye(patterns[0].shape[-1])
    rollout = eye.expand(len(images), -1, -1)
    for pattern in patterns:
        rollout = (pattern.mean(1) + eye) / 2 @ rollout
    patches = rollout[:, 0, 1:].unflatten(1, (SIDE // PATCH, SIDE // PATCH))
    return patches.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)


def mask_alone(explainer: Explainer, seed: int = 0, share: float = 0.5) -> float:
    """Accuracy of a model that sees which pixels an explanation picks, and none of their values.

    What it is above chance, a retrained model can read off the mask, and the explanation's RACU is lowered by.
    """
    data = digits()
    model = train_digits(data["train"], data["validation"], seed)
    masks = {}
    for name, (images, labels) in data.items():
        everywhere = torch.ones_like(images, dtype=torch.bool)
        picked = mask_top(explainer(model, images, labels, seed), everywhere, ~everywhere, share, seed)
        masks[name] = (picked.float(), labels)
    reader = train_digits(masks["train"], masks["validation"], seed)
    with torch.no_grad():
        return accuracy(reader(masks["test"][0]), masks["test"][1])


EXPLAINERS: dict[str, Explainer] = {
    "gradient x input": gradient_x_input,
    "integrated gradients": integrated_gradients,
    "attention rollout": attention_rollout,
}


def main() -> None:
    """Run, and print curves, RACU and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--html")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(roar_plan(EXPLAINERS, seeds=chosen.seeds))
    started = time.perf_counter()
    result = recursive_roar(
        train_digits, digits(), EXPLAINERS, seeds=chosen.seeds, folder=chosen.folder, workers=chosen.workers
    )
    print(result)
    print(result.racu_by_seed.to_string(index=False, float_format="{:.3f}".format))
    print(f"{time.perf_counter() - started:.0f} s")
    for name, explainer in EXPLAINERS.items():
        print(f"{name}: accuracy {mask_alone(explainer):.3f} from the mask alone, at half of the pixels")
    if chosen.html:
        write_text(chosen.html, result.figure().to_html(include_plotlyjs="cdn"))


if __name__ == "__main__":
    main()
