"""Reads a TransformerBridge into an `Anatomy`: all that differs between architectures stands here.

The bridge gives every architecture the same component names; what it does not unify (rotary pairing, norm
offsets, order of the sub-layers, soft caps, windows) is read from the transformers configuration. An
architecture that is not named here is read the same way and then has to pass `interp.validation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interp.anatomy import Anatomy, Block, Embedding
from interp.errors import InputError
from interp.mlps import Dense, Gated, Mixture
from interp.parts import Affine, Norm, sample, streams
from interp.rotary import QueryScale, Rotary, StoredRotary
from interp.wrappers import refuse_wrapped

SUPPORTED = {
    "GPT2LMHeadModel": "GPT-2",
    "LlamaForCausalLM": "Llama, SmolLM2",
    "MistralForCausalLM": "Mistral",
    "Qwen2ForCausalLM": "Qwen2, Qwen2.5",
    "Qwen3ForCausalLM": "Qwen3",
    "GPTNeoXForCausalLM": "GPT-NeoX, Pythia",
    "GPTJForCausalLM": "GPT-J",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3ForCausalLM": "Gemma 3 (text)",
    "OPTForCausalLM": "OPT",
    "MixtralForCausalLM": "Mixtral-type mixtures",
}


def read_anatomy(model: Any) -> Anatomy:
    """Read a bridge's parts; raises `InputError` where a part is missing or of an unknown kind."""
    from transformer_lens.model_bridge import TransformerBridge

    if not isinstance(model, TransformerBridge):
        if isinstance(model, nn.Module):
            refuse_wrapped(model, "model")
        raise InputError(
            f"model is a {type(model).__name__}; give what interp.load_model returns (a TransformerBridge)"
        )
    hf = model.original_model
    config, name = hf.config, type(hf).__name__
    try:
        _refuse_foreign(model, config, name)
        blocks = tuple(_read_block(block, config, i) for i, block in enumerate(model.blocks))
        attention = _own(model.blocks[0].attn)
        d_head = blocks[0].q.shape[0] // int(config.num_attention_heads)
        return Anatomy(
            name=str(getattr(model.cfg, "model_name", "") or name),
            n_heads=int(config.num_attention_heads),
            n_kv_heads=blocks[0].k.shape[0] // d_head,
            d_model=int(config.hidden_size),
            d_head=d_head,
            d_mlp=_mlp_width(model.blocks[0], config),
            d_vocab=int(model.cfg.d_vocab),
            max_positions=_max_positions(model, config),
            blocks=blocks,
            embed=_read_embedding(model),
            rotary=_read_rotary(model, attention),
            final_norm=_read_norm(model.ln_final),
            unembed=_affine(model.unembed),
            cap=_read_cap(config),
            parameter=lambda: sample(blocks[0].q.module),
            streams=streams(blocks[0].q.module),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"model={name} is not laid out like the architectures this graph is defined for "
            f"({error}); supported: {', '.join(SUPPORTED.values())}"
        ) from error


def _refuse_foreign(model: Any, config: Any, name: str) -> None:
    """Refuse what has no residual-stream graph of our kind, in a sentence that says why."""
    supported = ", ".join(SUPPORTED.values())
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"model={name} is an encoder-decoder; circuits need a decoder-only model: {supported}")
    if getattr(config, "do_layer_norm_before", True) is False:
        raise InputError(f"model={name} with do_layer_norm_before=False is post-norm; supported: {supported}")
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size:
        raise InputError(f"model={name} projects its embedding (word_embed_proj_dim), which has no graph here")
    if not (hasattr(model, "blocks") and hasattr(model, "ln_final") and hasattr(model, "unembed")):
        raise InputError(
            f"model={name} has no pre-norm residual stream that ends in a final norm and an unembedding "
            f"(post-norm encoders such as BERT do not); supported: {supported}"
        )


def _own(component: Any) -> nn.Module:
    """The model's own module inside a bridge component."""
    own: nn.Module = getattr(component, "original_component", None) or component
    return own


def _affine(component: Any) -> Affine:
    module = _own(component)
    kind = type(module).__name__
    if not isinstance(module, nn.Linear) and kind != "Conv1D":
        raise TypeError(f"a projection is a {kind}, not a linear layer")
    return Affine(module, transposed=kind == "Conv1D")


def _read_norm(component: Any) -> Norm:
    module = _own(component)
    kind = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        return Norm(module, "layer", module.eps)
    if "RMSNorm" not in kind:
        raise TypeError(f"a norm is a {kind}, neither LayerNorm nor RMSNorm")
    eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    return Norm(module, "rms", float(eps or 0.0), offset=1.0 if kind.startswith("Gemma") else 0.0)


def _optional_norm(holder: Any, name: str) -> Norm | None:
    component = getattr(holder, name, None)
    return None if component is None else _read_norm(component)


