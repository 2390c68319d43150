"""A folder of safetensors files: what tensors it holds, where their bytes lie, and whether it is still the same.

The files are read with `pread` and never mapped: mapped pages count as memory of the process.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from interp.errors import InputError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # bytes; what the format allows


@dataclass(frozen=True)
class File:
    """A safetensors file, as it was when its header was read."""

    path: Path
    identity: tuple[int, ...]

    @classmethod
    def at(cls, path: Path) -> File:
        """The file as it is now."""
        return cls(path, _identity(path))

    def refuse_changed(self) -> None:
        """Raise `InputError` where the file is no longer what its header said."""
        if _identity(self.path) != self.identity:
            raise InputError(
                f"{str(self.path)!r} was changed or removed on disk while its model was in use; load the model again"
            )


@dataclass(frozen=True)
class Stored:
    """One tensor in a file."""

    file: File
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes in the file."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


def read_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder by name; of a sharded checkpoint those of the files that its index names.

    Raises `InputError` for a folder without safetensors weights, and for files that are missing, damaged or cut short.
    """
    tensors: dict[str, Stored] = {}
    for path in _files(folder):
        tensors |= _read_header(path)
    return tensors


def _files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the weights in {str(folder)!r} are damaged: {_INDEX} cannot be read: {error}") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"the weights in {str(folder)!r} are not complete: {missing[0]} is missing")
    return [folder / name for name in names]


def _read_header(path: Path) -> dict[str, Stored]:
    file = File.at(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(size, _LONGEST_HEADER):
                raise ValueError(f"its header takes {length} bytes")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        ends = [start + one["data_offsets"][1] for one in header.values()]
        found = {
            name: Stored(file, _DTYPES[one["dtype"]], tuple(one["shape"]), start + one["data_offsets"][0])
            for name, one in header.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"the weights in {str(path)!r} are damaged: {error}") from error
    if size < max(ends, default=start):
        raise InputError(
            f"the weights in {str(path)!r} are cut short: {size:,} bytes of {max(ends):,}; copy or download it again"
        )
    return found


def _identity(path: Path) -> tuple[int, ...]:
    try:
        now = os.stat(path)
    except OSError:
        return ()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns
