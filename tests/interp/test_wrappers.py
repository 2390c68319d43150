"""What wraps a model: taken as the model where that is certain, else one sentence on what to hand in."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from attribution import decompose, tokens
from interp.encoders import load_encoder
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.models import load_model
from tests.oracle import error
from tests.tiny import tiny_module

TOKENS = torch.tensor([[2, 7, 20, 33, 8], [5, 9, 9, 2, 51]])


def plain() -> nn.Module:
    return tiny_module("llama", torch.float32)


def adapted(module: nn.Module, task: str = "CAUSAL_LM", target: str = "q_proj") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = peft.get_peft_model(module, peft.LoraConfig(task_type=task, target_modules=[target]))
    generator = torch.Generator().manual_seed(1)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            weight.data = torch.randn(weight.shape, generator=generator)
    return model.eval()


def injected(module: Any) -> Any:
    module.add_adapter(peft.LoraConfig(target_modules=["q_proj"]))
    return module


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def quantised(module: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


class Packed(Tensor):
    """As libraries of quantised and of sharded weights keep them."""


def packed(module: Any) -> Any:
    weight = module.model.layers[1].mlp.down_proj.weight
    module.model.layers[1].mlp.down_proj.weight = nn.Parameter(weight.data.as_subclass(Packed), requires_grad=False)
    return module


def eight_bits(module: Any) -> Any:
    layer = module.model.layers[1].mlp.down_proj
    layer.weight = nn.Parameter((layer.weight.data * 10).to(torch.int8), requires_grad=False)
    return module


def offloaded(module: Any) -> Any:
    return accelerate.cpu_offload(module, torch.device("cpu"))


WRAPPED = [
    (adapted, "is a PeftModelForCausalLM: a model under an adapter of peft; .* what merge_and_unload"),
    (injected, r"carries an adapter of peft at 'model\.layers\.0\.self_attn\.q_proj'.*merge_and_unload"),
    (nn.DataParallel, r"is a DataParallel, a model made parallel; give the model in it, as it was before: \.module"),
    (lambda module: module.to("meta"), r"no values at 'model\.embed_tokens\.weight' \(device meta\).*device_map=None"),
    (quantised, r"plain floating-point weights \('model\.layers\.0\.self_attn\.q_proj' is a torch\.ao.*quantisation"),
    (packed, r"plain floating-point weights \('model\.layers\.1\.mlp\.down_proj\.weight' is a Packed\)"),
    (eight_bits, r"plain floating-point weights \('model\.layers\.1\.mlp\.down_proj\.weight' holds torch\.int8\)"),
]


@pytest.mark.parametrize(("wrap", "message"), WRAPPED)
def test_what_is_no_plain_module_is_refused_in_a_sentence(wrap: Any, message: str) -> None:
    model = wrap(plain())
    for name, use in (
        ("source", lambda: load_model(model, dtype="float64")),
        ("model", lambda: tokens(model, TOKENS, quiet=True)),
        ("model", lambda: anatomy_of(model)),
    ):
        with pytest.raises(InputError, match=f"^{name}.*{message}"):
            use()


def test_only_load_model_takes_what_accelerate_has_put_aside() -> None:
    for use in (lambda model: tokens(model, TOKENS, quiet=True), anatomy_of):
        with pytest.raises(InputError, match=r"no values at 'model\.embed_tokens\.weight'.* give it, .* to load_model"):
            use(offloaded(plain()))


def test_a_merged_adapter_and_a_compiled_model_are_the_models_that_they_were() -> None:
    model = adapted(plain())
    with torch.no_grad():
        with_adapter, without = model(TOKENS).logits, plain()(TOKENS).logits
    assert error(with_adapter, without) > 0.1
    merged = load_model(model.merge_and_unload())
    anatomy_of(merged)
    assert error(merged(TOKENS), with_adapter) < 1e-4
    bridge = load_model(compiled(plain()))
    anatomy_of(bridge)
    assert error(bridge(TOKENS), without) < 1e-4
    assert load_model(compiled(bridge)) is bridge


def classifier() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    with torch.random.fork_rng(devices=[]):
        return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=60, **sizes)).eval()


def test_classifiers_are_unwrapped_and_refused_likewise() -> None:
    model = classifier()
    found = tokens(compiled(model), TOKENS, 1, "gradient-x-input", quiet=True)
    assert error(found.values, tokens(model, TOKENS, 1, "gradient-x-input", quiet=True).values) < 1e-6
    assert error(decompose(compiled(model), TOKENS, quiet=True).model_logits, model(TOKENS).logits.detach()) < 1e-4
    for wrapped, message in (
        (adapted(copy.deepcopy(model), "SEQ_CLS", "query"), "merge_and_unload"),
        (nn.DataParallel(model), "give the model in it"),
        (quantised(copy.deepcopy(model)), "plain floating-point weights"),
        (copy.deepcopy(model).to("meta"), "no values at"),
    ):
        for use in (tokens, decompose):
            with pytest.raises(InputError, match=f"^model.*{message}"):
                use(wrapped, TOKENS, quiet=True)


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # an older peft, of a model made here
def test_folders_of_adapters_are_told_apart_from_models(tmp_path: Path) -> None:
    adapted(plain()).save_pretrained(tmp_path)
    for load in (load_model, load_encoder):
        with pytest.raises(InputError, match=r"holds an adapter of peft, not a model; .*merge_and_unload"):
            load(tmp_path)


# ---- architectures


def test_heads_that_are_normalised_together_are_refused_by_name() -> None:
    sizes = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.OlmoeConfig(**sizes, intermediate_size=8, num_experts=2, num_experts_per_tok=1)
    with pytest.raises(InputError, match=r"OlmoeForCausalLM is not laid out .*q_norm normalises all heads together"):
        anatomy_of(load_model(transformers.OlmoeForCausalLM(config)))


def test_layers_beside_attention_and_mlp_are_refused_however_little_they_do() -> None:
    sizes = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    more = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "pad_token_id": 1}
    config = transformers.FalconH1Config(**sizes, **more, num_key_value_heads=2, intermediate_size=24)
    with pytest.raises(InputError, match=r"FalconH1ForCausalLM is not laid out .*a block also has: mamba"):
        anatomy_of(load_model(transformers.FalconH1ForCausalLM(config)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # transformers 5.9 on the newest torch
@pytest.mark.parametrize("multi_query", [True, False])
def test_the_key_value_heads_of_gpt_big_code(multi_query: bool) -> None:
    config = transformers.GPTBigCodeConfig(
        vocab_size=53, n_embd=16, n_layer=2, n_head=4, n_inner=24, n_positions=32, multi_query=multi_query,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    module = transformers.GPTBigCodeForCausalLM(config)
    if multi_query:
        assert anatomy_of(load_model(module)).n_kv_heads == 1
        return
    with pytest.raises(InputError, match=r"GPTBigCodeForCausalLM that TransformerLens cannot boot: .*multi_query=True"):
        load_model(module)


def test_parts_that_do_not_fit_together_are_refused() -> None:
    """Llama 4's mixture of experts gives another shape than it is given."""
    sizes = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 4}
    config = transformers.Llama4TextConfig(
        **sizes, num_key_value_heads=2, intermediate_size=24, intermediate_size_mlp=24, num_local_experts=2,
        pad_token_id=1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="Llama4ForCausalLM is not understood: its parts cannot be run"):
        anatomy_of(load_model(transformers.Llama4ForCausalLM(config)))


def test_models_that_read_more_than_text_are_refused_with_the_language_model_in_them_named() -> None:
    text = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 4}
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config={**text, "num_key_value_heads": 2, "intermediate_size": 24},
        vision_config={**image, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    with pytest.raises(InputError, match=r"Gemma3ForConditionalGeneration, which reads more .*, as Gemma3ForCausalLM"):
        load_model(transformers.Gemma3ForConditionalGeneration(config))
