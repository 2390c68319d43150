"""Random dictionaries of every place of a model, for tests against slow oracles."""

from __future__ import annotations

from typing import Any

import torch

from interp.dictionaries import Dictionary

FEATURES = 20
UNEQUAL = (FEATURES, 13, FEATURES)

PLACES: dict[str, dict[str, Any]] = {
    "embedding": {"layer": 0, "site": "embedding"},
    "residual": {"layer": 0, "site": "residual", "threshold": 0.2},
    "attention": {"layer": 1, "site": "attention", "k": 6},
    "mlp": {"layer": 1, "site": "mlp", "normalization": "layer_norm"},
    "mlp-added": {"layer": 2, "site": "mlp", "writes": "added", "subtracts_b_dec": True},
    "transcoder": {"layer": 2, "site": "transcoder"},
    "transcoder-scope": {"layer": 0, "site": "transcoder", "reads": "normalized", "writes": "added", "threshold": 0.1},
}


def random_dictionary(place: str, width: int, skip: bool = False, **changes: Any) -> Dictionary:
    """A dictionary of one of `PLACES`, some third of whose features are active."""
    generator = torch.Generator().manual_seed(list(PLACES).index(place))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.4

    given = {"W_enc": draw(FEATURES, width), "b_enc": draw(FEATURES) - 0.2, "W_dec": draw(FEATURES, width)}
    given |= {"b_dec": draw(width), **PLACES[place]}
    if skip:
        given["W_skip"] = draw(width, width)
    return Dictionary.from_tensors(**{**given, **changes})


def of_all_places(width: int) -> list[Dictionary]:
    """One dictionary of every kind of place, at places of their own."""
    moved = {"transcoder-scope": {"layer": 1}}
    return [random_dictionary(place, width, skip=place == "transcoder", **moved.get(place, {})) for place in PLACES]


def unequal(width: int) -> list[Dictionary]:
    """Dictionaries of three places, the second with fewer features than the others (`UNEQUAL`)."""
    one = random_dictionary("attention", width)
    few = slice(UNEQUAL[1])
    weights = {"W_enc": one.W_enc[few], "b_enc": one.b_enc[few], "W_dec": one.W_dec[few]}
    return [
        random_dictionary("residual", width),
        random_dictionary("attention", width, **weights),
        random_dictionary("transcoder", width, skip=True),
    ]
