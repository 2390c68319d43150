"""Every format against its own arithmetic, written out by hand, and what is refused of files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.dictionaries import Dictionary
from interp.dictionaries.spliced import splice
from interp.errors import InputError
from tests.tiny import D_MODEL, LAYERS, shared

FEATURES, WIDTH = 7, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = draw(4, 3, WIDTH, seed=9) + 0.5


def compare(d: Dictionary, features: Tensor, out: Tensor) -> None:
    assert 0 < int((features > 0).sum()) < features.numel()
    torch.testing.assert_close(d.encode(X), features)
    torch.testing.assert_close(d.decode(d.encode(X), X), out)


# SAELens

STANDARD = {"architecture": "standard", "hook_name": "blocks.2.hook_resid_post", "model_name": "gpt2-small"}


def lens_weights() -> dict[str, Tensor]:
    named = {"W_enc": draw(WIDTH, FEATURES), "b_enc": draw(FEATURES), "W_dec": draw(FEATURES, WIDTH, seed=1)}
    return {**named, "b_dec": draw(WIDTH, seed=2)}


def lens(folder: Path, cfg: dict[str, Any], **more: Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps({**STANDARD, "d_in": WIDTH, "d_sae": FEATURES, **cfg}))
    held = {name: value.contiguous() for name, value in {**lens_weights(), **more}.items()}
    save_file(held, folder / "sae_weights.safetensors")
    return folder


def topk(z: Tensor, k: int) -> Tensor:
    kept = z.topk(k, -1)
    return torch.zeros_like(z).scatter(-1, kept.indices, kept.values.relu())


@pytest.mark.parametrize("subtracts", [True, False])
def test_saelens_standard(tmp_path: Path, subtracts: bool) -> None:
    w = lens_weights()
    d = Dictionary.load(lens(tmp_path, {"apply_b_dec_to_input": subtracts}))
    f = torch.relu((X - w["b_dec"] * subtracts) @ w["W_enc"] + w["b_enc"])
    compare(d, f, f @ w["W_dec"] + w["b_dec"])
    assert (d.layer, d.site, d.model) == (2, "residual", "gpt2-small")


def test_saelens_jumprelu(tmp_path: Path) -> None:
    w, threshold = lens_weights(), draw(FEATURES, seed=3).abs()
    d = Dictionary.load(
        lens(tmp_path, {"architecture": "jumprelu", "apply_b_dec_to_input": False}, threshold=threshold)
    )
    z = X @ w["W_enc"] + w["b_enc"]
    f = torch.relu(z) * (z > threshold)
    compare(d, f, f @ w["W_dec"] + w["b_dec"])


def test_saelens_gated(tmp_path: Path) -> None:
    w = lens_weights()
    gates = {name: draw(FEATURES, seed=i + 4) for i, name in enumerate(("b_gate", "b_mag", "r_mag"))}
    d = Dictionary.load(lens(tmp_path, {"architecture": "gated"}, **gates))
    x = X - w["b_dec"]
    magnitude = torch.relu(x @ (w["W_enc"] * gates["r_mag"].exp()) + gates["b_mag"])
    f = (x @ w["W_enc"] + gates["b_gate"] > 0) * magnitude
    compare(d, f, f @ w["W_dec"] + w["b_dec"])
    assert int((f > 0).sum()) < int((magnitude > 0).sum())  # the gates close some


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_saelens_topk(tmp_path: Path, rescaled: bool, old: bool) -> None:
    new_cfg = {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": rescaled}
    old_cfg = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}, "rescale_acts_by_decoder_norm": rescaled}
    w, d = lens_weights(), Dictionary.load(lens(tmp_path, old_cfg if old else new_cfg))
    norms = w["W_dec"].norm(dim=-1) if rescaled else torch.ones(FEATURES, dtype=torch.float64)
    f = topk(((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, 2)
    compare(d, f, (f / norms) @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_saelens_norms_of_each_x(tmp_path: Path, norm: str) -> None:
    w, d = lens_weights(), Dictionary.load(lens(tmp_path, {"normalize_activations": norm}))
    if norm == "layer_norm":
        mean, std = X.mean(-1, keepdim=True), (X - X.mean(-1, keepdim=True)).std(-1, keepdim=True)
        inside, back = (X - mean) / (std + 1e-5), lambda out: out * std + mean
    else:
        factor = WIDTH**0.5 / X.norm(dim=-1, keepdim=True)
        inside, back = X * factor, lambda out: out / factor
    f = torch.relu((inside - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    compare(d, f, back(f @ w["W_dec"] + w["b_dec"]))


@pytest.mark.parametrize("said", ["expected_average_only_in", True])
def test_saelens_scaling_is_folded_as_saelens_folds_it(tmp_path: Path, said: Any) -> None:
    w, s = lens_weights(), 1.7
    folder = lens(tmp_path, {"normalize_activations": said})
    d = Dictionary.load(folder, scaling=s)
    encoder, decoder, b_dec = w["W_enc"] * s, w["W_dec"] / s, w["b_dec"] / s  # fold_activation_norm_scaling_factor
    f = torch.relu((X - b_dec) @ encoder + w["b_enc"])
    compare(d, f, f @ decoder + b_dec)
    with pytest.raises(InputError, match="give scaling="):
        Dictionary.load(folder)


def test_saelens_factors_of_features(tmp_path: Path) -> None:
    w, factors = lens_weights(), draw(FEATURES, seed=6)
    d = Dictionary.load(lens(tmp_path, {"finetuning_scaling_factor": True}, scaling_factor=factors))
    f = torch.relu((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    compare(d, f, (f * factors) @ w["W_dec"] + w["b_dec"])
    with pytest.raises(InputError, match="does not say that they are used"):
        Dictionary.load(lens(tmp_path, {}, scaling_factor=factors))


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_transcoder"])
def test_saelens_transcoders(tmp_path: Path, kind: str) -> None:
    w, more = lens_weights(), {}
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    if kind == "skip_transcoder":
        more["W_skip"] = draw(WIDTH, WIDTH, seed=7)
    if kind == "jumprelu_transcoder":
        more["threshold"] = draw(FEATURES, seed=3).abs()
    cfg = {"architecture": kind, "apply_b_dec_to_input": False, "metadata": hooks, "d_out": WIDTH}
    d = Dictionary.load(lens(tmp_path, cfg, **more))
    z = X @ w["W_enc"] + w["b_enc"]
    f = torch.relu(z) * (z > more.get("threshold", torch.zeros(FEATURES)))
    skip = X @ more["W_skip"].T if "W_skip" in more else 0.0
    compare(d, f, f @ w["W_dec"] + w["b_dec"] + skip)
    assert (d.layer, d.site, d.reads, d.writes) == (1, "transcoder", "normalized", "added")


# eai-sparsify


def sparsify(folder: Path, cfg: dict[str, Any], **more: Tensor) -> tuple[Path, dict[str, Tensor]]:
    folder.mkdir(parents=True)
    w = {"encoder.weight": draw(FEATURES, WIDTH), "encoder.bias": draw(FEATURES, seed=1)}
    w |= {"W_dec": draw(FEATURES, WIDTH, seed=2), "b_dec": draw(WIDTH, seed=3), **more}
    (folder / "cfg.json").write_text(json.dumps({"activation": "topk", "k": 2, "d_in": WIDTH, **cfg}))
    save_file(w, folder / "sae.safetensors")
    return folder, w


@pytest.mark.parametrize(
    ("name", "place"),
    [("layers.3", (3, "residual")), ("layers.0.mlp", (0, "mlp")), ("h.2.attn", (2, "attention")),
     ("model.layers.1.self_attn", (1, "attention")), ("embed_tokens", (0, "embedding"))],
)  # fmt: skip
def test_sparsify(tmp_path: Path, name: str, place: tuple[int, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m"}))
    folder, w = sparsify(tmp_path / name, {})
    d = Dictionary.load(folder)
    f = topk(torch.relu((X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]), 2)
    compare(d, f, f @ w["W_dec"] + w["b_dec"])
    assert ((d.layer, d.site), d.model) == (place, "EleutherAI/pythia-70m")


@pytest.mark.parametrize("skip", [False, True])
def test_sparsify_transcoders_read_without_b_dec(tmp_path: Path, skip: bool) -> None:
    more = {"W_skip": draw(WIDTH, WIDTH, seed=5)} if skip else {}
    folder, w = sparsify(tmp_path / "layers.4.mlp", {"transcode": True, "skip_connection": skip}, **more)
    d = Dictionary.load(folder)
    f = topk(torch.relu(X @ w["encoder.weight"].T + w["encoder.bias"]), 2)
    compare(d, f, f @ w["W_dec"] + w["b_dec"] + (X @ w["W_skip"].mT if skip else 0.0))
    assert (d.layer, d.site, d.reads, d.writes) == (4, "transcoder", "normed", "mlp_out")


def test_folders_beside_each_other_are_loaded_by_layer(tmp_path: Path) -> None:
    for name in ("layers.10", "layers.2", "layers.2.mlp"):
        sparsify(tmp_path / name, {})
    found = Dictionary.load_all(tmp_path, model="mine")
    assert [(d.layer, d.site, d.model) for d in found] == [
        (2, "residual", "mine"), (2, "mlp", "mine"), (10, "residual", "mine"),
    ]  # fmt: skip


# Gemma Scope


@pytest.mark.parametrize(
    ("inside", "place"),
    [("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", (12, "residual", "normed", "mlp_out", "gemma-2-2b")),
     ("gemma-scope-9b-it-mlp/layer_3/width_16k/average_l0_8", (3, "mlp", "normed", "added", "gemma-2-9b-it")),
     ("gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_7",
      (5, "transcoder", "normalized", "added", "gemma-2-2b"))],
)  # fmt: skip
def test_gemma_scope(tmp_path: Path, inside: str, place: tuple[Any, ...]) -> None:
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    w = {**lens_weights(), "threshold": draw(FEATURES, seed=3).abs()}
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in w.items()})
    d = Dictionary.load(folder)
    z = X @ w["W_enc"] + w["b_enc"]
    f = torch.relu(z) * (z > w["threshold"])
    compare(d, f, f @ w["W_dec"] + w["b_dec"])
    assert (d.layer, d.site, d.reads, d.writes, d.model) == place
    assert Dictionary.load(folder / "params.npz", layer=1, model=None).layer == 1


def test_gemma_scope_of_heads_and_of_no_place_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2b-pt-att" / "layer_1" / "x"
    folder.mkdir(parents=True)
    arrays = {**lens_weights(), "threshold": draw(FEATURES, seed=3).abs()}
    for path in (folder / "params.npz", tmp_path / "params.npz"):
        np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
    with pytest.raises(InputError, match="reads heads in front of their output matrix"):
        Dictionary.load(folder)
    with pytest.raises(InputError, match="does not say its layer and site; give layer= and site="):
        Dictionary.load(tmp_path / "params.npz")
    assert Dictionary.load(tmp_path / "params.npz", layer=0, site="transcoder").reads == "normalized"


# circuit-tracer


def tracer(
    folder: Path, old: bool = False, skip: bool = False, jump: bool = False, config: str = ""
) -> dict[str, Tensor]:
    w = {"W_enc": draw(FEATURES, WIDTH), "W_dec": draw(FEATURES, WIDTH, seed=1)}
    w |= {"b_enc": draw(FEATURES, seed=2), "b_dec": draw(WIDTH, seed=3)}
    if skip:
        w["W_skip"] = draw(WIDTH, WIDTH, seed=4)
    if jump:
        w["activation_function.threshold"] = draw(FEATURES, seed=5).abs()
    for layer in (0, 1):
        turned = w["W_dec"].T.contiguous() if old else w["W_dec"]
        save_file({**w, "W_dec": turned}, folder / f"layer_{layer}.safetensors")
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
    (folder / "config.yaml").write_text(f"model_name: owner/llama\nmodel_kind: transcoder_set\n{hooks}{config}")
    return w


@pytest.mark.parametrize(
    "kind", [{}, {"old": True}, {"skip": True}, {"jump": True}, {"config": "activation: topk\nk: 2\n"}]
)
def test_circuit_tracer(tmp_path: Path, kind: dict[str, Any]) -> None:
    w = tracer(tmp_path, **kind)
    d = Dictionary.load(tmp_path, layer=1)
    z = X @ w["W_enc"].T + w["b_enc"]
    f = topk(z, 2) if "config" in kind else z * (z > w.get("activation_function.threshold", torch.zeros(())))
    compare(d, f, f @ w["W_dec"] + w["b_dec"] + (X @ w["W_skip"].T if "W_skip" in w else 0.0))
    assert (d.layer, d.site, d.reads, d.writes, d.model) == (1, "transcoder", "normed", "mlp_out", "owner/llama")
    assert [one.layer for one in Dictionary.load_all(tmp_path)] == [0, 1]


def test_sets_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    tracer(tmp_path)
    with pytest.raises(InputError, match=r"holds transcoders of layers 0, 1; give layer=, or .*load_all"):
        Dictionary.load(tmp_path)
    with pytest.raises(InputError, match=r"layer=5 is not in .* which has 0, 1"):
        Dictionary.load(tmp_path, layer=5)
    tracer(tmp_path, config="model_kind: crosscoder\n")
    with pytest.raises(InputError, match="transcoder_set and cross_layer_transcoder can be read"):
        Dictionary.load(tmp_path, layer=0)
    tracer(tmp_path, config="transcoders: ['hf://owner/repository/layer_0.safetensors']\n")
    with pytest.raises(InputError, match="lists files of the hub"):
        Dictionary.load(tmp_path, layer=0)
    tracer(tmp_path, config="feature_input_hook: mlp.hook_post\n")
    with pytest.raises(InputError, match=r"the MLP's neurons.*; a transcoder reads mlp.hook_in"):
        Dictionary.load(tmp_path, layer=0)


def cross_layer(folder: Path, n_layers: int, jump: bool, width: int = WIDTH) -> list[dict[str, Tensor]]:
    found = []
    for i in range(n_layers):
        w = {f"W_enc_{i}": draw(FEATURES, width, seed=i), f"b_enc_{i}": draw(FEATURES, seed=10 + i)}
        w |= {f"b_dec_{i}": draw(width, seed=20 + i)}
        w |= {f"threshold_{i}": draw(FEATURES, seed=30 + i).abs()} if jump else {}
        save_file(w, folder / f"W_enc_{i}.safetensors")
        decoder = {f"W_dec_{i}": draw(FEATURES, n_layers - i, width, seed=40 + i)}
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
        found.append({name.rsplit("_", 1)[0]: one for name, one in {**w, **decoder}.items()})
    hooks = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text(f"model_name: owner/llama\nmodel_kind: cross_layer_transcoder\n{hooks}")
    return found


@pytest.mark.parametrize("jump", [False, True])
def test_cross_layer_transcoders(tmp_path: Path, jump: bool) -> None:
    """The format's own arithmetic: an MLP is what the features of its layer and of all in front of it write there."""
    weights, found = cross_layer(tmp_path, 3, jump), Dictionary.load_all(tmp_path)
    assert [(one.layer, one.n_later, one.reads, one.writes, one.site) for one in found] == [
        (i, 2 - i, "stream", "added", "transcoder") for i in range(3)
    ]
    features = []
    for w, one in zip(weights, found, strict=True):
        z = X @ w["W_enc"].T + w["b_enc"]
        features.append(z * (z > w["threshold"]) if jump else z.relu())
        assert torch.allclose(one.encode(X), features[-1])
    for layer in range(3):
        by_hand = (
            sum(features[i] @ weights[i]["W_dec"][:, layer - i] for i in range(layer + 1)) + weights[layer]["b_dec"]
        )
        parts = [f @ one.W_later[layer - one.layer - 1] for f, one in zip(features[:layer], found, strict=False)]
        assert torch.allclose(sum(parts) + found[layer].decode(features[layer]), by_hand, atol=1e-6)
    assert "and 2 later layers" in repr(found[0])
    assert found[0].digest != replace(found[0], W_later=found[0].W_later + 1).digest


