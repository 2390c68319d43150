"""Where a dictionary belongs, from the name of the hook or the module that it was trained at.

TransformerLens calls a place `blocks.3.hook_resid_post`, others name the module whose output is meant: `layers.3`,
`model.layers.3.mlp`, `transformer.h.3.attn`.
"""

from __future__ import annotations

import re
from typing import Any

from interp.errors import InputError

_LAYER = re.compile(r"^(?:.*\.)?(?:blocks|layers|h)[._](\d+)(?:[._](.+))?$")
_EMBEDDINGS = ("hook_embed", "embed_tokens", "wte", "embed_in", "embed")
_LENS_OUT: dict[str, dict[str, Any]] = {
    "hook_resid_post": {"site": "residual"},
    "hook_attn_out": {"site": "attention"},
    "hook_mlp_out": {"site": "mlp", "writes": "added"},  # behind a norm that follows the MLP, where there is one
    "mlp.hook_out": {"site": "mlp", "writes": "mlp_out"},
}
_MODULE_OUT: dict[str, dict[str, Any]] = {
    "": {"site": "residual"},
    "mlp": {"site": "mlp", "writes": "mlp_out"},
    "self_attn": {"site": "attention"},
    "attention": {"site": "attention"},
    "attn": {"site": "attention"},
}
_IN = {"mlp.hook_in": "normed", "mlp": "normed", "ln2.hook_normalized": "normalized"}
_IN |= dict.fromkeys(("hook_resid_mid", "hook_mlp_in"), "stream")
_NOT_HELD = {
    "hook_resid_mid": "the residual stream between attention and MLP",
    "hook_z": "the heads in front of their output matrix",
    "attn.hook_z": "the heads in front of their output matrix",
    "hook_mlp_in": "the residual stream in front of the MLP's norm",
    "mlp.hook_post": "the MLP's neurons",
    "mlp.hook_pre": "the MLP's neurons",
}


def place_of(hook: str, where: str) -> dict[str, Any]:
    """`layer`, `site` and (of MLPs) `writes` of an autoencoder; `where` is what errors call the file.

    >>> place_of("blocks.3.hook_mlp_out", "cfg.json")
    {'layer': 3, 'site': 'mlp', 'writes': 'added'}
    >>> place_of("blocks.3.hook_resid_pre", "cfg.json")
    {'layer': 2, 'site': 'residual'}
    """
    if hook.split(".")[-1] in _EMBEDDINGS:
        return {"layer": 0, "site": "embedding"}
    layer, rest = _split(hook, where)
    if rest == "hook_resid_pre":
        return {"layer": layer - 1, "site": "residual"} if layer else {"layer": 0, "site": "embedding"}
    found = {**_MODULE_OUT, **_LENS_OUT}.get(rest)
    if found is None:
        raise _unknown(hook, rest, where)
    return {"layer": layer, **found}


def places_of_transcoder(reads: str, writes: str, where: str) -> dict[str, Any]:
    """`layer` (None where the hooks name none), `site`, `reads` and `writes` of a transcoder."""
    layer, first = _split(reads, where, optional=True)
    other, second = _split(writes, where, optional=True)
    if first not in _IN:
        raise _unknown(reads, first, where, "; a transcoder reads mlp.hook_in, ln2.hook_normalized or hook_resid_mid")
    found = {**_MODULE_OUT, **_LENS_OUT}.get(second, {})
    if found.get("site") != "mlp" or layer != other:
        raise InputError(
            f"{where}: a transcoder from {reads!r} to {writes!r} is not from an MLP's input to the same MLP's output"
        )
    return {"layer": layer, "site": "transcoder", "reads": _IN[first], "writes": found["writes"]}


def _split(hook: str, where: str, optional: bool = False) -> tuple[Any, str]:
    if match := _LAYER.match(hook):
        return int(match[1]), match[2] or ""
    if optional:
        return None, hook
    raise InputError(f"{where} was trained at {hook!r}, whose layer cannot be read; give layer= and site=")


def _unknown(hook: str, rest: str, where: str, advice: str = "") -> InputError:
    what = f" ({_NOT_HELD[rest]})" if rest in _NOT_HELD else ""
    return InputError(
        f"{where} was trained at {hook!r}{what}, where dictionaries are not run{advice}; those of the embedding, the "
        "residual stream behind a layer, attention's and MLPs' outputs and MLP transcoders are"
    )
