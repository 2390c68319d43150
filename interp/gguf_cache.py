"""GGUF files, dequantised once and kept as safetensors in the user's cache folder.

One folder per GGUF file, named after the file's sha256, in the layout that transformers reads: config.json,
model.safetensors, the tokenizer's files, and checksums.json, which says what the others must be. A folder is
built under a temporary name and renamed when it is complete. Its checksums are verified at every load, in a
second thread, while the model is being loaded; what does not match is built anew.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import torch
from torch import Tensor

from interp.errors import InputError
from interp.files import expanded, locked
from interp.progress import progress

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHECKSUMS = "checksums.json"
_WEIGHTS = "model.safetensors"
_BUILDING = ".building-"  # how the names of temporary folders begin
_LAYOUT = "gguf-1"  # change it when the layout changes: old folders are then no longer seen
_LEFTOVER_AGE = 60.0  # seconds; a younger temporary folder may be about to be locked by who made it
_UNLOCKED_LEFTOVER_AGE = 24 * 3600.0  # seconds; where there are no locks, age alone tells


def cache_folder() -> Path:
    """Where models are cached: the environment's FAITHFUL_CIRCUITS_CACHE, else the user's cache folder."""
    chosen = os.environ.get("FAITHFUL_CIRCUITS_CACHE")
    if chosen:
        return expanded(chosen)
    try:
        folder = platformdirs.user_cache_dir("faithful-circuits")
    except RuntimeError:
        folder = "~"
    if folder.startswith("~"):  # as older versions of platformdirs leave it
        raise InputError(
            "there is no place for the cache of dequantised models: no home folder is known here (HOME is not set, and "
            "the system does not know the user); set the environment variable FAITHFUL_CIRCUITS_CACHE to a folder"
        )
    return Path(folder)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds(sha256: str) -> bool:
    """Whether the GGUF file with this checksum has been dequantised before."""
    return os.path.isfile(_entry(sha256) / _CHECKSUMS)


def load(sha256: str, gguf: Path | None, read: Callable[[Path], T]) -> T:
    """`read(folder)`, where `folder` holds the dequantised model of the GGUF file with this checksum.

    `gguf` is the file to build the folder from when it is missing or damaged. Raises `InputError` when that is
    needed and `gguf` is None, has another checksum or cannot be read, or when the cache cannot be written.
    """
    folder = _entry(sha256)
    if (seen := _identity(folder)) is not None:
        try:
            return _read_verified(folder, read)
        except _DamagedError as damage:
            if gguf is None:
                raise InputError(
                    f"the cached model in {folder} is damaged ({damage}) and cannot be rebuilt without the file "
                    "it came from; install that again, or delete the folder"
                ) from damage
            logger.warning("the cached model in %s is damaged (%s); building it again", folder, damage)
            _set_aside(folder, seen)
    if gguf is None:
        raise InputError(f"no model with the checksum {sha256} is cached in {cache_folder()}")
    _build(gguf, folder)
    return read(folder)


class _DamagedError(Exception):
    """A cache folder is not what its checksums say."""


def _entry(sha256: str) -> Path:
    return cache_folder() / _LAYOUT / sha256


def _read_verified(folder: Path, read: Callable[[Path], T]) -> T:
    # hashing leaves the interpreter lock alone, so that with a second core it costs next to no time
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(_damage, folder)
        try:
            result = read(folder)
        except Exception as error:
            if damage := verdict.result():
                raise _DamagedError(damage) from error
            raise
        if damage := verdict.result():
            raise _DamagedError(damage)
    return result


def _damage(folder: Path) -> str | None:
    """What is wrong with a cache folder, or None."""
    try:
        recorded = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        if not recorded["files"].keys() >= {"config.json", _WEIGHTS}:
            return f"{_CHECKSUMS} does not list the model's files"
        for name, sha256 in recorded["files"].items():
            if file_sha256(folder / name) != sha256:
                return f"{name} does not have the checksum that was recorded"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_CHECKSUMS} cannot be read: {error}"
    return None


def _build(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` into `folder`, which appears at once and complete, or not at all."""
    if file_sha256(gguf) != folder.name:
        raise InputError(
            f"{gguf} does not have the checksum {folder.name}: the file is damaged, or not the one that was "
            "published; install its package again"
        )
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=parent))
    except OSError as error:
        raise _unwritable(error) from error
    try:
        with locked(temporary):  # as long as this process lives, so that no other takes it for a leftover
            _convert(gguf, temporary)
            files = {path.name: file_sha256(path) for path in sorted(temporary.iterdir())}
            record = {"source": gguf.name, "files": files}
            (temporary / _CHECKSUMS).write_text(json.dumps(record, indent=1), encoding="utf-8")
            try:
                temporary.rename(folder)
            except OSError:
                # another process was faster: what it built is as good
                if not holds(folder.name):
                    raise
    except OSError as error:
        raise _unwritable(error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder (or what stands in its place) from another that is put there later; None for nothing."""
    try:
        found = folder.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_aside(folder: Path, seen: tuple[int, int]) -> None:
    """Remove a damaged folder at once; leave it where another process has put a new one in its place."""
    try:
        with locked(folder.parent):
            if _identity(folder) != seen:
                return
            aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
            folder.replace(aside / "damaged")  # whatever it is
    except OSError as error:
        raise _unwritable(error) from error
    shutil.rmtree(aside, ignore_errors=True)


def _unwritable(error: OSError) -> InputError:
    return InputError(
        f"the cache folder {cache_folder()} cannot be written ({error}); make room, or set the environment "
        "variable FAITHFUL_CIRCUITS_CACHE to a folder where there is some"
    )


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed processes left behind; what a running one builds is locked."""
    for path in parent.glob(f"{_BUILDING}*"):
        # it may be renamed or removed by another process at any moment
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            age = time.time() - path.stat().st_mtime
            if age > _LEFTOVER_AGE:
                with locked(path, wait=False) as held:
                    if held or age > _UNLOCKED_LEFTOVER_AGE:
                        shutil.rmtree(path, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer in `gguf` to `folder` in the layout of transformers."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("dequantising %s, once", gguf)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with progress(f"Dequantising {gguf.name} (once)", total=3) as bar:
        try:
            # transformers draws bars on standard error while it reads GGUF files, and has no switch for that
            with contextlib.redirect_stderr(io.StringIO()):
                model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, local_files_only=True)
                bar.advance()
                tokenizer = AutoTokenizer.from_pretrained(**source, local_files_only=True)
                bar.advance()
        except Exception as error:  # the parsers behind this raise all kinds, bare Exception among them
            raise InputError(f"source={str(gguf)!r} is a GGUF file that transformers cannot read: {error}") from error
        tensors = _stored(model.state_dict())
        config = copy.deepcopy(model.config)
        # these are no quantised weights any more; with this entry left transformers would look for the GGUF file
        del config.quantization_config
        config.architectures = [type(model).__name__]
        needed = sum(tensor.nbytes for tensor in tensors.values())
        try:
            save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except Exception as error:  # on a full disk safetensors and tokenizers raise classes of their own
            free = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in folder.iterdir())
            takes = f"the model takes {needed / 2**20:,.1f} MiB, free are {free / 2**20:,.1f}"
            raise OSError(f"{error}: {takes}") from error
        bar.advance()


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to save: tied weights once, each in float16 or bfloat16 where that loses nothing."""
    seen: set[tuple[Any, ...]] = set()
    result = {}
    for name, tensor in state.items():
        storage = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if storage not in seen:
            seen.add(storage)
            result[name] = _smallest_exact(tensor).contiguous()
    return result


def _smallest_exact(tensor: Tensor) -> Tensor:
    for dtype in (torch.float16, torch.bfloat16):
        if torch.equal((small := tensor.to(dtype)).to(tensor.dtype), tensor):
            return small
    return tensor
