"""All that stands on private names of other libraries (transformers, torch, joblib ...), each with why, and its test.

A release of theirs may rename any of these without notice: then the test that is named fails, and this file is the one
to change.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn


def bridge_from_module(module: nn.Module, architecture: str, config: Any) -> Any:
    """A TransformerBridge without a tokenizer.

    Why: the public `boot_transformers` looks for a tokenizer on the hub when it is given none.
    Test: `test_loaded_models_are_frozen_and_in_eval_mode`, without a tokenizer.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    return build_bridge_from_module(module, architecture, hf_config=config)


def fill_fused_bias(module: nn.Module) -> None:
    """Give GPT-NeoX's fused queries, keys and values a bias of zero where they have none, which changes no output.

    Why: TransformerLens splits the bias of such a layer whether it is there or not (`attention_bias=False`).
    Test: `test_gpt_neox_without_biases_in_attention`.
    """
    for part in module.modules():
        fused: Any = getattr(part, "query_key_value", None)
        if type(part).__name__ == "GPTNeoXAttention" and fused.bias is None:
            fused.bias = nn.Parameter(fused.weight.new_zeros(len(fused.weight)), fused.weight.requires_grad)


def home_of_hook(handle: Any) -> str:
    """The module that defines the function of a TransformerLens hook.

    Why: the bridge wires some architectures (OPT) with permanent hooks of its own, and nothing public tells them from
    a user's; the handle's `user_hook` is undocumented.
    Test: those of `tests/attribution/rules/test_rules_applied.py` that expect "model carries a hook".
    """
    return str(getattr(handle.user_hook, "__module__", ""))


def fill_buffers(module: nn.Module, part: nn.Module) -> None:
    """Give the buffers of a module's part the values that its configuration says, such as rotary frequencies.

    Why: a module on the meta device has none, and no checkpoint holds them; transformers fills them the same way.
    Test: `tests/interp/streaming/test_equal.py`.
    """
    module._init_weights(part)  # type: ignore[operator]


def made_of(module: nn.Module, stored: Iterable[str]) -> dict[str, tuple[list[str], Callable[..., Tensor] | None]]:
    """For the parameters of a transformers module the names in its checkpoint that make them.

    With it, where several or changed tensors make one (experts that are stored one by one), the function from these to
    the parameter's values. Parameters that the checkpoint lacks are missing from the result.

    Why: only the loader in transformers knows of renamed and fused weights, and it reads all of them.
    Test: `tests/interp/streaming/test_equal.py`, Mixtral.
    """
    from transformers import conversion_mapping
    from transformers import core_model_loading as loading

    changes = conversion_mapping.get_model_conversion_mapping(module)
    renamings = [one for one in changes if isinstance(one, loading.WeightRenaming)]
    converters = [one for one in changes if isinstance(one, loading.WeightConverter)]
    state, prefix = module.state_dict(), module.base_model_prefix
    found: dict[str, tuple[list[str], Callable[..., Tensor] | None]] = {}
    patterns: dict[str, list[str]] = {}
    for key in sorted(stored, key=loading.dot_natural_key):
        name, pattern = loading.rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = key, None
        found.setdefault(name, ([], None))[0].append(key)
        if pattern is not None:
            patterns.setdefault(name, []).append(pattern)
    for name, used in patterns.items():
        converter = next(one for one in converters if used[0] in one.source_patterns)
        build = functools.partial(_converted, converter, module.config, name, found[name][0], used)
        found[name] = (found[name][0], build)
    return found


def _converted(
    converter: Any, config: Any, name: str, keys: list[str], patterns: list[str], pieces: list[Tensor]
) -> Tensor:
    one = copy.deepcopy(converter)
    for key, pattern, piece in zip(keys, patterns, pieces, strict=True):
        one.add_tensor(name, key, pattern, piece)
    made = one.convert(name, config=config)[name]
    result: Tensor = made[0] if isinstance(made, list) else made
    return result


