"""Folders of eai-sparsify: `cfg.json` and `sae.safetensors`.

TopK of the encoder's rectified output. Autoencoders subtract b_dec from x, transcoders (`transcode`) do not; with
`skip_connection` a transcoder has W_skip, `[d_model out, d_model in]`. Where a coder was trained is its folder's name:
`layers.3` (the residual stream), `layers.3.mlp`, `embed_tokens`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.dictionaries.hooks import place_of
from interp.dictionaries.reading import need, settings, tensors
from interp.errors import InputError

WEIGHTS = "sae.safetensors"


def read(folder: Path, placed: bool) -> dict[str, Any]:
    """What `Dictionary.from_tensors` takes; `placed`: layer and site are given, the folder's name is not asked."""
    where, cfg = f"the sparsify folder {str(folder)!r}", settings(folder / "cfg.json")
    activation = cfg.get("activation", "topk")
    if activation != "topk" or cfg.get("signed"):
        given = "signed" if cfg.get("signed") else f"activation={activation!r}"
        raise InputError(f"{where} has {given} in cfg.json; topk without signs can be read")
    found = tensors(folder / WEIGHTS)
    encoder, b_enc, decoder, b_dec = need(found, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"), where)
    transcoder = bool(cfg.get("transcode"))
    read: dict[str, Any] = {"W_enc": encoder, "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec, "k": cfg.get("k", 32)}
    read |= {"subtracts_b_dec": not transcoder, "model": _model(folder)}
    if cfg.get("skip_connection"):
        (read["W_skip"],) = need(found, ("W_skip",), where)
    if not placed:
        read |= place_of(folder.name, where)
    if not transcoder:
        return read
    if read.get("site", "mlp") != "mlp":
        raise InputError(f"{where} is a transcoder of {folder.name!r}; only those of MLPs are run")
    return {**read, "site": "transcoder", "reads": "normed", "writes": "mlp_out"}


def _model(folder: Path) -> str | None:
    """The model's name, which the configuration of the training run beside the folders says."""
    path = folder.parent / "config.json"
    name = settings(path).get("model") if path.is_file() else None
    return name if isinstance(name, str) else None
