"""Where a held run has biases: a node of an attribution graph for each layer, position and place."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from attribution.tracing.held import Held, Stream
from attribution.tracing.units import Targets, Units
from interp.parts import Affine, Norm, working

Place = tuple[int, str]  # layer (-1: none), name
_IN_ATTENTION = ("attention_norm", "v", "o", "attention_post_norm")


class BiasPlaces:
    """The places of all biases that are not zero, and their effects on targets, `[row, place, pos]`."""

    def __init__(self, held: Held, units: Units) -> None:
        self.held = held
        self.constants: list[dict[str, Stream]] = [
            {place: values for place, values in units.constants(layer).items() if values.any()}
            for layer in range(held.n_layers)
        ]
        found: list[Place] = [(-1, "positions")] if held.places.any() else []
        for layer in range(held.n_layers):
            names = [name for name in _IN_ATTENTION if self._bias(layer, name) is not None]
            names += [*self.constants[layer], *units.own_places(layer)]
            found += [(layer, name) for name in dict.fromkeys(names)]
        anatomy = held.anatomy
        ends = (("final_norm", anatomy.final_norm.bias), ("unembed", anatomy.unembed.bias))
        found += [(-1, name) for name, bias in ends if bias is not None and bias.any()]
        self.places = found
        self._index = {place: i for i, place in enumerate(found)}

    def __len__(self) -> int:
        return len(self.places)

    def _bias(self, layer: int, name: str) -> Tensor | None:
        part: Affine | Norm | None = getattr(self.held.block(layer), name)
        bias = None if part is None else part.bias
        return None if bias is None or not bias.any() else working(bias.detach())

    def index(self, layer: int, place: str) -> int | None:
        """The number of a place; None: there is no bias."""
        return self._index.get((layer, place))

    def none(self, n_rows: int) -> Float[Tensor, "row place pos"]:
        """No effects as yet."""
        return self.held.words.new_zeros(n_rows, len(self), self.held.n_positions)

    def hear(self, effects: Tensor, layer: int, place: str, gradients: Tensor) -> None:
        """What a bias inside of attention gives, from the gradients at it."""
        if (index := self._index.get((layer, place))) is not None:
            bias = self._bias(layer, place)
            assert bias is not None
            effects[: len(gradients), index, : gradients.shape[1]] += gradients @ bias

    def at_mlp(self, effects: Tensor, layer: int, gradients: Tensor) -> None:
        """What the constants of an MLP give, from the gradients at what it adds."""
        length = gradients.shape[1]
        for place, values in self.constants[layer].items():
            index = self._index[layer, place]
            effects[: len(gradients), index, :length] += (gradients * values[:length]).sum(-1)

    def at_ends(self, effects: Tensor, targets: Targets, gradients: Tensor) -> None:
        """What learned positions give, and biases between the residual stream and the targets."""
        if (index := self._index.get((-1, "positions"))) is not None:
            effects[:, index, : gradients.shape[1]] += (gradients * self.held.places[: gradients.shape[1]]).sum(-1)
        device = effects.device
        positions = targets.positions.to(device)
        for place, values in targets.own.items():
            for layer in targets.layers.unique().tolist():
                index = self._index.get((-1 if layer == self.held.n_layers else layer, place))
                if index is not None:
                    rows = (targets.layers == layer).nonzero()[:, 0].to(device)
                    effects[rows, index, positions[rows]] += values[rows]