def put_no_bos(tokenizer: Any) -> None:
    """Let a tokenizer of transformers not put BOS first.

    Why: a BOS with a colon in it fits into no template of the tokenizers library, so that the public `add_bos_token`
    raises; with a tokenizer that adds none TransformerLens prepends BOS itself.
    Test: `test_any_tokenizer_in_memory_works_and_is_not_changed`.
    """
    tokenizer._add_bos_token = False


def rope_types(module: nn.Module) -> tuple[str, ...]:
    """The kinds of rotary tables that a module of transformers makes, such as `dynamic` or `longrope`; none: ().

    Why: `rope_type` decides whether tables depend on the length of the call; transformers keeps it to itself.
    Test: `test_the_whole_model_as_a_circuit_is_the_model_and_the_check_of_the_task_agrees` of
    `tests/interp/test_rotary.py`.
    """
    types = module.__dict__.get("rope_type", "")
    return tuple(types.values()) if isinstance(types, dict) else (types,)


def rope_layers(module: nn.Module) -> tuple[str, ...]:
    """The types of layers that have rotary tables of their own; () where all share them. Why and test: `rope_types`."""
    types: Any = module.rope_type
    return tuple(types) if isinstance(types, dict) else ()


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own table of buffers, to be replaced in a copy without touching the original.

    Why: the public `named_buffers` leaves out those that are None.
    Test: `test_the_order_of_runs_makes_no_difference_and_the_module_stays_as_it_was`.
    """
    return module._buffers


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own table of parameters. Why: as `buffers_of`; and the public way takes ten times as long.

    Test: `tests/interp/test_anatomy_follows.py`.
    """
    return module._parameters


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's own table of parts. Why: the public `modules` takes twice the time, and every door asks.

    Test: `tests/interp/test_running.py`.
    """
    return module._modules


def hooks_of(module: nn.Module) -> dict[int, Any]:
    """The forward hooks of torch on a module. Why: a hook that another put there has no public handle.

    Test: `test_nothing_is_left_behind`.
    """
    return module._forward_hooks


def hooks_of_accelerate(module: nn.Module) -> list[Any]:
    """What accelerate has put on a module to bring its weights when it runs.

    Why: it tells nobody where it holds a weight. Test: `tests/interp/streaming/test_dispatched.py`.
    """
    hook = module.__dict__.get("_hf_hook")
    return [one for one in getattr(hook, "hooks", (hook,)) if hasattr(one, "execution_device")]


def hear_of_deaths(backend: Any) -> None:
    """Let joblib's Dask backend, of the context that is active, raise what Dask says of a job that it has given up.

    Why: joblib hears of a job's end by a callback, which this backend calls for results alone, so that a call whose
    workers died waits for ever (joblib 1.6). Test: `test_a_killed_worker_loses_no_finished_job[dask_cluster]`.
    """
    if type(backend).__name__ != "DaskDistributedBackend" or "submit" in backend.__dict__:
        return
    submit, result = backend.submit, backend.retrieve_result_callback

    def submit_and_tell(call: Any, callback: Callable[[Any], None]) -> Any:
        future = submit(call, callback)
        future.add_done_callback(lambda done: None if done.exception() is None else callback(done.exception()))
        return future

    def raised(out: Any) -> Any:
        if isinstance(out, BaseException):  # what a job itself raises comes wrapped
            raise out
        return result(out)

    backend.submit, backend.retrieve_result_callback = submit_and_tell, raised


def attention_of(config: Any) -> str | None:
    """The kind of attention that a configuration of transformers asks for.

    Why: `set_attn_implementation` has no public counterpart that reads.
    Test: `test_attention_is_told_before_and_after_a_rollout`.
    """
    kind: str | None = config._attn_implementation
    return kind


def compiled_from(module: nn.Module) -> nn.Module | None:
    """The module that `torch.compile` was given; None for a module that is not compiled.

    Why: torch offers no public way back from `OptimizedModule`.
    Test: `test_a_merged_adapter_and_a_compiled_model_are_the_models_that_they_were`.
    """
    found = getattr(module, "_orig_mod", None)
    return found if isinstance(found, nn.Module) else None