def test_cross_layer_transcoders_are_run_by_traces_alone_and_belong_to_a_model(tmp_path: Path) -> None:
    model = shared("llama")
    cross_layer(tmp_path, LAYERS + 1, False, D_MODEL)
    with pytest.raises(InputError, match=r"writes to 3 layers behind its own; .* it belongs to another model"):
        Dictionary.load(tmp_path, 0, model=None).check(model)
    cross_layer(tmp_path, LAYERS, False, D_MODEL)
    (tmp_path / f"W_enc_{LAYERS}.safetensors").unlink()
    with pytest.raises(InputError, match=r"a layer of a cross-layer transcoder, which circuits.trace alone runs"):
        splice(model, torch.tensor([[1, 2, 3]]), Dictionary.load(tmp_path, 0, model=None))
    save_file({"W_dec_1": draw(FEATURES, 1, D_MODEL)}, tmp_path / "W_dec_1.safetensors")
    with pytest.raises(InputError, match=r"holds W_dec_1 of shape .*; with 3 layers it must be"):
        Dictionary.load(tmp_path, 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "crosscoder"}, "architecture='crosscoder' in cfg.json; what can be read is standard, topk"),
    ({"architecture": "gated"}, "holds no b_gate, b_mag, r_mag; it holds W_dec, W_enc, b_dec, b_enc"),
    ({"architecture": "jumprelu"}, "holds no threshold"),
    ({"architecture": "topk"}, "without k"),
    ({"activation_fn": "tanh-relu"}, "activation_fn='tanh-relu'"),
    ({"normalize_activations": "rms"}, "normalize_activations='rms'"),
    ({"hook_name": "blocks.1.attn.hook_z"}, "the heads in front of their output matrix"),
    ({"hook_name": "blocks.1.hook_resid_mid"}, "the residual stream between attention and MLP"),
    ({"hook_name": "somewhere"}, "whose layer cannot be read; give layer= and site="),
    ({"hook_name": ""}, "does not say its layer and site"),
    ({"hook_head_index": 3}, "is of one head"),
    ({"reshape_activations": "hook_z"}, "hook_z"),
    ({"architecture": "transcoder", "hook_name_out": "blocks.3.hook_mlp_out", "hook_name": "blocks.2.mlp.hook_in"},
     "to the same MLP's output"),
]  # fmt: skip


