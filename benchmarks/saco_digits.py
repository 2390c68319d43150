"""SaCo on the digits transformer: does it tell good explanations from random ones, and from inverted ones?

    python -m benchmarks.saco_digits [--n 200] [--seed 0]

Elements are the 16 patches of 2 x 2 pixels, in 8 groups; the predicted class is explained. 95 % intervals over images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.digits_vit import PATCH, DigitsViT, digits, train_digits
from benchmarks.roar_digits import attention_rollout, gradient_x_input, integrated_gradients
from metrics.explanation.saco import saco

GROUPS = 8
REPLACEMENTS = ("mean", "zero", "blur")


def patches(scores: Tensor) -> Tensor:
    """Scores of pixels [n, 8, 8], added up by patch."""
    return scores.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).sum((3, 4))


@torch.no_grad()
def occlusion(model: DigitsViT, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Fall of the predicted class's probability when a patch is black [n, 4, 4]; what speaks against it counts less."""
    clean, target = model(images).softmax(1).max(1)
    side = images.shape[1] // PATCH
    falls = torch.empty(len(images), side, side)
    for row in range(side):
        for column in range(side):
            hidden = images.clone()
            hidden[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 0
            falls[:, row, column] = clean - model(hidden).softmax(1).gather(1, target[:, None])[:, 0]
    return falls


def explanations(model: DigitsViT, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Scores of patches [n, 4, 4] by name, and the controls: random ones, and occlusion upside down."""
    pixels: dict[str, Callable[..., Tensor]] = {
        "integrated gradients": integrated_gradients,
        "gradient x input": gradient_x_input,
        "attention rollout": attention_rollout,
    }
    found = {name: patches(one(model, images, images, seed)) for name, one in pixels.items()}
    found["occlusion"] = occlusion(model, images, images, seed)
    found["random"] = torch.rand(found["occlusion"].shape, generator=torch.Generator().manual_seed(seed))
    found["inverted occlusion"] = -found["occlusion"]
    return found


def main() -> None:
    """Train, explain, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    started = time.perf_counter()
    data = digits()
    model = train_digits(data["train"], data["validation"], chosen.seed)
    images, labels = (part[: chosen.n] for part in data["test"])
    with torch.no_grad():
        right = float((model(images).argmax(1) == labels).double().mean())
    print(f"accuracy {right:.3f} on {len(images)} images, seed {chosen.seed}; SaCo with {GROUPS} groups")

    def predict(inputs: Tensor) -> Tensor:
        return model(inputs[:, 0]).softmax(1)

    print(f"{'':22s}" + "".join(f"{name:26s}" for name in REPLACEMENTS))
    for name, scores in explanations(model, images, chosen.seed).items():
        values = [
            saco(predict, images[:, None], scores, GROUPS, baseline=how, batch_size=512, quiet=True).mean
            for how in REPLACEMENTS
        ]
        print(f"{name:22s}" + "".join(f"{value!s:26s}" for value in values))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
