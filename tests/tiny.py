"""Tiny random models of every architecture, booted like real ones, for tests against slow oracles.

Every weight is random and large, biases and norm gains too, so that a path that is dropped or counted twice
shows. In float64 they compute in float64 throughout: where transformers and TransformerLens cast norms, softmaxes
and routers to float32 whatever the model's dtype, the cast is left out, so that oracles agree to 1e-10.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from interp.models import load_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from interp.tasks.task import Task

D_MODEL, HEADS, LAYERS, VOCAB, MLP = 16, 4, 3, 53, 24
WINDOW = 3  # sliding windows are shorter than the prompts of `tiny_task`

_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": D_MODEL,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": MLP,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "tie_word_embeddings": False,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_MIXED_WINDOWS = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "head_dim": 6,  # not d_model / heads
    "query_pre_attn_scalar": 5,
}
_GPT2_NAMES = {
    "vocab_size": VOCAB,
    "n_embd": D_MODEL,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": MLP,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

# name: (transformers model type, configuration)
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", _GPT2_NAMES),
    "llama": ("llama", _GROUPED),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 6}),
    "gpt_neox": ("gpt_neox", {**_COMMON, "rotary_pct": 0.5}),
    "gptj": ("gptj", {**_GPT2_NAMES, "rotary_dim": 2, "tie_word_embeddings": False}),
    "gemma2": (
        "gemma2",
        {**_GROUPED, **_MIXED_WINDOWS, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("gemma3_text", {**_GROUPED, **_MIXED_WINDOWS}),
    "opt": (
        "opt",
        {**_COMMON, "ffn_dim": MLP, "word_embed_proj_dim": D_MODEL, "do_layer_norm_before": True},
    ),
    "mixtral": ("mixtral", {**_GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "gpt_neox_sequential": (
        "gpt_neox",
        {**_COMMON, "rotary_pct": 0.5, "use_parallel_residual": False},
    ),
    "phi3": ("phi3", _GROUPED),
    "ministral3": ("ministral3", _GROUPED),
    "llama4": ("llama4_text", {**_GROUPED, "head_dim": 4, "intermediate_size_mlp": MLP, "moe_layers": []}),
}

VARIANTS = ("gpt_neox_sequential",)  # further settings of an architecture
_FURTHER = ("phi3", "ministral3", "llama4")  # what no table names: the check at first use decides
ARCHITECTURES = tuple(name for name in _CONFIGS if name not in (*VARIANTS, *_FURTHER))


def mostly_slow(cases: Iterable[Any], kept: Callable[[Any], bool]) -> list[Any]:
    """Cases of a parametrisation: those that are `kept` in every run of the tests, the others in the slow tier.

    For laws that hold or fail on all models alike, such as that batches change nothing; never for oracles.
    """
    return [
        case if kept(case) else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]


def tiny_module(name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **overrides: Any) -> nn.Module:
    """A tiny random transformers module; `overrides` change its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, settings = _CONFIGS[name]
    config = AutoConfig.for_model(model_type, **{**settings, **overrides})
    with torch.random.fork_rng(devices=[]):
        module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        is_gain = parameter.ndim == 1 and key.endswith("weight")
        around_one = is_gain and not model_type.startswith("gemma")  # Gemma's gain is 1 + weight
        parameter.data = (noise + 1 if around_one else noise).to(dtype)
    return module.eval()


def tiny(name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **overrides: Any) -> TransformerBridge:
    """A tiny random model as `load_model` returns it; `overrides` change its configuration."""
    bridge = load_model(tiny_module(name, dtype, seed, **overrides))
    if dtype == torch.float64:
        stay_in_float64(bridge)
    return bridge


@functools.cache
def shared(name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **overrides: Any) -> TransformerBridge:
    """The one `tiny` model of all tests that ask for it and leave it as it is: a boot takes longer than most tests."""
    return tiny(name, dtype, seed, **overrides)