@pytest.mark.parametrize(("cfg", "message"), REFUSED)
def test_settings_that_are_not_known_are_refused(tmp_path: Path, cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dictionary.load(lens(tmp_path, cfg))


def _truncated(path: Path) -> None:
    lens(path, {})
    whole = (path / "sae_weights.safetensors").read_bytes()
    (path / "sae_weights.safetensors").write_bytes(whole[:-50])


def _no_json(path: Path) -> None:
    (lens(path, {}) / "cfg.json").write_text("{")


def _list(path: Path) -> None:
    (lens(path, {}) / "cfg.json").write_text("[]")


def _no_cfg(path: Path) -> None:
    (lens(path, {}) / "cfg.json").unlink()


def _pickled_array(path: Path) -> None:
    np.savez(path / "params.npz", W_enc=np.array([object()]))


def _half_npz(path: Path) -> None:
    (path / "params.npz").write_bytes(b"PK\x03\x04")


DAMAGED: list[tuple[Callable[[Path], None], str]] = [
    (_truncated, "is damaged"), (_no_json, "cfg.json of .* is damaged"), (_list, "must hold settings by name"),
    (_no_cfg, "cfg.json of .* is damaged: .*No such file"), (_pickled_array, "holds more than arrays"),
    (_half_npz, "is damaged"), (lambda path: None, "has no format that is known"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        Dictionary.load(tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    path.write_bytes(pickle.dumps({"W_enc": 1}))
    for given in (path, tmp_path):
        with pytest.raises(InputError, match="is a pickle, which may run code when it is read"):
            Dictionary.load(given)
    with pytest.raises(InputError, match="does not exist; give a folder of SAELens"):
        Dictionary.load(tmp_path / "missing")
