from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from attribution import tokens
from interp import boot, gguf_cache
from interp.errors import InputError
from interp.models import MODELS, load_model
from interp.setting import Setting
from interp.tasks.encoding import Encoder
from tests import oracle
from tests.oracle import TOLERANCE, error
from tests.tiny import tiny, tiny_module, tiny_task, word_tokenizer

TOKENS = torch.tensor([[0, 7, 20, 33, 8, 52, 3, 11, 40], [0, 9, 9, 2, 51, 30, 6, 5, 4]])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAITHFUL_CIRCUITS_CACHE", str(tmp_path_factory.mktemp("cache")))


# ---- transformers modules


@pytest.mark.parametrize(("name", "cap"), [("gemma3", 1.0), ("gemma2", 1.0)])
def test_what_the_bridge_computes_otherwise_than_the_module_is_refused(name: str, cap: float) -> None:
    # transformers' Gemma 3 reads the cap and does not apply it, TransformerLens applies it; Gemma 2 has it in both
    module = tiny_module(name, torch.float32, attn_logit_softcapping=cap)
    with torch.no_grad():
        before = module(TOKENS).logits
    if name == "gemma2":
        assert (load_model(module)(TOKENS) - before).abs().max() < 1e-4
        return
    with pytest.raises(InputError, match=r"source is a Gemma3ForCausalLM that TransformerLens runs otherwise than"):
        load_model(module)


@pytest.mark.parametrize("with_tokenizer", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_loaded_models_are_frozen_and_in_eval_mode(name: str, with_tokenizer: bool) -> None:
    module = tiny_module(name, torch.float32).train()
    model = load_model(module, tokenizer=word_tokenizer() if with_tokenizer else None)
    for part in model.modules():
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters(recurse=False))
    assert not any(parameter.requires_grad for parameter in module.parameters())
    seen = []
    model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_pattern", lambda x, hook: seen.append(x))])
    assert seen[0].shape == (2, 4, 9, 9)  # attention is eager: patterns are there


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "torch.float64", torch.float64, None])
def test_dtype_is_applied_to_modules(dtype: Any) -> None:
    want = {"bfloat16": torch.bfloat16, "torch.float64": torch.float64, None: torch.float32}.get(dtype, dtype)
    model = load_model(tiny_module("llama", torch.float32), dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {want}
    assert model.cfg.dtype == want
    assert model(TOKENS).dtype == want


def test_casting_keeps_tied_weights_tied_and_rotary_frequencies_precise() -> None:
    model = load_model(tiny_module("qwen2", torch.float32), dtype="bfloat16")
    hf = model.original_model
    assert hf.get_input_embeddings().weight.data_ptr() == hf.get_output_embeddings().weight.data_ptr()
    assert hf.model.rotary_emb.inv_freq.dtype == torch.float32


def test_bridges_are_returned_as_they_are() -> None:
    model = load_model(tiny_module("gpt2", torch.float32))
    model.original_model.requires_grad_(True)
    model.train()
    assert load_model(model) is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for settings in ({"tokenizer": word_tokenizer()}, {"device": "cpu"}, {"dtype": "float64"}):
        with pytest.raises(InputError, match="TransformerBridge, which is taken as it is"):
            load_model(model, **settings)


def test_a_module_is_wrapped_once_only() -> None:
    module = tiny_module("gpt2")
    model = load_model(module)
    with pytest.raises(InputError, match="already wraps"):
        load_model(module, dtype="float32")
    assert model(TOKENS).dtype == torch.float64


def test_sub_classes_count_as_what_they_derive_from() -> None:
    class Mine(transformers.LlamaForCausalLM):
        pass

    module = Mine(tiny_module("llama").config)
    assert load_model(module).cfg.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertLMHeadModel", "BertModel", "LlamaModel", "T5"])
def test_what_is_no_causal_language_model_is_refused(kind: str) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    if kind == "T5":
        config = transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        module = transformers.T5ForConditionalGeneration(config)
    else:
        config = (transformers.LlamaConfig if kind == "LlamaModel" else transformers.BertConfig)(vocab_size=20, **small)
        module = getattr(transformers, kind)(config)
    with pytest.raises(InputError, match="no causal language model"):
        load_model(module)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.nn.Linear(2, 2), "source is a Linear, which is no transformers model"),
        (7, "source is a int; give a name"),
        ("smollm2-135", "model='smollm2-135' is unknown; did you mean 'smollm2-135m'"),
        ("", "model='' is unknown"),
        ("./nowhere", "does not exist"),
        ("/no/such/folder", "does not exist"),
        (Path("nowhere"), "does not exist"),
        ("nowhere.gguf", "source='nowhere.gguf' does not exist; give the path of a .gguf file"),
    ],
)
def test_unusable_sources(source: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bfloat"}, "dtype='bfloat' is unknown; did you mean 'bfloat16'"),
        ({"dtype": torch.int8}, "dtype='int8' is unknown"),
        ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"tokenizer": "gpt2"}, "tokenizer is a str, not a transformers tokenizer"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], message: str) -> None:
    module = tiny_module("gpt2", torch.float32)
    with pytest.raises(InputError) as caught:
        load_model(module, **settings)
    assert message in str(caught.value)
    assert load_model(module)(TOKENS).dtype == torch.float32  # nothing was touched


