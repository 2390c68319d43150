from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from safetensors import safe_open

from tests import shapes

# before any of the packages is imported
shapes.install()

from interp.models import load_model  # noqa: E402

# properties try the same examples each time, and as long as a busy machine takes
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("suite")

GOLDEN = Path(__file__).parent / "golden"

# tiny matrices gain nothing from many threads, and cores are often shared; processes that tests start inherit it
THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(THREADS))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """No test depends on what ran before it, in which process and order."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global state itself)
    torch.manual_seed(0)


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
