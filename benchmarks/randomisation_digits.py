"""Model-parameter randomisation of explanations of the digits transformer, with the image itself as control.

    python -m benchmarks.randomisation_digits [--samples 200] [--draws 3] [--html FILE]

Rank correlations over all pixels, and over those with ink alone: half of an image is black, and whatever multiplies
by the image gives black pixels 0 in every model.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

import metrics
from benchmarks.digits_vit import DigitsViT, digits, train_digits
from benchmarks.roar_digits import attention_rollout
from interp.files import write_text
from interp.interval import Estimate

LAYERS = ("embed", "blocks.0", "blocks.1", "norm", "head")


def gradient(model: DigitsViT, images: Tensor, target: Tensor) -> Tensor:
    """Gradient of the target's logit."""
    images = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(images).gather(1, target[:, None]).sum(), images)
    return found


def integrated_gradients(model: DigitsViT, images: Tensor, target: Tensor) -> Tensor:
    """Captum's integrated gradients from black."""
    return IntegratedGradients(model).attribute(images, target=target, n_steps=16, internal_batch_size=4096).detach()


EXPLAINERS: dict[str, Any] = {
    "gradient": gradient,
    "gradient x input": lambda model, images, target: gradient(model, images, target) * images,
    "integrated gradients": integrated_gradients,
    "attention rollout": lambda model, images, target: attention_rollout(model, images, target, 0),
    "the image itself, |x|": lambda model, images, target: images.abs(),
}


def rows_of(found: metrics.Randomisation, pixels: str) -> list[dict[str, str]]:
    """A row an explainer and mode: correlation of the values after each layer, and the reading."""
    rows = []
    for (name, mode), part in found.frame.groupby(["explainer", "mode"], sort=False):
        steps = {
            str(one["layer"]): str(Estimate(one["spearman"], one["low"], one["high"])) for _, one in part.iterrows()
        }
        last = part.iloc[-1]
        absolute = Estimate(*last[["absolute", "absolute low", "absolute high"]])
        rows.append({"pixels": pixels, "mode": mode, "explainer": name, **steps, "last, |values|": str(absolute)})
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--html", help="write the figure over pixels with ink")
    chosen = parser.parse_args()
    started = time.perf_counter()
    data = digits()
    model = train_digits(data["train"], data["validation"], chosen.seed)
    images = data["test"][0][: chosen.samples]
    rows, readings = [], []
    for pixels, real in (("all", None), ("with ink", images > 0)):
        found = metrics.randomisation(
            model, images, EXPLAINERS, layers=LAYERS, draws=chosen.draws, real=real, seed=chosen.seed
        )
        rows += rows_of(found, pixels)
        readings += [f"{pixels} pixels, {name}: {sentence}" for name, sentence in found.reading.items()]
    frame = pd.DataFrame(rows)
    if chosen.markdown:
        lines = [list(frame), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
        print("\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines))
    else:
        print(frame.to_string(index=False))
    print("\n".join(readings))
    print(f"{len(images)} images, {chosen.draws} draws, seed {chosen.seed}, {time.perf_counter() - started:.0f} s")
    if chosen.html:
        write_text(chosen.html, found.figure().to_html(include_plotlyjs="cdn"))


if __name__ == "__main__":
    main()
