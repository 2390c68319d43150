"""From a transformers module to a TransformerBridge, without a network: all that touches TransformerLens' boot."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp import compat
from interp.errors import InputError, refused
from interp.rotary import as_new
from interp.running import parts_of
from interp.validation import TOLERANCE, relative_error

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


_ENDS = ("bos_token", "eos_token", "pad_token")
_CHECKED = 12  # tokens of the prompt on which a module is compared before and after it is wrapped
_BORROWED = "_faithful_circuits_borrowed_pad"  # on a tokenizer: the padding token that TransformerLens gave it


def check_module(module: nn.Module) -> str:
    """The name under which TransformerLens knows a causal language model's class.

    Raises `InputError` for what is no transformers module, has no causal language-model head, is an encoder, is
    unknown to TransformerLens, or is wrapped already.
    """
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = type(module).__name__
    if not isinstance(module, PreTrainedModel):
        raise InputError(
            f"source is a {kind}, which is no transformers model; give a transformers causal language model such "
            "as LlamaForCausalLM"
        )
    config: Any = module.config
    # a user's sub-class counts as what it derives from
    names = [base.__name__ for base in type(module).__mro__]
    causal = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    is_causal = any(name in causal or name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    # the families with a masked-language-model head are encoders unless configured otherwise
    bidirectional = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if not is_causal or bidirectional or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"source is a {kind}, which is no causal language model (a decoder with a language-model head); "
            "load it with transformers.AutoModelForCausalLM if it has such a head"
        )
    text = config.get_text_config()
    if text is not config:
        alone = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text.model_type, "a causal language model")
        raise InputError(
            f"source is a {kind}, which reads more than text; load the language model in it alone, as {alone}"
        )
    known = [name for name in names if name in SUPPORTED_ARCHITECTURES]
    if not known:
        raise InputError(
            f"source is a {kind}, an architecture that this version of TransformerLens cannot boot; its supported "
            "ones are listed by transformer_lens.model_bridge.TransformerBridge.list_supported_models()"
        )
    if any(isinstance(part, GeneralizedComponent) for part in module.modules()):
        raise InputError(
            f"source is a {kind} that a TransformerBridge already wraps (it was loaded before); use what load_model "
            "returned then, or load the module afresh"
        )
    return known[0]


def boot(module: nn.Module, architecture: str, tokenizer: Any | None, name: str) -> TransformerBridge:
    """Wrap a module that passed `check_module`, in place, in a frozen TransformerBridge in eval mode.

    `tokenizer` comes from `own_tokenizer` or `put_bos_first`; `name` is what the bridge is called.
    """
    weight = next(module.parameters())
    suit_experts(module, weight.dtype)
    before = logits_of(module, module)
    bridge = wrap(module, architecture, tokenizer, name, weight)
    refuse_changed(before, bridge)
    return bridge


def suit_experts(module: nn.Module, dtype: torch.dtype) -> None:
    """Let mixtures of experts run in this dtype: the default of transformers, grouped_mm, has no float64."""
    if dtype == torch.float64:
        module.set_experts_implementation("eager")  # type: ignore[operator]


def wrap(module: nn.Module, architecture: str, tokenizer: Any | None, name: str, weight: Tensor) -> TransformerBridge:
    """What `boot` does, but for the comparison with the module before; `weight` is any of the model's."""
    from transformer_lens.model_bridge import TransformerBridge

    config: Any = module.config
    lacking = [] if tokenizer is None else [end for end in _ENDS if getattr(tokenizer, end) is None]
    if architecture not in (config.architectures or ()):
        # TransformerLens reads the architecture from here, and some properties (GPT-J's parallel blocks) only here
        config.architectures = [architecture]
    kind = type(module).__name__
    compat.fill_fused_bias(module)
    # layers that split fused weights are initialised at random before they get their weights
    with refused(f"source is a {kind} that TransformerLens cannot boot"), torch.random.fork_rng(devices=[]):
        if tokenizer is None:
            module.set_attn_implementation("eager")  # type: ignore[operator]
            bridge = compat.bridge_from_module(module, architecture, config)
        else:
            if "eos_token" in lacking:  # or else "<|endoftext|>" would be added, beyond the model's vocabulary
                tokenizer.eos_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
            bridge = TransformerBridge.boot_transformers(
                kind,  # a hub id would be looked up among aliases
                hf_model=module,
                tokenizer=tokenizer,
                device=weight.device,
                dtype=weight.dtype,
            )
            _take_back(bridge, lacking)
    bridge.cfg.model_name = name
    return freeze(bridge)


