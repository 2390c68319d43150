"""SAELens' folders: `cfg.json` and `sae_weights.safetensors`.

Encoders are `[d_in, d_sae]` there, decoders `[d_sae, d_in]`. The encoder reads norm(x) - b_dec, the second term where
`apply_b_dec_to_input` says so. What is folded into the weights: a scaling of x by a constant
(`expected_average_only_in`), factors of features, the decoder's norms of TopK, and gates: with one encoder row w,

    w x + b_gate > 0    is    z > b_mag - exp(r_mag) b_gate,    z = exp(r_mag) w x + b_mag,

so that a gated autoencoder (arXiv:2404.16014) is a JumpReLU with that threshold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries.hooks import place_of, places_of_transcoder
from interp.dictionaries.reading import need, settings, tensors
from interp.errors import InputError, short

WEIGHTS = "sae_weights.safetensors"

_TRANSCODERS = {"transcoder": "standard", "skip_transcoder": "standard", "jumprelu_transcoder": "jumprelu"}
_NORMS = ("none", "layer_norm", "constant_norm_rescale")
_SCALED = "expected_average_only_in"


def read(folder: Path, scaling: float | None) -> dict[str, Any]:
    """What `Dictionary.from_tensors` takes; `scaling`: what x is multiplied by, which older files do not hold."""
    where, cfg = f"the SAELens folder {str(folder)!r}", settings(folder / "cfg.json")
    cfg = {**cfg, **(cfg.get("metadata") or {})}
    given = str(cfg.get("architecture") or "standard")
    kind = _TRANSCODERS.get(given, given)
    chosen, k = _activation(cfg, where)
    kind = chosen if kind == "standard" and chosen is not None else kind
    if kind not in ("standard", "topk", "jumprelu", "gated"):
        known = ", ".join(("standard", "topk", "jumprelu", "gated", *_TRANSCODERS))
        raise InputError(f"{where} has architecture={given!r} in cfg.json; what can be read is {known}")
    _refuse_others(cfg, where)
    found = tensors(folder / WEIGHTS)
    read = {
        **_place(cfg, given in _TRANSCODERS, where),
        **_coder(kind, found, k, where),
        **_norm(cfg, given in _TRANSCODERS, where),
        "model": cfg.get("model_name"),
    }
    if given == "skip_transcoder":
        (read["W_skip"],) = need(found, ("W_skip",), where)
    _rescale(read, cfg, found, where)
    _scale(read, cfg, scaling, where)
    return read


def _activation(cfg: dict[str, Any], where: str) -> tuple[str | None, Any]:
    """The architecture that an older file's activation function stands for, and TopK's k."""
    name = str(cfg.get("activation_fn") or cfg.get("activation_fn_str") or "relu")
    k = cfg.get("k", (cfg.get("activation_fn_kwargs") or {}).get("k"))
    if name == "topk":
        return "topk", k
    if name != "relu":
        raise InputError(f"{where} has activation_fn={name!r} in cfg.json; relu and topk can be read")
    return None, k


def _refuse_others(cfg: dict[str, Any], where: str) -> None:
    if cfg.get("hook_head_index") is not None:
        raise InputError(f"{where} is of one head (hook_head_index={cfg['hook_head_index']}), where none are run")
    if (cfg.get("reshape_activations") or "none") != "none":
        raise InputError(
            f"{where} reads heads in front of their output matrix (hook_z), where dictionaries are not run"
        )


def _place(cfg: dict[str, Any], transcoder: bool, where: str) -> dict[str, Any]:
    name = str(cfg.get("hook_name") or cfg.get("hook_point") or "")
    if not name:
        return {"site": "transcoder"} if transcoder else {}
    if not transcoder:
        return place_of(name, where)
    return places_of_transcoder(name, str(cfg.get("hook_name_out") or ""), where)


def _coder(kind: str, found: dict[str, Tensor], k: Any, where: str) -> dict[str, Any]:
    encoder, decoder, b_dec = need(found, ("W_enc", "W_dec", "b_dec"), where)
    read: dict[str, Any] = {"W_enc": encoder.T, "W_dec": decoder, "b_dec": b_dec}
    if kind == "gated":
        gate, magnitude, scale = need(found, ("b_gate", "b_mag", "r_mag"), where)
        factor = scale.exp()
        threshold = (magnitude - factor * gate).clamp(min=0)
        return {**read, "W_enc": factor[:, None] * encoder.T, "b_enc": magnitude, "threshold": threshold}
    (read["b_enc"],) = need(found, ("b_enc",), where)
    if kind == "jumprelu":
        (read["threshold"],) = need(found, ("threshold",), where)
    if kind == "topk":
        if k is None:
            raise InputError(f"{where} is a TopK autoencoder without k in cfg.json")
        read["k"] = k
    return read


def _norm(cfg: dict[str, Any], transcoder: bool, where: str) -> dict[str, Any]:
    given = cfg.get("normalize_activations") or "none"
    name = _SCALED if given is True else str(given)
    if name not in (*_NORMS, _SCALED):
        raise InputError(f"{where} has normalize_activations={short(given)} in cfg.json; what can be read is "
                         f"{', '.join((*_NORMS, _SCALED))}")  # fmt: skip
    subtracts = bool(cfg.get("apply_b_dec_to_input", not transcoder))
    if transcoder and (name != "none" or subtracts):
        what = f"normalize_activations={name!r}" if name != "none" else "apply_b_dec_to_input"
        raise InputError(
            f"{where} is a transcoder with {what} in cfg.json, which SAELens does not undo; it cannot be read"
        )
    return {"subtracts_b_dec": subtracts, "normalization": "none" if name == _SCALED else name}


def _rescale(read: dict[str, Any], cfg: dict[str, Any], found: dict[str, Tensor], where: str) -> None:
    """Fold what is done to activations between encoder and decoder."""
    factors = found.get("finetuning_scaling_factor", found.get("scaling_factor"))
    if factors is not None and not bool((factors == 1).all()):
        if not cfg.get("finetuning_scaling_factor"):
            raise InputError(f"{where} holds factors of features (scaling_factor), and cfg.json does not say that they "
                             "are used (finetuning_scaling_factor)")  # fmt: skip
        read["W_dec"] = factors[:, None] * read["W_dec"]
    if cfg.get("rescale_acts_by_decoder_norm"):
        norms = read["W_dec"].norm(dim=-1)
        divided = read["W_dec"] / torch.where(norms == 0, 1.0, norms)[:, None]
        read |= {"W_enc": norms[:, None] * read["W_enc"], "b_enc": norms * read["b_enc"], "W_dec": divided}


def _scale(read: dict[str, Any], cfg: dict[str, Any], scaling: float | None, where: str) -> None:
    """Fold a scaling of x by a constant: f of s x, and what is decoded over s."""
    if cfg.get("normalize_activations") not in (_SCALED, True):
        if scaling is not None:
            raise InputError(f"scaling={scaling} is for files with normalize_activations={_SCALED!r}; {where} has none")
        return
    if scaling is None:
        raise InputError(
            f"{where} has normalize_activations={_SCALED!r} in cfg.json without the factor, which SAELens keeps "
            "elsewhere; give scaling=, sqrt(d_model) over the mean norm of its inputs"
        )
    if read["subtracts_b_dec"]:  # it is subtracted behind the scaling
        read |= {"b_enc": read["b_enc"] - read["W_enc"] @ read["b_dec"], "subtracts_b_dec": False}
    read |= {"W_enc": read["W_enc"] * scaling, "W_dec": read["W_dec"] / scaling, "b_dec": read["b_dec"] / scaling}
