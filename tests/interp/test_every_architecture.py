"""Every architecture that TransformerLens boots is read, with its own logits as the check, or refused in a sentence."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.models import load_model

READ = {
    "ArceeForCausalLM", "CodeGenForCausalLM", "GPT2LMHeadModel", "GPTBigCodeForCausalLM", "GPTJForCausalLM",
    "GPTNeoXForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM", "Glm4ForCausalLM",
    "Glm4MoeForCausalLM", "GlmForCausalLM", "GraniteForCausalLM", "GraniteMoeForCausalLM", "Jais2ForCausalLM",
    "LlamaForCausalLM", "Ministral3ForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "OPTForCausalLM",
    "Phi3ForCausalLM", "PhiForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM", "SeedOssForCausalLM", "SmolLM3ForCausalLM", "StableLmForCausalLM", "Starcoder2ForCausalLM",
}  # fmt: skip
LARGEST = 10_000_000  # weights; what cannot be made smaller is left out

# every name under which one of them keeps a size
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "lru_width"), 16),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "intermediate_size_mlp"), 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 32),
    **dict.fromkeys(("head_dim", "kv_channels", "rotary_dim", "rope_dim"), 4),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "state_size"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "mamba_n_heads", "mamba_d_state"), 4),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts", "n_groups"), 1),
    "num_experts_per_tok": 2, "mamba_d_head": 8, "mamba_d_ssm": 32, "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 53, "vocab_size": 53, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
# 2 would be wrong for those that know no groups: TransformerLens reads it nevertheless
_GROUPED = ("num_key_value_heads", "num_kv_heads")
_TEXT = {"llama4": "llama4_text", "gemma4": "gemma4_text", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}


def causal() -> dict[str, str]:
    """The classes of transformers that TransformerLens boots, with the model type of each."""
    types = {kind: key for key, kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    own = [n for n in SUPPORTED_ARCHITECTURES if n in types and n.endswith(("ForCausalLM", "LMHeadModel"))]
    return {name: types[name] for name in sorted(own)}


def small(name: str, model_type: str) -> Any:
    """A tiny random module, or None where transformers makes none of these sizes."""
    known = transformers.AutoConfig.for_model(_TEXT.get(model_type, model_type)).to_dict()
    sizes = {**_SIZES, **{key: 2 for key in _GROUPED if key in known}}
    if model_type == "stablelm":
        sizes["partial_rotary_factor"] = 0.5  # a quarter of four dimensions is one, and pairs are rotated
    kind = getattr(transformers, name)
    while True:
        try:
            config = transformers.AutoConfig.for_model(_TEXT.get(model_type, model_type), **sizes)
            with torch.device("meta"):
                if sum(weight.numel() for weight in kind(config).parameters()) > LARGEST:
                    return None
            module = kind(config).eval()
            break
        except Exception as error:  # transformers says in its own way which size it does not take
            unfit = [size for size in sizes if size in str(error)]
            if not unfit:
                return None
            sizes = {size: value for size, value in sizes.items() if size not in unfit}
    generator = torch.Generator().manual_seed(0)
    for key, weight in module.named_parameters():
        around_one = weight.ndim == 1 and key.endswith("weight")
        weight.data = torch.randn(weight.shape, generator=generator) * 0.2 + around_one
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", causal())
def test_it_is_read_or_refused_in_a_sentence(name: str) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = small(name, causal()[name])
        if module is None:
            assert name not in READ
            pytest.skip("transformers makes none so small")
        if name in READ:
            assert anatomy_of(load_model(module)).n_layers == 2
            return
        with pytest.raises(InputError, match=name):
            anatomy_of(load_model(module))
