"""Gemma Scope's `params.npz`: JumpReLU autoencoders and transcoders of Gemma 2 (arXiv:2408.05147).

`W_enc` is `[d_model, d_sae]`, `W_dec` `[d_sae, d_model]`; b_dec is not subtracted. MLP autoencoders stand behind the
norm that follows the MLP; transcoders read behind the norm, in front of its gain, and write behind the norm that
follows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from interp.dictionaries.reading import need, tensors
from interp.errors import InputError

_RELEASE = re.compile(r"gemma-scope-(\w+)-(pt|it)-(res|mlp|att|transcoders)")
_SITES = {"res": "residual", "mlp": "mlp", "transcoders": "transcoder"}


def read(path: Path, site: str | None) -> dict[str, Any]:
    """What `Dictionary.from_tensors` takes; layer and site as far as the path tells them, unless `site` is given."""
    where = f"Gemma Scope's file {str(path)!r}"
    encoder, decoder, b_enc, b_dec, threshold = need(
        tensors(path), ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"), where
    )
    read: dict[str, Any] = {"W_enc": encoder.T, "W_dec": decoder, "b_enc": b_enc, "b_dec": b_dec}
    whole = path.absolute().as_posix()
    if release := _RELEASE.search(whole):
        if release[3] == "att" and site is None:
            raise InputError(f"{where} reads heads in front of their output matrix, where dictionaries are not run")
        read |= {"site": _SITES.get(release[3]), "model": f"gemma-2-{release[1]}{'-it' if release[2] == 'it' else ''}"}
    if "/embedding/" in whole:
        read |= {"layer": 0, "site": "embedding"}
    elif layer := re.search(r"/layer_(\d+)/", whole):
        read["layer"] = int(layer[1])
    here = site or read.get("site")
    if here == "transcoder":
        read |= {"reads": "normalized", "writes": "added"}
    elif here == "mlp":
        read |= {"writes": "added"}
    return {**read, "threshold": threshold}
