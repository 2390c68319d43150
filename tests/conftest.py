from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from interp.models import load_model

GOLDEN = Path(__file__).parent / "golden"

# tiny matrices gain nothing from many threads, and cores are often shared
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The real SmolLM2-135M. A test that uses it is marked `real` and leaves it as it found it."""
    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """`golden(name)` reads tests/golden/{name}.safetensors: its tensors, and its metadata parsed as JSON."""

    @functools.cache
    def read(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return tensors, metadata

    return read
