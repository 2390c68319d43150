from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from interp import gguf_cache
from interp.errors import InputError
from interp.files import locked
from interp.models import MODELS, load_model
from interp.registry import ModelEntry, Package
from tests.processes import ended, fork
from tests.tiny import tiny_module

TOKENS = torch.tensor([[0, 7, 20, 33, 8, 52, 3, 11, 40]])

# as llama.cpp names them
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path, module: Any) -> None:
    """Write a tiny Llama as llama.cpp's converter would."""
    config = module.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    words = ["<s>", "</s>", *"abcdefghij", "ab"]
    words += [f"<unused{i}>" for i in range(config.vocab_size - len(words))]
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3] + [1] * (len(words) - 2))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in module.state_dict().items():
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        array = tensor.float().numpy()
        if n := heads.get(name.split(".")[-2]):  # llama.cpp rotates neighbouring coordinates
            array = array.reshape(n, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf-1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf", tiny_module("llama", torch.float32))
    return tmp_path / "tiny.gguf"


@pytest.fixture
def registered(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny GGUF file as the packaged model "packaged"."""
    package = Package("tiny-package==1.0", "tiny_package", file.name, gguf_cache.file_sha256(file))
    monkeypatch.setitem(MODELS, "packaged", ModelEntry("packaged", "a test", 1, "no/where", package))
    monkeypatch.setattr(Package, "find", lambda self: file if file.exists() else None)
    return file


def no_conversion(*args: Any) -> None:
    raise AssertionError("nothing is to be dequantised")


def expected() -> torch.Tensor:
    with torch.no_grad():
        return tiny_module("llama", torch.float32)(TOKENS).logits


def test_gguf_gives_the_model_it_was_made_from(cache: Path, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(file)
    torch.testing.assert_close(model(TOKENS), expected())
    assert model.to_tokens("ab").tolist() == [[0, 12]]
    assert model.tokenizer("ab")["input_ids"] == [0, 12]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert load_model(str(file), dtype="float64")(TOKENS).dtype == torch.float64
    assert capfd.readouterr().err == ""


def test_second_load_converts_nothing(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(file)
    monkeypatch.setattr(gguf_cache, "_convert", no_conversion)
    file.rename(file.with_name("renamed.gguf"))  # the content counts, not the name
    torch.testing.assert_close(load_model(file.with_name("renamed.gguf"))(TOKENS), expected())


def test_cache_layout(cache: Path, file: Path) -> None:
    load_model(file)
    (folder,) = cache.iterdir()
    assert folder.name == gguf_cache.file_sha256(file)
    record = json.loads((folder / "checksums.json").read_text())
    assert record["source"] == "tiny.gguf"
    assert {path.name for path in folder.iterdir()} == {*record["files"], "checksums.json"}
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_a_kill_while_building_leaves_nothing(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gguf_cache._convert

    def interrupted(source: Path, folder: Path) -> None:
        real(source, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_cache, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_model(file)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(cache.parent))
    torch.testing.assert_close(load_model(file)(TOKENS), expected())


def test_two_processes_may_build_at_once(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gguf_cache._convert

    def overtaken(source: Path, folder: Path) -> None:
        monkeypatch.setattr(gguf_cache, "_convert", real)
        load_model(file)
        real(source, folder)

    monkeypatch.setattr(gguf_cache, "_convert", overtaken)
    torch.testing.assert_close(load_model(file)(TOKENS), expected())
    assert len(list(cache.iterdir())) == 1


def test_two_real_processes_on_an_empty_cache(cache: Path, file: Path) -> None:
    for i in range(200):  # both remove them, each under the eyes of the other
        (cache / f".building-{i}").mkdir(parents=True)
        os.utime(cache / f".building-{i}", (time.time() - 3600,) * 2)
    sha256 = gguf_cache.file_sha256(file)

    def work() -> None:
        for _ in range(3):
            gguf_cache.load(sha256, file, lambda folder: (folder / "model.safetensors").read_bytes())

    assert [ended(child) for child in [fork(work), fork(work)]] == [0, 0]
    assert [path.name for path in cache.iterdir()] == [sha256]


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_builds_is_not(cache: Path, file: Path) -> None:
    dead, running, young = (cache / f".building-{name}" for name in ("dead", "running", "young"))
    for folder in (dead, running, young):
        folder.mkdir(parents=True)
    for folder in (dead, running):
        os.utime(folder, (time.time() - 1e6,) * 2)
    with locked(running):
        load_model(file)
    assert not dead.exists()
    assert running.exists()
    assert young.exists()


def test_leftovers_that_another_process_has_just_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / ".building-gone"]))
    gguf_cache._remove_leftovers(cache)


def test_without_locks_only_age_tells_what_is_dead(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.files.fcntl", None)
    old, older = cache / ".building-old", cache / ".building-older"
    for folder, hours in ((old, 23), (older, 25)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 3600 * hours,) * 2)
    gguf_cache._remove_leftovers(cache)
    assert list(cache.iterdir()) == [old]


def test_a_damaged_folder_that_another_process_has_replaced_is_left_alone(cache: Path, file: Path) -> None:
    load_model(file)
    (folder,) = cache.iterdir()
    seen = gguf_cache._identity(folder)
    assert seen is not None
    folder.rename(cache / "elsewhere")  # kept, or the new folder could get its number
    load_model(file)
    gguf_cache._set_aside(folder, seen)
    assert folder.is_dir()
    now = gguf_cache._identity(folder)
    assert now is not None
    gguf_cache._set_aside(folder, now)
    assert list(cache.iterdir()) == [cache / "elsewhere"]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("model.safetensors", "flip", "model.safetensors does not have the checksum"),
        ("model.safetensors", "truncate", "model.safetensors does not have the checksum"),
        ("config.json", "truncate", "config.json does not have the checksum"),
        ("tokenizer.json", "remove", "tokenizer.json is missing"),
        ("checksums.json", "remove", "checksums.json is missing"),
        ("checksums.json", "truncate", "checksums.json cannot be read"),
    ],
)
def test_a_damaged_cache_is_built_again(
    cache: Path, file: Path, name: str, damage: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    load_model(file)
    (folder,) = cache.iterdir()
    content = bytearray((folder / name).read_bytes())
    if damage == "remove":
        (folder / name).unlink()
    else:
        content[-1] ^= 1
        (folder / name).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    torch.testing.assert_close(load_model(file)(TOKENS), expected())
    assert reason in caplog.text
    assert "building it again" in caplog.text
    caplog.clear()
    load_model(file)
    assert caplog.text == ""


@pytest.mark.parametrize("instead", ["file", "dangling link", "unlisted"])
def test_what_stands_in_the_place_of_a_cache_folder_is_built_again(cache: Path, file: Path, instead: str) -> None:
    load_model(file)
    (folder,) = cache.iterdir()
    if instead == "unlisted":
        (folder / "checksums.json").write_text('{"files": {}}')
        (folder / "config.json").write_text("{}")
    else:
        shutil.rmtree(folder)
        folder.write_text("not a folder") if instead == "file" else folder.symlink_to(cache / "nowhere")
    torch.testing.assert_close(load_model(file)(TOKENS), expected())
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_registry_names_look_in_the_cache_before_the_package(
    cache: Path, registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_model("packaged").cfg.model_name == "packaged"
    registered.unlink()  # the package is no longer installed
    monkeypatch.setattr(gguf_cache, "_convert", no_conversion)
    torch.testing.assert_close(load_model("packaged")(TOKENS), expected())


def test_a_damaged_cache_without_its_source_is_an_error(cache: Path, registered: Path) -> None:
    load_model("packaged")
    registered.unlink()
    (folder,) = cache.iterdir()
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is damaged \(config\.json is missing\) and cannot be rebuilt"):
        load_model("packaged")


def test_a_package_with_another_checksum_is_refused(cache: Path, registered: Path) -> None:
    with registered.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="does not have the checksum"):
        load_model("packaged")
    assert not cache.exists()


def test_no_gguf_file(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(InputError, match="is no GGUF file; give a"):
        load_model(tmp_path / "model.gguf")


def test_truncated_gguf_file(cache: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(InputError, match="a GGUF file that transformers cannot read"):
        load_model(file)
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(tmp_path / "occupied"))
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be written .*FAITHFUL_CIRCUITS_CACHE"):
        load_model(file)


def test_a_full_disk_leaves_nothing(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_cache, "_convert", full)
    with pytest.raises(InputError, match="No space left on device"):
        load_model(file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("fails", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_full_disk_while_dequantising(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """What safetensors, transformers and tokenizers raise on a full disk, each a class of its own."""
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig

    def full(kind: type[Exception]) -> Any:
        def write(*args: Any, **more: Any) -> None:
            raise kind("No space left on device (os error 28)")

        return write

    if fails == "model.safetensors":
        monkeypatch.setattr("safetensors.torch.save_file", full(SafetensorError))
    elif fails == "config.json":
        monkeypatch.setattr(PretrainedConfig, "save_pretrained", full(OSError))
    else:
        monkeypatch.setattr(Tokenizer, "save", full(Exception))
    size = sum(p.nbytes for p in tiny_module("llama", torch.float32).parameters()) / 2**20
    with pytest.raises(
        InputError, match=rf"No space left.*the model takes {size:.1f} MiB, free are [\d,.]+\).*make room"
    ):
        load_model(file)
    assert list(cache.iterdir()) == []


def test_no_home_folder_is_one_sentence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "FAITHFUL_CIRCUITS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # nobody of that number
    with pytest.raises(InputError, match=r"no home folder is known here .*set .* FAITHFUL_CIRCUITS_CACHE to a folder"):
        load_model(file)
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", "~/cache")
    with pytest.raises(InputError, match="'~/cache' cannot be found: no home folder is known"):
        load_model(file)


def test_tensors_are_stored_small_only_where_that_loses_nothing() -> None:
    state = {
        "third": torch.tensor([1 / 3]),
        "half": torch.tensor([0.5, -65504.0]),
        "large": torch.tensor([2.0**100]),
        "nan": torch.tensor([float("nan")]),
    }
    state["tied"] = state["third"]
    stored = gguf_cache._stored(state)
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "third": torch.float32,
        "half": torch.float16,
        "large": torch.bfloat16,
        "nan": torch.float32,
    }
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor.float(), state[name], rtol=0, atol=0, equal_nan=True)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", "~/somewhere")
    assert gguf_cache.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("FAITHFUL_CIRCUITS_CACHE")
    assert gguf_cache.cache_folder().name == "faithful-circuits"
