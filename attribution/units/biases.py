"""What biases contribute: each bias times the gradient at the place where it is added.

Under rules that conserve relevance a logit is what its tokens' embeddings and all biases contribute.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anatomy import Anatomy
from interp.kernels.backward import Backward
from interp.parts import Affine, Norm, working

COLUMNS = ("prompt", "place", "layer", "position", "score")
_NORMS = ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")


class Biases(Backward):
    """A backward rule set that also listens to what has a bias.

    `outputs_alone`: to those of the MLPs' output matrices, which an MLP that gives nothing does not give either.
    `found`: by layer (-1 behind the last) and place [batch, pos]; of what is run at the last position alone [batch].
    """

    def __init__(self, anatomy: Anatomy, rules: Backward, n_rows: int, outputs_alone: bool = False) -> None:
        self.rules, self.n_rows = rules, n_rows
        self.weights: Float[Tensor, " point"] = torch.ones(1, dtype=torch.float32, device="cpu")
        self.found: dict[tuple[int, str], Tensor] = {}
        places = _places(anatomy)
        self._places = {part: at for part, at in places.items() if at[1] == "down" or not outputs_alone}
        self.temperature = rules.temperature

    def norm(self, norm: Norm, x: Tensor) -> Tensor:
        return self._heard(norm, self.rules.norm(norm, x))

    def affine(self, affine: Affine, x: Tensor) -> Tensor:
        return self._heard(affine, self.rules.affine(affine, x))

    def activation(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return self.rules.activation(function, x)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return self.rules.product(a, b)

    def factors(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.rules.factors(q, k, v)

    def mixture(self, value: Tensor, held: Callable[[], Tensor]) -> Tensor:
        return self.rules.mixture(value, held)

    def _heard(self, part: Affine | Norm, y: Tensor) -> Tensor:
        place, bias = self._places.get(part), part.bias
        if place is None or bias is None or not y.requires_grad or not bias.any():
            return y
        wide = working(bias.detach())

        def receive(gradient: Tensor) -> None:
            by_point = (working(gradient.detach()) @ wide).unflatten(0, (-1, self.n_rows))
            total = torch.einsum("p...,p->...", by_point, self.weights)
            self.found[place] = self.found.get(place, 0.0) + total

        y.register_hook(receive)
        return y

    def add_positions(self, positional: Float[Tensor, "pos d_model"], gradient: Float[Tensor, "b pos d_model"]) -> None:
        """What learned positions contribute, whose gradient is the embedding's."""
        if positional.any():
            self.found[-1, "positions"] = (gradient * working(positional)).sum(-1)

    def frame(self, prompts: list[int], positions: Int[Tensor, " pos"], lengths: Int[Tensor, " batch"]) -> pd.DataFrame:
        """Columns prompt, place, layer (-1: none), position, score; places that no gradient reaches are left out."""
        frames = []
        for (layer, place), values in self.found.items():
            rows = values if values.ndim == 2 else values[:, None]
            at = positions.expand(rows.shape) if values.ndim == 2 else (lengths - 1)[:, None]
            real = (at < lengths[:, None]).cpu()
            which = torch.tensor(prompts, device="cpu")[:, None].expand(rows.shape)
            columns = {"prompt": which[real], "position": at.cpu()[real], "score": rows.cpu()[real]}
            frames.append(pd.DataFrame({name: column.numpy() for name, column in columns.items()}))
            frames[-1] = frames[-1].assign(place=place, layer=layer)
        return _joined(frames)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The frames of all batches, by prompt, layer and position."""
    found = _joined(frames)
    return found.sort_values(["prompt", "layer", "place", "position"], kind="stable").reset_index(drop=True)


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    if not (full := [frame for frame in frames if len(frame)]):
        kinds = dict(zip(COLUMNS, ("int64", "str", "int64", "int64", "float64"), strict=True))
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    return pd.concat(full, ignore_index=True)[list(COLUMNS)].astype({"place": "str"})


def _places(anatomy: Anatomy) -> dict[Affine | Norm, tuple[int, str]]:
    """Layer and name of everything that may have a bias. A norm that attention and MLP share has one name."""
    places: dict[Affine | Norm, tuple[int, str]] = {
        anatomy.final_norm: (-1, "final_norm"),
        anatomy.unembed: (-1, "unembed"),
    }
    for layer, block in enumerate(anatomy.blocks):
        for letter in "qkvo":
            places[getattr(block, letter)] = layer, letter
        for name in _NORMS:
            if (norm := getattr(block, name)) is not None:
                places.setdefault(norm, (layer, name))
        for name in ("gate", "up", "down"):
            if (part := getattr(block.mlp, name, None)) is not None:
                places[part] = layer, name
    return places
