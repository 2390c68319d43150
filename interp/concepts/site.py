"""`Site`: a named module of an image classifier, whose output is read, or moved while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError, refused, short, unknown
from interp.run import Run
from interp.running import alone, of_this_thread

BATCH = 256  # images a pass, where nobody says otherwise
Change = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Site:
    """Where concepts are read: features are a module's output, averaged over positions where it has any.

    Attributes:
        model: any module from images [n, channel, height, width] to logits [n, class].
        layer: a module's name, as `model.named_modules()` has it; its output is [n, feature, ...].

    Raises `InputError` for what is no module, and for a layer that it lacks.
    """

    model: nn.Module
    layer: str

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise InputError(f"model must be a torch module from images to logits; got a {type(self.model).__name__}")
        known = [name for name, _ in self.model.named_modules() if name]
        if self.layer not in known:
            raise unknown("layer", self.layer, known)

    @torch.no_grad()
    def read(self, images: Float[Tensor, "n channel height width"], run: Run) -> tuple[Tensor, Tensor]:
        """Features [n, feature] and logits [n, class], both on the CPU, in float64."""
        features: list[Tensor] = []
        logits = []
        with run.progress("reading images", len(images)) as bar:
            for batch in images.split(run.batch_size or BATCH):
                seen = _Seen(self.layer)
                logits.append(self._logits(batch, seen))
                features.append(seen.single())
                bar.advance(len(batch))
        return torch.cat(features), torch.cat(logits)

    @torch.no_grad()
    def moved(
        self, images: Float[Tensor, "b channel height width"], by: Float[Tensor, "b feature"]
    ) -> Float[Tensor, "b class"]:
        """Logits of one batch whose features are moved, at every position alike."""
        return self._logits(images, lambda output: output + by.to(output).reshape(*by.shape, *[1] * (output.ndim - 2)))

    def _logits(self, images: Tensor, change: Change) -> Tensor:
        shape = "x".join(map(str, images.shape[1:]))
        with (
            alone(self.model),
            _changed(self.model.get_submodule(self.layer), change),
            refused(f"model cannot take {images.dtype} images of {shape}"),
        ):
            found = self.model(images.to(device_of(self.model)))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or found.shape[1] < 2:
            given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"model must return logits [n, class] with at least two classes; got {short(given)}")
        if not found.isfinite().all():
            raise InputError("model returned logits that are NaN or infinite")
        return found.detach().cpu().double()


def pooled(output: Any, layer: str) -> Float[Tensor, "b feature"]:
    """A module's output, averaged over positions, in float64 on the CPU. Raises `InputError` for what has no features.

    >>> pooled(torch.tensor([[[[1.0, 3.0]]]]), "conv")
    tensor([[2.]], dtype=torch.float64)
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
        shape = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(f"layer={layer!r} must give features [n, feature, ...]; it gives {shape}")
    found = output.detach().cpu().double()
    return found.flatten(2).mean(2) if found.ndim > 2 else found


class _Seen:
    """Keeps the features of a module's output in each of its runs, and changes nothing."""

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._kept: list[Tensor] = []

    def __call__(self, output: Any) -> None:
        self._kept.append(pooled(output, self._layer))  # at once: the next module may write into this output

    def single(self) -> Float[Tensor, "b feature"]:
        if len(self._kept) != 1:
            raise InputError(f"layer={self._layer!r} runs {len(self._kept)} times in a pass; name one that runs once")
        return self._kept[0]


@contextmanager
def _changed(module: nn.Module, change: Change) -> Iterator[None]:
    handle = module.register_forward_hook(of_this_thread(lambda _module, _inputs, output: change(output)))
    try:
        yield
    finally:
        handle.remove()


def device_of(model: nn.Module) -> torch.device:
    """Where a network's first weights lie; the CPU, if it has none."""
    return next((one.device for one in model.parameters()), torch.device("cpu"))