@torch.no_grad()
def logits_of(model: Any, module: Any) -> Tensor | None:
    """Logits of a module, or of the bridge around it, for a short random prompt, as if it were its first.

    None where it cannot be run, which whatever uses it will say.
    """
    try:
        with refused("not run"), as_new(module):
            # as TransformerLens has them: no dropout, eager attention
            module.eval().set_attn_implementation("eager")
            length = min(_CHECKED, int(getattr(module.config, "max_position_embeddings", None) or _CHECKED))
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(int(module.config.vocab_size), (1, length), generator=generator, device="cpu")
            # the matrices of a model that streams its weights are on no device
            there = next(one for one in module.parameters() if not one.is_meta)
            result = model(ids.to(there.device))
            logits: Tensor = getattr(result, "logits", result)
            return logits
    except InputError:
        return None


def refuse_changed(before: Tensor | None, bridge: TransformerBridge) -> None:
    """Refuse a module that TransformerLens runs otherwise than it runs by itself.

    `interp.validation` compares our run with the bridge's, which is no help where the bridge itself is another model:
    TransformerLens applies a soft cap in Gemma 3's attention that transformers only keeps in the configuration.
    """
    after = logits_of(bridge, bridge.original_model)
    if before is None or after is None:
        return
    error, tolerance = relative_error(after, before), TOLERANCE[before.dtype]
    if not error < tolerance:
        kind = type(bridge.original_model).__name__
        raise InputError(
            f"source is a {kind} that TransformerLens runs otherwise than transformers: "
            f"on a random prompt its logits are off by {error:.1e} (relative, allowed are {tolerance:.0e}), so "
            "everything said of it would be wrong"
        )


def _take_back(bridge: Any, lacking: list[str]) -> None:
    """Take from a bridge's tokenizer the BOS and the EOS that it never had: TransformerLens takes EOS for BOS.

    Padding stays, without which TransformerLens tokenises no strings; `own_special_id` knows of it.
    """
    for end in lacking:
        if end == "pad_token":
            bridge.tokenizer.__dict__[_BORROWED] = bridge.tokenizer.pad_token
        else:
            setattr(bridge.tokenizer, end, None)
    if "bos_token" in lacking:
        bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos = False
    if "eos_token" in lacking:
        bridge.cfg.tokenizer_appends_eos = False


def own_special_id(tokenizer: Any | None, name: str) -> int | None:
    """The id of a tokenizer's "bos", "eos", "pad", "unk" or "mask", or None where it has none of its own."""
    borrowed = getattr(tokenizer, "__dict__", {}).get(_BORROWED)
    if name == "pad" and borrowed is not None and borrowed == tokenizer.pad_token:  # type: ignore[union-attr]
        return None
    return getattr(tokenizer, f"{name}_token_id", None)


def freeze(bridge: TransformerBridge) -> TransformerBridge:
    """Put a bridge in eval mode and freeze its parameters."""
    for part in (bridge, bridge.original_model):
        part.eval()
        for parameter in part.parameters():
            parameter.requires_grad_(False)
    return bridge


def place(module: nn.Module, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a module and cast its parameters, in place; None leaves as is."""
    if device is not None:
        module.to(device)
    if dtype is not None:
        # parameters only: buffers such as rotary frequencies stay in the precision their makers chose
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def own_tensors(module: nn.Module) -> None:
    """Copy, in place, what was made in inference mode: no gradient goes through such tensors. Ties stay tied."""
    copies: dict[Tensor, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if tensor not in copies:
            with torch.no_grad():
                twin = tensor.clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            copies[tensor] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
        return copies[tensor]

    for part in parts_of(module):
        for kept in (compat.parameters_of(part), compat.buffers_of(part)):
            for name, tensor in kept.items():
                if tensor is not None and tensor.is_inference():
                    kept[name] = copied(tensor)  # type: ignore[assignment]


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy of a tokenizer that puts BOS first (where it has one), as TransformerLens wants it.

    TransformerLens would reload a tokenizer with a BOS from its `name_or_path`, which may be a hub id or nothing
    at all, and writes padding tokens into the object it is given. The copy is ready before it gets there.

    Raises `InputError` when `tokenizer` is no transformers tokenizer.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"tokenizer is a {type(tokenizer).__name__}, not a transformers tokenizer; load one with "
            "transformers.AutoTokenizer.from_pretrained"
        )
    return put_bos_first(copy.deepcopy(tokenizer))


def put_bos_first(tokenizer: Any) -> Any:
    """Make a tokenizer put BOS first, in place, if it has one; returns it."""
    if tokenizer.bos_token is None:
        return tokenizer
    if tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        try:
            tokenizer.add_bos_token = True
        except ValueError:
            compat.put_no_bos(tokenizer)
    # TransformerLens reads these two, and reloads the tokenizer unless the second is true
    tokenizer.init_kwargs.setdefault("name_or_path", tokenizer.name_or_path)
    tokenizer.init_kwargs["add_bos_token"] = True
    return tokenizer
