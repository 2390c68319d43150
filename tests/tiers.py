"""Which tests wait: `tests/tiers.toml` says which a release runs (`slow`) and which the night (`nightly`)."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FEW = frozenset({"gpt2", "gemma2", "mixtral"})  # two kinds of norms and of positions, windows, groups, experts
FURTHER = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt_neox_sequential", "gptj", "gemma3", "opt"}
    | {"phi3", "ministral3", "llama4"}
)  # fmt: skip


@functools.cache
def lists() -> dict[str, dict[str, list[str]]]:
    """By list and file: names of tests, or `*` for all of a file."""
    return tomllib.loads((HERE / "tiers.toml").read_text(encoding="utf-8"))


def listed(item: pytest.Item, which: str) -> bool:
    """Whether one of the lists names a test."""
    path = item.path.relative_to(HERE.parent).as_posix() if item.path.is_relative_to(HERE.parent) else ""
    names = lists()[which].get(path, ())
    return "*" in names or getattr(item, "originalname", item.name) in names


def models(item: Any) -> frozenset[str]:
    """The tiny models that the parameters of a case name."""
    return frozenset(re.split(r"[-\s]", getattr(getattr(item, "callspec", None), "id", ""))) & (FEW | FURTHER)


def assign(items: Iterable[pytest.Item]) -> None:
    """Mark what waits. Of what waits anyway, models beyond a few wait for the night where the few are tried before."""
    items = list(items)
    tried = {(item.path, getattr(item, "originalname", "")) for item in items if models(item) & FEW}
    for item in items:
        further = bool(models(item)) and not models(item) & FEW
        if listed(item, "slow"):
            item.add_marker(pytest.mark.slow)
        waits = item.get_closest_marker("slow") is not None
        elsewhere = further and (item.path, getattr(item, "originalname", "")) in tried
        if (waits and (elsewhere or listed(item, "nightly"))) or (elsewhere and listed(item, "few")):
            item.add_marker(pytest.mark.nightly)
