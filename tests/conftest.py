"""What all tests share. Nothing heavy is imported at the top, which the process that only hands tests out reads too."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests import shapes, tiers, versions

if TYPE_CHECKING:
    import torch

# before any of the packages is imported; `make shapes`
if os.environ.get("CHECK_SHAPES"):
    shapes.install()

# properties try the same examples each time, and as long as a busy machine takes
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("suite")

GOLDEN = Path(__file__).parent / "golden"

# tiny matrices gain nothing from many threads, and cores are often shared; processes that tests start inherit it
THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before what is marked is chosen by its marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.assign(items)
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")  # what takes longest comes first


def pytest_collection_finish() -> None:
    import torch

    torch.set_num_threads(int(THREADS))
    gc.collect()
    gc.freeze()  # a million objects of imported modules and collected tests, which no collection need visit again


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """No test depends on what ran before it, in which process and order."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global state itself)
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if report.failed and call.excinfo and (reason := versions.reason_to_fail(call.excinfo.value)):
        report.outcome, report.wasxfail = "skipped", reason
    return report


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The real SmolLM2-135M. A test that uses it is marked `real` and leaves it as it found it."""
    from interp.models import load_model

    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """`golden(name)` reads tests/golden/{name}.safetensors: its tensors, and its metadata, parsed where it is JSON."""

    from safetensors import safe_open

    def parsed(text: str) -> Any:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
        return text

    @functools.cache
    def read(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
            metadata = {key: parsed(value) for key, value in (file.metadata() or {}).items()}
        return tensors, metadata

    return read