def _head_norm(attention: Any, name: str, queries: Any, config: Any) -> Norm | None:
    """A norm of each head's queries or keys; over all heads at once (OLMoE, MiniMax-M2) it would couple them."""
    norm = _optional_norm(attention, name)
    d_head = _affine(queries).shape[0] // int(config.num_attention_heads)
    if norm is not None and norm.gain is not None and norm.gain.shape[-1] != d_head:
        raise TypeError(f"{name} normalises all heads together, so that no edge leads to one of them alone")
    return norm


def _refuse_other_parts(block: Any) -> None:
    """A layer that writes to the residual stream beside the two known (Falcon H1's) may write little as yet."""
    known = ("ln1", "ln1_post", "ln2", "ln2_post", "attn", "mlp", "hook_", "_")
    if others := [name for name, _ in block.named_children() if not name.startswith(known)]:
        raise TypeError(f"a block also has: {', '.join(others)}")


def _read_block(block: Any, config: Any, layer: int) -> Block:
    _refuse_other_parts(block)
    attention = block.attn
    own = _own(attention)
    first = _read_norm(block.ln1)
    second = _optional_norm(block, "ln2")
    layer_types = getattr(config, "layer_types", None)
    layer_type = layer_types[layer] if layer_types else None
    return Block(
        attention_norm=first,
        q=_affine(attention.q),
        k=_affine(attention.k),
        v=_affine(attention.v),
        o=_affine(attention.o),
        q_norm=_head_norm(own, "q_norm", attention.q, config),
        k_norm=_head_norm(own, "k_norm", attention.q, config),
        scale=_attention_scale(own, config),
        softcap=getattr(config, "attn_logit_softcapping", None),
        window=_window(config, layer_type),
        rope=layer_type or "default",
        query_scale=_query_scale(config),
        attention_post_norm=_optional_norm(block, "ln1_post"),
        mlp_norm=second or first,  # GPT-J feeds attention and MLP from one norm
        mlp=_read_mlp(block, config),
        mlp_post_norm=_optional_norm(block, "ln2_post"),
        parallel=second is None or bool(getattr(config, "use_parallel_residual", False)),
    )


def _attention_scale(own: nn.Module, config: Any) -> float:
    scaling = getattr(own, "scaling", None)
    if scaling is not None:
        return float(scaling)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    scale: float = float(head_dim) ** -0.5
    return scale


def _window(config: Any, layer_type: str | None) -> int | None:
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    if layer_type is not None:
        return int(window) if layer_type == "sliding_attention" else None
    return int(window)


def _activation(config: Any) -> Callable[[Tensor], Tensor]:
    from transformers.activations import ACT2FN

    for key in ("hidden_activation", "hidden_act", "activation_function"):
        if getattr(config, key, None):
            found: Callable[[Tensor], Tensor] = ACT2FN[getattr(config, key)]
            return found
    raise AttributeError("the configuration names no activation function")


def _read_mlp(block: Any, config: Any) -> Dense | Gated | Mixture:
    mlp = block.mlp
    if not hasattr(mlp, "in"):  # a mixture of experts is one node
        return Mixture(_own(mlp))
    up, down, act = _affine(getattr(mlp, "in")), _affine(mlp.out), _activation(config)
    return Gated(_affine(mlp.gate), up, down, act) if hasattr(mlp, "gate") else Dense(up, down, act)


def _mlp_width(block: Any, config: Any) -> int:
    if hasattr(block.mlp, "in"):
        return int(_affine(getattr(block.mlp, "in")).shape[0])
    return int(config.intermediate_size) * int(getattr(config, "num_experts_per_tok", 1))


def _read_embedding(model: Any) -> Embedding:
    words = _own(model.embed)
    if not hasattr(model, "pos_embed"):
        return Embedding(words)
    places = _own(model.pos_embed)
    return Embedding(words, places, int(getattr(places, "offset", 0)))


def _read_cap(config: Any) -> Callable[[Tensor], Tensor] | None:
    cap = getattr(config, "final_logit_softcapping", None)
    return None if cap is None else lambda logits: torch.tanh(logits / cap) * cap


def _read_rotary(model: Any, attention: nn.Module) -> Rotary | None:
    if isinstance(getattr(attention, "embed_positions", None), Tensor):
        return StoredRotary(attention)
    return Rotary(_own(model.rotary_emb)) if hasattr(model, "rotary_emb") else None


def _query_scale(config: Any) -> QueryScale | None:
    """Ministral 3's."""
    rope = getattr(config, "rope_parameters", None) or {}
    beta = rope.get("llama_4_scaling_beta")
    return None if beta is None else QueryScale(float(beta), int(rope["original_max_position_embeddings"]))


def _max_positions(model: Any, config: Any) -> int | None:
    """Positions beyond which the model has no embedding at all (rotary tables go on without end)."""
    if hasattr(model, "pos_embed"):
        return int(config.max_position_embeddings)
    own = getattr(_own(model.blocks[0].attn), "embed_positions", None)
    return int(own.shape[0]) if isinstance(own, Tensor) else None
