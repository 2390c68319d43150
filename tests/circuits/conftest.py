"""What tests of circuits of nodes share: a tiny model, and prompts that it has a behaviour on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from interp.tasks.task import Task


@pytest.fixture(scope="module")
def model() -> Any:
    import torch

    from tests.tiny import shared

    return shared("llama", torch.float32)


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    from tests.tiny import behaving

    return behaving(model, 16)
