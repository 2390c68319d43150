"""Whether a model's folder is to be streamed, and how the hub's files come into one."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from interp.streaming.checkpoint import read_folder

WEIGHTS = ("loaded", "streamed", "auto")
_SHARE = 0.8  # of the free memory that a model may take; runs need the rest
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]


def fits(folder: Path, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the weights in a folder, as `dtype`, fit into what the device has free now."""
    count = sum(torch.Size(one.shape).numel() for one in read_folder(folder).values())
    return count * dtype.itemsize <= _SHARE * memory_available(device)


def memory_available(device: torch.device) -> float:
    """Bytes that are free on a device; of a CPU what Linux calls available, 1 TiB where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        return float(1 << 40)


def snapshot(hub: str, revision: str | None) -> str | os.PathLike[str]:
    """The folder in the hub's cache that holds a model's files, downloaded where they are not there yet."""
    from huggingface_hub import snapshot_download

    folder: str = snapshot_download(hub, revision=revision, allow_patterns=_FILES)
    return folder
