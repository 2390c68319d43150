"""The loop that trains a coder of eai-sparsify: Adam with a falling rate, dead features helped, and a file to go on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp import numbers
from interp.adam_state import AdamState
from interp.errors import InputError
from interp.progress import progress
from interp.resumed import Resumed
from interp.running import one_at_a_time

_DEAD_AFTER = 100  # steps without being active
_KEPT_EVERY = 20  # steps: a copy of all weights each time


@dataclass(frozen=True)
class Recipe:
    """How a coder is trained. Raises `InputError` for numbers that cannot be."""

    n_features: int
    k: int
    transcode: bool
    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 3e-3
    seed: int = 0
    skip: bool = False

    def __post_init__(self) -> None:
        numbers.settle(self, steps=numbers.COUNT, learning_rate=numbers.POSITIVE)

    @classmethod
    def of(cls, n_features: int, k: int, transcode: bool, keywords: Mapping[str, Any]) -> Recipe:
        """From a function's keywords; those of others are passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(n_features, k, transcode, **{name: value for name, value in keywords.items() if name in known})


def trained(x: Tensor, y: Tensor, recipe: Recipe, resume: str | os.PathLike[str] | None, quiet: bool) -> Any:
    """A coder that was trained to write `y` of `x`, [n, d_model] each."""
    generator = torch.Generator().manual_seed(recipe.seed)
    coder = _begun(x, y, recipe, generator)
    training = _Training(coder, recipe, generator)
    file = Resumed(resume, training.state(), {**dataclasses.asdict(recipe), "data": [_digest(x), _digest(y)]})
    training.take(file.state)
    with progress("training a dictionary", recipe.steps, quiet) as bar:
        bar.advance(training.step)
        try:
            while training.step < recipe.steps:
                training.one_step(x, y)
                bar.advance()
                if resume is not None and training.step % _KEPT_EVERY == 0:
                    file.put(**training.state())
        finally:
            file.save()
    coder.set_decoder_norm_to_unit_norm()
    return coder


class _Training:
    """A coder, its optimiser, and how long each feature has been quiet."""

    def __init__(self, coder: Any, recipe: Recipe, generator: torch.Generator) -> None:
        self.coder, self.recipe, self.generator, self.step = coder, recipe, generator, 0
        self.optimizer = torch.optim.Adam(coder.parameters(), lr=recipe.learning_rate)
        self.quiet_for = torch.zeros(recipe.n_features, dtype=torch.long, device=coder.W_dec.device)
        self.adam = AdamState(self.optimizer, dict(coder.named_parameters()))

    def one_step(self, x: Tensor, y: Tensor) -> None:
        """A batch drawn from all rows."""
        recipe, coder = self.recipe, self.coder
        self.optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, 2 * (1 - self.step / recipe.steps))
        rows = torch.randint(len(x), (recipe.batch_size,), generator=self.generator, device="cpu").to(x.device)
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x[rows], y[rows], dead_mask=self.quiet_for > _DEAD_AFTER)
        loss = out.fvu + out.auxk_loss / 32
        self.optimizer.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.quiet_for += 1
        self.quiet_for[out.latent_indices[out.latent_acts > 0].flatten()] = 0
        self.step += 1

    def state(self) -> dict[str, Tensor]:
        """All that the next step hangs on; copies."""
        held = {"quiet_for": self.quiet_for, "generator": self.generator.get_state()}
        held["step"] = torch.tensor(self.step, device="cpu")
        return {**{name: one.clone() for name, one in held.items()}, **self.adam.tensors()}

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.step = int(state["step"])
        self.quiet_for.copy_(state["quiet_for"])
        self.generator.set_state(state["generator"])
        self.adam.take(state)


def _begun(x: Tensor, y: Tensor, recipe: Recipe, generator: torch.Generator) -> Any:
    """A coder with random rows of length 1, whose bias is the mean of what it is to write."""
    sparse_coder = _sparsify()
    config = sparse_coder.SparseCoderConfig(
        num_latents=recipe.n_features, k=recipe.k, transcode=recipe.transcode, skip_connection=recipe.skip
    )
    with one_at_a_time(), torch.random.fork_rng(devices=[]):  # its own draws are replaced
        coder = sparse_coder.SparseCoder(x.shape[1], config, device=x.device, dtype=torch.float32)
    shape = recipe.n_features, x.shape[1]
    rows = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu").to(x.device)
    with torch.no_grad():
        coder.encoder.weight.copy_(rows / rows.norm(dim=1, keepdim=True))
        coder.encoder.bias.zero_()
        coder.W_dec.copy_(coder.encoder.weight)
        coder.b_dec.copy_(y.mean(0))
    return coder


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _sparsify() -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does without
            from sparsify import sparse_coder
    except ImportError as error:
        raise InputError(
            f"training needs eai-sparsify ({error}); install it with `pip install 'faithful-circuits[dictionaries]'`"
        ) from error
    return sparse_coder
