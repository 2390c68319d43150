"""Dictionaries in files: which format one has, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from interp.dictionaries import circuit_tracer, gemma_scope, sae_lens, sparsify
from interp.dictionaries.reading import PICKLES, refuse_pickle
from interp.errors import InputError
from interp.files import as_path

_FORMATS = (
    "a folder of SAELens (cfg.json, sae_weights.safetensors) or of eai-sparsify (cfg.json, sae.safetensors), a "
    "transcoder set of circuit-tracer (config.yaml, layer_0.safetensors, ...) with layer=, or Gemma Scope's params.npz"
)


def read_files(
    path: str | os.PathLike[str], layer: int | None, site: str | None, scaling: float | None
) -> dict[str, Any]:
    """What `Dictionary.from_tensors` takes; what is given goes before what files say.

    Raises `InputError` for formats that are unknown, files that are missing or damaged, and where neither says layer
    and site.
    """
    found = as_path(path, "path")
    refuse_pickle(found)
    folder, kind = _format(found)
    if scaling is not None and kind != "sae_lens":
        raise InputError(f"scaling={scaling} is for SAELens' files; {str(found)!r} is none")
    if kind == "sae_lens":
        read = sae_lens.read(folder, scaling)
    elif kind == "sparsify":
        read = sparsify.read(folder, layer is not None and site is not None)
    elif kind == "gemma_scope":
        read = gemma_scope.read(folder, site)
    else:
        if layer is None:
            raise InputError(
                f"{str(found)!r} holds transcoders of layers {', '.join(map(str, circuit_tracer.layers_of(folder)))}; "
                "give layer=, or take all of them with Dictionary.load_all"
            )
        read = circuit_tracer.read(folder, layer)
    read |= {name: value for name, value in (("layer", layer), ("site", site)) if value is not None}
    if missing := [name for name in ("layer", "site") if read.get(name) is None]:
        raise InputError(f"{str(found)!r} does not say its {' and '.join(missing)}; give {'= and '.join(missing)}=")
    return read


def members(path: str | os.PathLike[str]) -> list[tuple[Path, int | None]]:
    """The dictionaries in a folder of dictionaries: of each its path and, in a set, its layer."""
    folder = as_path(path, "path")
    if (folder / circuit_tracer.CONFIG).is_file():
        return [(folder, layer) for layer in circuit_tracer.layers_of(folder)]
    inside = sorted(found.parent for found in folder.glob("*/cfg.json"))
    if not inside:
        raise InputError(f"{str(folder)!r} holds no folders of dictionaries; give {_FORMATS}")
    return [(found, None) for found in inside]


def _format(path: Path) -> tuple[Path, str]:
    """The folder (or file) that is read, and the name of its format."""
    if path.suffix == ".npz":
        return path, "gemma_scope"
    folder = path if path.is_dir() else path.parent
    named = {folder / sae_lens.WEIGHTS: "sae_lens", folder / sparsify.WEIGHTS: "sparsify"}
    for weights, kind in named.items():
        if weights.is_file() and path in (folder, weights, folder / "cfg.json"):
            return folder, kind
    if path in (folder, folder / circuit_tracer.CONFIG) and (folder / circuit_tracer.CONFIG).is_file():
        return folder, "circuit_tracer"
    if path.is_dir() and (path / "params.npz").is_file():
        return path / "params.npz", "gemma_scope"
    if not path.exists():
        raise InputError(f"{str(path)!r} does not exist; give {_FORMATS}")
    for one in sorted(folder.iterdir()) if path.is_dir() else ():
        if one.suffix in PICKLES:
            refuse_pickle(one)
    raise InputError(f"{str(path)!r} has no format that is known; give {_FORMATS}")
