"""Files of dictionaries, read without unpickling anything: safetensors, npz, JSON and YAML."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError, refused

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def refuse_pickle(path: Path) -> None:
    """Raise `InputError` for files that can only be unpickled, which may run whatever they hold."""
    if path.suffix in PICKLES:
        raise InputError(
            f"{str(path)!r} is a pickle, which may run code when it is read; nothing is unpickled here. Save its "
            "tensors with safetensors.torch.save_file, and give them, or the file, to Dictionary"
        )


def settings(path: Path) -> dict[str, Any]:
    """What a JSON or YAML file holds. Raises `InputError` where that is no dictionary."""
    import yaml

    where = f"{path.name} of {str(path.parent)!r}"
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{where} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise InputError(f"{where} holds a {type(found).__name__}; it must hold settings by name")
    return found


def tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or npz file, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickle(path)
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist")
    if path.suffix == ".npz":
        return _arrays(path)
    try:
        found: dict[str, Tensor] = load_file(path)
        return found
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is damaged: {str(error).splitlines()[0]}") from None


def _arrays(path: Path) -> dict[str, Tensor]:
    with refused(f"{str(path)!r} is damaged or holds more than arrays"):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                return {name: torch.from_numpy(np.ascontiguousarray(held[name])) for name in held.files}
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from None


def need(found: dict[str, Tensor], names: tuple[str, ...], where: str) -> list[Tensor]:
    """Tensors by name. Raises `InputError` naming those that are missing."""
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{where} holds no {', '.join(missing)}; it holds {', '.join(sorted(found)) or 'nothing'}")
    return [found[name] for name in names]
