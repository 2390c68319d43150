"""A small vision transformer on scikit-learn's digits, trained in seconds: a model to judge explanations on."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

SIDE, PATCH = 8, 2  # of an image, of a patch; in pixels
D_MODEL, HEADS, LAYERS, CLASSES = 32, 4, 2, 10

Set = tuple[Tensor, Tensor]


def digits(seed: int = 0) -> dict[str, Set]:
    """1,797 images [n, 8, 8] with values from 0 to 1: 1,100 to train on, 197 to validate and 500 to test."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(found.images, dtype=torch.float32)[order] / 16
    labels = torch.tensor(found.target, dtype=torch.int64)[order]
    bounds = {"train": slice(0, 1100), "validation": slice(1100, 1297), "test": slice(1297, None)}
    return {name: (images[part], labels[part]) for name, part in bounds.items()}


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(D_MODEL) for _ in range(2))
        self.qkv, self.out = nn.Linear(D_MODEL, 3 * D_MODEL), nn.Linear(D_MODEL, D_MODEL)
        self.mlp = nn.Sequential(nn.Linear(D_MODEL, 2 * D_MODEL), nn.GELU(), nn.Linear(2 * D_MODEL, D_MODEL))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stream [n, token, d] behind the block, and its attention [n, head, token, token]."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        pattern = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(3)
        x = x + self.out((pattern @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x)), pattern


class DigitsViT(nn.Module):
    """A vision transformer over 16 patches of 2 x 2 pixels and a class token; gives logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        tokens = (SIDE // PATCH) ** 2 + 1
        self.embed = nn.Linear(PATCH**2, D_MODEL)
        self.start = nn.Parameter(torch.randn(D_MODEL) * 0.02)
        self.position = nn.Parameter(torch.randn(tokens, D_MODEL) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(D_MODEL), nn.Linear(D_MODEL, CLASSES)

    def run(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and each block's attention."""
        grid = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
        x = self.embed(grid.flatten(1, 2).flatten(2))
        x = torch.cat((self.start.expand(len(x), 1, -1), x), 1) + self.position
        patterns = []
        for block in self.blocks:
            x, pattern = block(x)
            patterns.append(pattern)
        return self.head(self.norm(x[:, 0])), patterns

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, 10] of images [n, 8, 8]."""
        return self.run(images)[0]


def train_digits(
    train: Set, validation: Set, seed: int, *, epochs: int = 16, batch_size: int = 64, rate: float = 1e-2
) -> DigitsViT:
    """Train with AdamW under a one-cycle schedule; keep the weights of the best epoch on the validation set.

    The seed decides the model, and torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsViT()
    generator = torch.Generator().manual_seed(seed)
    images, labels = train
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    batches = -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches)
    best, kept = -1.0, {}
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            right = float((model(validation[0]).argmax(1) == validation[1]).float().mean())
        if right > best:
            best, kept = right, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model.eval()
