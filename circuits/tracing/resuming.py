"""Long traces that may be cut off: rows that are made are kept in a file, and made once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attribution.tracing.effects import Advance, Effects, RowMaker
from attribution.tracing.units import Places, Targets
from circuits.tracing.select import joined
from interp.errors import InputError
from interp.files import check_writable, is_regular, write_bytes

_SAVE_EVERY = 20.0  # seconds between saves
_AT_ONCE = 16  # rows, behind which it is asked whether to save


class KeptRows:
    """Makes rows with `rows`, but for those that its file has; the file is of one model, prompt and setting.

    `activations` of the candidates are kept besides, so that other weights are told by what they do.
    """

    def __init__(
        self, rows: RowMaker, path: str | os.PathLike[str], about: dict[str, Any], activations: Tensor
    ) -> None:
        self.rows, self.chosen, self.biases = rows, rows.chosen, rows.biases
        self.activations = activations.cpu().contiguous()
        candidates = hashlib.sha256(self.chosen.rows().numpy().tobytes()).hexdigest()
        whole = json.dumps({**about, "candidates": candidates}, sort_keys=True)
        self.fingerprint = hashlib.sha256(whole.encode()).hexdigest()
        self.path = check_writable(path, "resume")
        if not is_regular(self.path):
            raise InputError(f"resume={str(path)!r} is no plain file, and is to be read again; name a new file")
        self._at: dict[tuple[int, ...], int] = {}  # which row a unit's is
        self._kept: Effects | None = None
        self._saved_at = time.monotonic()
        if self.path.exists():
            self._load(str(path))

    def on_logits(self, targets: Targets, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on logits, made anew."""
        return self.rows.on_logits(targets, magnitudes, advance)

    def on_units(self, places: Places, magnitudes: bool, advance: Advance) -> Effects:
        """Effects on units, in the order given."""
        keys = [tuple(row) for row in places.rows().tolist()]
        new = torch.tensor([i for i, key in enumerate(keys) if key not in self._at], dtype=torch.long, device="cpu")
        new = new[places.positions[new].argsort(stable=True)]  # those of like positions are made together
        advance(len(keys) - len(new))
        try:
            for some in new.split(_AT_ONCE):
                if len(some):
                    self._add(places.select(some), self.rows.on_units(places.select(some), magnitudes, advance))
        finally:
            if len(new):
                self._save()
        assert self._kept is not None
        at = torch.tensor([self._at[key] for key in keys], dtype=torch.long, device="cpu")
        device = self.biases.held.words.device
        return _each(self._kept, lambda x: x[at].to(device))

    def _add(self, places: Places, found: Effects) -> None:
        own = _each(found, lambda x: x.cpu())
        kept = own if self._kept is None else joined([self._kept, own])
        numbered = {tuple(row): len(self._at) + i for i, row in enumerate(places.rows().tolist())}
        self._kept, self._at = kept, {**self._at, **numbered}
        if time.monotonic() - self._saved_at > _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        if self._kept is None:
            return
        tensors = {name: x.contiguous() for name, x in _tensors(self._kept).items() if x is not None}
        made = torch.tensor(list(self._at), dtype=torch.long, device="cpu")[: len(self._kept.tokens)]
        tensors |= {"places": made, "activations": self.activations}
        write_bytes(self.path, save(tensors, metadata={"fingerprint": self.fingerprint}))
        self._saved_at = time.monotonic()

    def _load(self, named: str) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                theirs = (file.metadata() or {}).get("fingerprint")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            places, activations = tensors.pop("places"), tensors.pop("activations")
            kept = Effects(**{"magnitude": None, **tensors})
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise InputError(f"resume={named!r} is not a resumable trace, or is damaged: {error}") from error
        same = theirs == self.fingerprint and torch.allclose(activations, self.activations, rtol=1e-3, atol=1e-5)
        if not same:
            raise InputError(
                f"resume={named!r} belongs to another trace (other model, prompt, target, units or settings); name "
                "another file, or remove this one to start anew"
            )
        self._kept, self._at = kept, {tuple(row): i for i, row in enumerate(places.tolist())}


def _each(found: Effects, change: Callable[[Tensor], Tensor]) -> Effects:
    made: dict[str, Any] = {name: None if x is None else change(x) for name, x in _tensors(found).items()}
    return Effects(**made)


def _tensors(found: Effects) -> dict[str, Tensor | None]:
    return {one.name: getattr(found, one.name) for one in fields(found)}
