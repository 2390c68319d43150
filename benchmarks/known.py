"""Models whose true importances are known: what an explanation should say of them needs no opinion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

PAD, MASK = 0, 1
READ = {5: 3.0, 6: 2.0, 7: 1.0, 8: -1.0, 9: -2.0, 10: -3.0}  # token: what it adds to the logit; all others add 0
VOCAB, WIDTH = 40, 8  # tokens; dimensions of their embeddings
SIDE, PATCH = 8, (slice(2, 5), slice(3, 6))  # of images, and the pixels that are read


@dataclass(frozen=True)
class Known:
    """A model of two classes, inputs, and what each element adds to the logit of the predicted class.

    Attributes:
        settings: what metrics need to know besides: baseline, real.
        soft: `predict` and `embeddings` for soft erasure.
        slope: (inputs, target) -> gradient of the target's probability, where inputs are floats.
    """

    predict: Callable[[Tensor], Tensor]
    inputs: Tensor
    truth: Tensor
    settings: dict[str, Any]
    soft: dict[str, Any] = field(default_factory=dict)
    slope: Callable[[Tensor, Tensor], Tensor] | None = None


def two_classes(logit: Tensor) -> Tensor:
    """Probabilities [n, 2] from the logit of class 1."""
    p = logit.double().sigmoid()
    return torch.stack((1 - p, p), 1)


def toward(logit: Tensor) -> Tensor:
    """+1 where class 1 is predicted, else -1."""
    return 2.0 * (logit > 0) - 1


def features(n: int, seed: int = 0, d: int = 10) -> Known:
    """A logistic model of normal features; removed features are zero, so that w x is exactly what each adds."""
    generator = torch.Generator().manual_seed(seed)
    weights, inputs = 1.5 * torch.randn(d, generator=generator), torch.randn(n, d, generator=generator)

    def slope(x: Tensor, target: Tensor) -> Tensor:
        p = two_classes(x @ weights).to(x)
        return (p[:, :1] * p[:, 1:]) * weights * (2.0 * target - 1)[:, None]

    return Known(
        predict=lambda x: two_classes(x @ weights),
        inputs=inputs,
        truth=inputs * weights * toward(inputs @ weights)[:, None],
        settings={"baseline": "zero"},
        slope=slope,
    )


def text(n: int, seed: int = 0, length: int = 16) -> Known:
    """A classifier of texts of 12 to 16 tokens that adds up a number for each of six tokens and reads no other.

    One in three tokens is one of the six. A removed token becomes the mask token, which adds nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(11, VOCAB, (n, length), generator=generator)
    read = torch.randint(5, 11, (n, length), generator=generator)
    ids = torch.where(torch.rand(n, length, generator=generator) < 1 / 3, read, ids)
    real = torch.arange(length) < torch.randint(12, length + 1, (n, 1), generator=generator)
    ids = ids.masked_fill(~real, PAD)
    value = torch.zeros(VOCAB)
    value[list(READ)] = torch.tensor(list(READ.values()))
    # the first half of an embedding is read, the second is not
    table = torch.randn(VOCAB, WIDTH, generator=generator)
    table[:, : WIDTH // 2] = value[:, None] / (WIDTH // 2)
    table[PAD] = table[MASK] = 0

    def from_embeddings(x: Tensor) -> Tensor:
        return two_classes(x[..., : WIDTH // 2].sum((1, 2)))

    return Known(
        predict=lambda ids: two_classes(value[ids].sum(1)),
        inputs=ids,
        truth=value[ids] * toward(value[ids].sum(1))[:, None],
        settings={"baseline": MASK, "real": real},
        soft={"predict": from_embeddings, "embeddings": table[ids]},
    )


def images(n: int, seed: int = 0) -> Known:
    """A classifier of 8 x 8 images of noise that reads a patch of 3 x 3 pixels, linearly."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(SIDE, SIDE)
    weights[PATCH] = 1.5 * torch.randn(3, 3, generator=generator)
    inputs = torch.randn(n, 1, SIDE, SIDE, generator=generator)

    def logit(x: Tensor) -> Tensor:
        return (x[:, 0] * weights).sum((1, 2))

    return Known(
        predict=lambda x: two_classes(logit(x)),
        inputs=inputs,
        truth=inputs[:, 0] * weights * toward(logit(inputs))[:, None, None],
        settings={"baseline": "zero"},
    )


MODELS = {"features": features, "text": text, "images": images}

D, WEIGHTS = 12, (4.0, 3.0, 2.0, 1.0, 0.5)  # features, of which the first five decide the label


def labelled(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features [n, 12] and labels: whether the first five, weighted, add up to more than 0."""
    inputs = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs[:, : len(WEIGHTS)] @ torch.tensor(WEIGHTS) > 0).long()


def least_squares(train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], seed: int) -> nn.Linear:
    """A linear classifier in one step, from four fifths of the training set, which the seed chooses."""
    x, y = train
    kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: 4 * len(x) // 5]
    design = torch.cat((x[kept], torch.ones(len(kept), 1)), 1).double()
    # a ridge, since masked features are constant
    square = design.T @ design + 1e-3 * torch.eye(D + 1, dtype=torch.float64)
    solved = torch.linalg.solve(square, design.T @ (2 * y[kept] - 1).double())
    model = nn.Linear(D, 2).requires_grad_(False)
    model.weight.copy_(torch.stack((-solved[:-1], solved[:-1])))
    model.bias.copy_(torch.stack((-solved[-1], solved[-1])))
    return model.eval()


def true_weights(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    """The weight that decided the labels, the same for all samples: a mask that gives no label away."""
    weights = torch.zeros(D)
    weights[: len(WEIGHTS)] = torch.tensor(WEIGHTS)
    return weights.expand(len(inputs), -1)


def class_contributions(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    """What each feature adds to class 1, whatever is predicted: true of each sample, and its mask tells the label."""
    return inputs * true_weights(model, inputs, labels, seed)


def stories(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eight tokens; one of them is 3 (label 0) or 4 (label 1), the rest says nothing."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 12, (n, 8), generator=generator)
    labels = torch.randint(2, (n,), generator=generator)
    ids[torch.arange(n), torch.randint(8, (n,), generator=generator)] = 3 + labels
    return ids, labels


class TokenSum(nn.Module):
    """Adds up a score of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(12, 2))

    def forward(self, ids: Tensor, attention: Tensor | None = None) -> Tensor:
        """Logits [n, 2]."""
        return self.table[ids].sum(1)


def true_tokens(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Which token tells the label."""
    return ((ids == 3) | (ids == 4)).double()


def inverted(explain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The opposite of an explanation."""
    return lambda *given: -explain(*given)


def chance(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Random scores."""
    return torch.rand(inputs.shape, generator=torch.Generator().manual_seed(seed))