def tiny_task(model: TransformerBridge, n: int = 3, length: int = 7, seed: int = 0, ragged: bool = False) -> Task:
    """Random prompts with one correct and one incorrect id each.

    Position 0 is never corrupted, three others are. With `ragged` the prompts are of different lengths (the
    first has `length`), padded on the right.
    """
    from interp.tasks.task import Task

    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(model.cfg.d_vocab, shape, generator=generator)

    clean = draw(n, length)
    corrupted = clean.clone()
    # never by a multiple of the vocabulary: a corrupted token always differs
    corrupted[:, [1, 2, 4]] += torch.randint(1, model.cfg.d_vocab, (n, 3), generator=generator)
    corrupted %= model.cfg.d_vocab
    correct = draw(n)
    incorrect = (correct + 1 + draw(n) % (model.cfg.d_vocab - 1)) % model.cfg.d_vocab
    mask = torch.ones_like(clean)
    if ragged:
        for row in range(n):
            mask[row, length - row % 3 :] = 0
    return Task.from_tokens(
        "tiny",
        clean,
        corrupted,
        [[i] for i in correct.tolist()],
        [[i] for i in incorrect.tolist()],
        attention_mask=mask if ragged else None,
    )


def behaving(model: Any, n: int, seed: int = 0, turned: bool = False) -> Task:
    """Random prompts with answers that the model prefers more on the clean prompt (less, if `turned`)."""
    from interp.kernels.answers import answer_logits
    from interp.tasks.task import Task

    plain = tiny_task(model, n, seed=seed)
    prompts = plain.prompts(model)
    clean, corrupted = (answer_logits(model, one) for one in (prompts, prompts.turned()))
    gain = clean - corrupted
    right, wrong = gain.argmax(1), gain.argmin(1)
    if turned:
        right, wrong = wrong, right
    return Task.from_tokens("behaving", prompts.clean, prompts.corrupted, right, wrong)


def word_tokenizer(bos: str | None = "<bos>") -> Any:
    """A tokenizer of a few words that adds no BOS by itself, with a name that leads nowhere."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", "<bos>", "<b:s>", "a", "b", "c"]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>", bos_token=bos, name_or_path="no-such/hub-id"
    )


def stay_in_float64(model: nn.Module) -> None:
    """Make the parts of a model that cast activations to float32 keep float64."""
    for part in model.modules():
        if any(word in type(part).__name__ for word in ("Attention", "Norm", "Router")):
            # not by assignment: a bridge hands assignments on to the module that it wraps
            part.__dict__["forward"] = _in_float64(part.forward)


def _in_float64(forward: Any) -> Any:
    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if getattr(_this_thread, "keeps", False):
            return forward(*args, **kwargs)
        with _casts_replaced():
            _this_thread.keeps = True
            try:
                return forward(*args, **kwargs)
            finally:
                _this_thread.keeps = False

    return wrapped


_this_thread = threading.local()
_replacing = threading.Lock()
_replaced = 0  # how many threads are inside


@contextlib.contextmanager
def _casts_replaced() -> Iterator[None]:
    """With casts to float32 that threads which keep float64 do not feel: a torch function mode takes several times as
    long, for it hears of every call. The softmax is replaced as it is found, since an oracle may have put its own."""
    global _replaced
    with _replacing:
        _replaced += 1
        if _replaced == 1:
            _originals[:] = [(owner, name, getattr(owner, name)) for owner, name in _CASTS]
            for owner, name, cast in _originals:
                setattr(owner, name, _kept(name, cast))
    try:
        yield
    finally:
        with _replacing:
            _replaced -= 1
            if not _replaced:
                for owner, name, cast in _originals:
                    setattr(owner, name, cast)


_CASTS = ((torch.Tensor, "float"), (torch.Tensor, "to"), (nn.functional, "softmax"))
_originals: list[tuple[Any, str, Any]] = []


def _kept(name: str, cast: Any) -> Any:
    """A cast that leaves float64 what it is, and a softmax that works in it."""

    @functools.wraps(cast)
    def kept(x: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(_this_thread, "keeps", False) and x.dtype == torch.float64:
            if name == "softmax":
                kwargs = {**kwargs, "dtype": torch.float64} if kwargs.get("dtype") == torch.float32 else kwargs
            elif name == "float" or torch.float32 in (*args, kwargs.get("dtype")):
                return x
        return cast(x, *args, **kwargs)

    return kept
