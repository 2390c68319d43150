"""circuit-tracer's transcoder sets: `config.yaml`, and `layer_{i}.safetensors` for each layer;

or, of a cross-layer transcoder, `W_enc_{i}.safetensors` (`W_enc_{i}`, `b_enc_{i}`, `b_dec_{i}`, `threshold_{i}`) and
`W_dec_{i}.safetensors` (`W_dec_{i}`, `[feature, layer, d_model]` for layer i and all behind it).

`W_enc` is `[feature, d_model]`; `W_dec` too, or `[d_model, feature]` in older files. JumpReLU where there is
`activation_function.threshold`, TopK where the configuration says so, else ReLU; `W_skip` is `[d_model out, d_model
in]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from interp.dictionaries.hooks import places_of_transcoder
from interp.dictionaries.reading import need, settings, tensors
from interp.errors import InputError

CONFIG = "config.yaml"
_CROSS_LAYER = "cross_layer_transcoder"
_START = {"transcoder_set": "layer_", _CROSS_LAYER: "W_enc_"}  # of the files' names, by kind


def layers_of(folder: Path) -> dict[int, Path]:
    """The file of each layer. Raises `InputError` where there are none here."""
    where, config = f"the transcoder set {str(folder)!r}", settings(folder / CONFIG)
    start = _START.get(kind := config.get("model_kind", "transcoder_set"))
    if start is None:
        raise InputError(f"{where} has model_kind={kind!r} in {CONFIG}; {' and '.join(_START)} can be read")
    listed = config.get("transcoders")
    if isinstance(listed, list):
        paths = {i: one.get("filepath") if isinstance(one, dict) else one for i, one in enumerate(listed)}
        if away := [str(path) for path in paths.values() if str(path).startswith("hf://")]:
            raise InputError(f"{where} lists files of the hub, such as {away[0]!r}; download them, and load each")
        return {layer: folder / str(path) for layer, path in paths.items()}
    found = {int(path.stem.removeprefix(start)): path for path in folder.glob(f"{start}*.safetensors")
             if path.stem.removeprefix(start).isdigit()}  # fmt: skip
    if not found:
        raise InputError(f"{where} holds no {start}0.safetensors and so on")
    return dict(sorted(found.items()))


def read(folder: Path, layer: int) -> dict[str, Any]:
    """What `Dictionary.from_tensors` takes of one layer of a set."""
    paths, config = layers_of(folder), settings(folder / CONFIG)
    where = f"the transcoder set {str(folder)!r}"
    if layer not in paths:
        raise InputError(f"layer={layer} is not in {where}, which has {', '.join(map(str, paths))}")
    place = places_of_transcoder(
        str(config.get("feature_input_hook", "")), str(config.get("feature_output_hook", "")), where
    )
    if config.get("model_kind") == _CROSS_LAYER:
        return {**place, "layer": layer, "model": config.get("model_name"), **_cross_layer(paths, layer)}
    found = tensors(paths[layer])
    encoder, decoder, b_enc, b_dec = need(found, ("W_enc", "W_dec", "b_enc", "b_dec"), f"{str(paths[layer])!r}")
    shape = len(b_enc), len(b_dec)
    read: dict[str, Any] = {**place, "layer": layer, "b_enc": b_enc, "b_dec": b_dec, "model": config.get("model_name")}
    read |= {"W_enc": _turned(encoder, shape), "W_dec": _turned(decoder, shape), "W_skip": found.get("W_skip")}
    if (activation := config.get("activation")) not in (None, "relu", "jump_relu", "topk"):
        raise InputError(f"{where} has activation={activation!r} in {CONFIG}; relu, jump_relu and topk can be read")
    if activation == "topk":
        read["k"] = config.get("k")
    return {**read, "threshold": found.get("activation_function.threshold")}


def _cross_layer(paths: dict[int, Path], layer: int) -> dict[str, Any]:
    """One layer of a cross-layer transcoder."""
    other = paths[layer].with_name(f"W_dec_{layer}.safetensors")
    found, named = tensors(paths[layer]), [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "W_dec")]
    encoder, b_enc, b_dec = need(found, tuple(named[:3]), f"{str(paths[layer])!r}")
    (decoder,) = need(tensors(other), (named[3],), f"{str(other)!r}")
    if decoder.shape != (shape := (len(b_enc), max(paths) + 1 - layer, len(b_dec))):
        raise InputError(
            f"{str(other)!r} holds {named[3]} of shape {list(decoder.shape)}; with {max(paths) + 1} layers it must be "
            f"{list(shape)}"
        )
    read: dict[str, Any] = {"W_enc": encoder, "b_enc": b_enc, "b_dec": b_dec, "W_dec": decoder[:, 0]}
    read |= {"threshold": found.get(f"threshold_{layer}")}
    return {**read, "W_later": decoder[:, 1:].transpose(0, 1)} if shape[1] > 1 else read


def _turned(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """`[feature, d_model]`, also of a file that has it the other way around."""
    return matrix.T if tuple(matrix.shape) == shape[::-1] != shape else matrix
