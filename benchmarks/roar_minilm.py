"""Recursive ROAR end to end on a text classifier over the real MiniLM encoder: all ratios, three seeds.

    python -m benchmarks.roar_minilm [--folder FOLDER] [--workers 2] [--seeds 3] [--html FILE]

Each training starts from MiniLM as it is and fine-tunes its last layers, the pooler and a fresh head. The layers below
are frozen and are run once for each training. With a folder the run goes on where it was killed. Words are masked by
[MASK]; [CLS], [SEP] and padding stay. Explanations are of the class that the model predicts.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import minilm
from interp.files import write_text
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_plan import RATIOS, roar_plan
from metrics.explanation.roar_result import RoarResult

SIZES = {"train": 320, "validation": 32, "test": 200}
LENGTH = 12  # tokens, at most; longer sentences are left out
FROZEN, EPOCHS, RATE = 4, 4, 5e-4

Explainer = Callable[[Any, Tensor, Tensor, int], Tensor]


def data(sizes: dict[str, int] = SIZES, length: int = LENGTH) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Short sentences, each once, of one distribution: (ids, labels, maskable) by split."""
    _, tokenizer = minilm.load(0)
    n = sum(sizes.values())
    texts, labels = minilm.sentences("train", 5 * n, 0)
    known = dict(zip(texts, labels, strict=True))  # a sentence that was drawn twice stands once
    ids = minilm.encode(tokenizer, list(known))
    short = ((ids != minilm.PAD).sum(1) <= length).nonzero()[:n, 0]
    ids, classes = ids[short, :length], torch.tensor(list(known.values()))[short]
    maskable = ~torch.isin(ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, minilm.PAD]))
    parts = [part.split(list(sizes.values())) for part in (ids, classes, maskable)]
    return dict(zip(sizes, zip(*parts, strict=True), strict=True))


def train(train_set: Any, validation_set: Any, seed: int) -> Any:
    """A classifier fine-tuned from MiniLM; the seed draws its head and the order of the sentences."""
    model, _ = minilm.load(seed)
    minilm.fine_tune(model, *train_set, seed, frozen=FROZEN, epochs=EPOCHS, rate=RATE)
    return model.requires_grad_(False)


def gradients(model: Any, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Gradient [n, pos, d] of the predicted class's logit at the word embeddings."""
    present, target = (ids != minilm.PAD).long(), predict(model, ids).argmax(1, keepdim=True)
    parts = []
    for own, mask, chosen in zip(embeddings.split(64), present.split(64), target.split(64), strict=True):
        leaf = own.detach().requires_grad_()
        logits = model(inputs_embeds=leaf, attention_mask=mask).logits
        parts.append(torch.autograd.grad(logits.gather(1, chosen).sum(), leaf)[0])
    return torch.cat(parts)


def gradient_x_input(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Gradient times embedding, by absolute value."""
    embeddings = model.get_input_embeddings()(ids).detach()
    return (gradients(model, ids, embeddings) * embeddings).sum(2).abs()


def integrated_gradients(model: Any, ids: Tensor, labels: Tensor, seed: int, steps: int = 3) -> Tensor:
    """Integrated gradients from [MASK] at every word, by absolute value; few steps, at the middles of equal parts."""
    words = model.get_input_embeddings()
    embeddings, none = words(ids).detach(), words(torch.tensor(minilm.MASK)).detach()
    way = embeddings - none
    shares = [(step + 0.5) / steps for step in range(steps)]
    mean = sum(gradients(model, ids, none + share * way) for share in shares) / steps
    return (mean * way).sum(2).abs()


EXPLAINERS: dict[str, Explainer] = {
    "gradient x input": gradient_x_input,
    "integrated gradients": integrated_gradients,
}


def run(
    seeds: int,
    folder: str | os.PathLike[str] | None = None,
    workers: int = 1,
    *,
    sizes: dict[str, int] = SIZES,
    ratios: Sequence[float] = RATIOS,
) -> RoarResult:
    """Recursive ROAR with [MASK] as what stands in for a word."""
    return recursive_roar(
        train, data(sizes), EXPLAINERS, seeds=seeds, ratios=ratios, mask=minilm.MASK, predict=predict, folder=folder,
        settings={"frozen": FROZEN, "epochs": EPOCHS, "rate": RATE}, workers=workers,
    )  # fmt: skip


def predict(model: Any, ids: Tensor) -> Tensor:
    """Logits [n, class]."""
    return minilm.logits(model, ids)


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
    result = run(chosen.seeds, chosen.folder, chosen.workers)
    print(result)
    print(result.racu_by_seed.to_string(index=False, float_format="{:.3f}".format))
    print(f"{time.perf_counter() - started:.0f} s")
    if chosen.html:
        write_text(chosen.html, result.figure().to_html(include_plotlyjs="cdn"))


if __name__ == "__main__":
    main()