# ---- tokenizers


@pytest.mark.parametrize("bos", ["<bos>", None, "<b:s>"])
def test_any_tokenizer_in_memory_works_and_is_not_changed(bos: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reload(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the tokenizer must not be looked up by its name")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", no_reload)
    tokenizer = word_tokenizer(bos)
    before = (tokenizer.pad_token, tokenizer.bos_token, dict(tokenizer.init_kwargs), tokenizer("a b")["input_ids"])
    model = load_model(tiny_module("gpt2", torch.float32), tokenizer=tokenizer)
    after = (tokenizer.pad_token, tokenizer.bos_token, dict(tokenizer.init_kwargs), tokenizer("a b")["input_ids"])
    assert before == after
    assert model.tokenizer is not tokenizer
    first = [] if bos is None else [tokenizer.convert_tokens_to_ids(bos)]
    assert model.to_tokens("a b").tolist() == [[*first, 4, 5]]
    assert model.to_tokens("a b", prepend_bos=False).tolist() == [[4, 5]]


@pytest.mark.parametrize("eos", ["<eos>", None])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt2"])
def test_a_tokenizer_without_bos_gets_none(name: str, eos: str | None) -> None:
    """TransformerLens makes EOS its BOS and its padding, and adds an EOS beyond the vocabulary where there is none."""
    tokenizer = word_tokenizer(None)
    tokenizer.eos_token = eos
    again = load_model(tiny_module(name, torch.float32), tokenizer=tokenizer).tokenizer
    for given in (tokenizer, again):
        model = load_model(tiny_module(name, torch.float32), tokenizer=given)
        assert Encoder(model).texts(["a b"]) == [[4, 5]]
        assert tokens(model, "a b", quiet=True).tokens == [["a", "b"]]
        assert (model.tokenizer.bos_token, model.tokenizer.eos_token) == (None, eos)
        assert len(model.tokenizer) == len(tokenizer)
        assert model.to_tokens(["a b", "a"])[:, :1].tolist() == [[4], [4]]
        with pytest.raises(InputError, match="prepend_bos=True, but the tokenizer has no BOS token"):
            tokens(model, "a b", prepend_bos=True, quiet=True)
        for lacking in ("bos", "pad", *([] if eos else ["eos"])):
            with pytest.raises(InputError, match=f"baseline='{lacking}', but the model's tokenizer has no such token"):
                tokens(model, "a b", method="occlusion", baseline=lacking, quiet=True)


def test_a_tokenizer_that_puts_bos_first_by_itself_is_kept() -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_bos_token = True
    assert boot.own_tokenizer(tokenizer)("a")["input_ids"] == [2, 4]


# ---- the real model


@pytest.mark.real
def test_real_model_matches_the_reference(smollm2: Any, golden: Any) -> None:
    tensors, metadata = golden("eap_smollm2_ioi16")
    tokens = tensors["clean_tokens"].long()
    assert smollm2.to_tokens(metadata["clean_text"][0]).tolist() == tokens[:1].tolist()
    with torch.no_grad():
        logits = smollm2(tokens)[:, -1]
    rows = torch.arange(len(tokens))
    correct, incorrect = (torch.tensor(metadata[key])[:, 0] for key in ("correct", "incorrect"))
    objective = logits[rows, correct] - logits[rows, incorrect]
    torch.testing.assert_close(objective, tensors["clean_objective"], rtol=0, atol=1e-3)


@pytest.mark.real
def test_packaged_weights_have_the_registered_checksum() -> None:
    package = MODELS["smollm2-135m"].package
    assert package is not None
    file = package.find()
    assert file is not None
    assert gguf_cache.file_sha256(file) == package.sha256


@pytest.mark.parametrize("parallel", [True, False])
def test_gpt_neox_without_biases_in_attention(parallel: bool) -> None:
    settings: dict[str, Any] = {"attention_bias": False, "use_parallel_residual": parallel}
    alone = tiny_module("gpt_neox", **settings)
    model = tiny("gpt_neox", **settings)
    task = tiny_task(model, 4)
    ids = task.prompts(model).clean
    with torch.no_grad():
        torch.testing.assert_close(model(ids), alone(ids).logits, rtol=0, atol=1e-5)  # it has steps in float32
    setting = Setting(model, task)
    found = setting.measure(setting.graph.edge_mask[None])
    torch.testing.assert_close(found.circuits[0], found.clean, rtol=0, atol=1e-10)
    chosen = torch.rand(setting.graph.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    chosen &= setting.graph.edge_mask
    prompts = task.prompts(model)
    cases = [(set(setting.graph.edges(chosen)), oracle.ablated_outputs(model, prompts, "patch"))]
    expected = oracle.circuit_values(model, prompts, cases)
    assert error(setting.measure(chosen[None]).circuits, expected) < TOLERANCE
