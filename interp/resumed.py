"""The file of a run that may be interrupted: what is done so far, and what it is a run of."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from interp.errors import InputError
from interp.files import check_writable, is_regular, write_bytes

_SAVE_EVERY = 20.0  # seconds between saves


class Resumed:
    """Tensors that say what is done so far; with a `path` they are read from there and written there.

    `start` are the tensors of a run that has done nothing, `fingerprint` says what it is a run of. Raises `InputError`
    for a file that cannot be written, is damaged, or belongs to another run.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, start: dict[str, Tensor], fingerprint: dict[str, Any]
    ) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprint = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self.state = start
        self.saved_at = time.monotonic()
        if self.path is not None:
            check_writable(self.path, "resume")
            if not is_regular(self.path):
                raise InputError(f"resume={str(path)!r} is no plain file, and is to be read again; name a new file")
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                theirs = (file.metadata() or {}).get("fingerprint")
                state = {name: file.get_tensor(name).clone() for name in self.state}
        except (SafetensorError, OSError) as error:
            raise InputError(f"resume={str(path)!r} is not a resumable run, or is damaged: {error}") from error
        if theirs != self.fingerprint:
            raise InputError(
                f"resume={str(path)!r} belongs to another run (other model, task, edges or settings); "
                "name another file, or remove this one to start anew"
            )
        self.state = state

    def put(self, **state: Tensor) -> None:
        """Take what is done now, and save if the last save is long ago."""
        self.state = state  # all at once: an interrupt leaves the tensors in step
        if time.monotonic() - self.saved_at > _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the file, if there is to be one."""
        if self.path is not None:
            write_bytes(self.path, save(self.state, metadata={"fingerprint": self.fingerprint}))
            self.saved_at = time.monotonic()
