"""What waits is there, and what may not wait does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import tiers

ROOT = tiers.HERE.parent
NEVER = re.compile(r"golden|refuse|slow_run|by_hand|brute_force|one_sentence|bridge_does")


def names_in(path: Path) -> set[str]:
    """Names of the tests in a file."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {one.name for one in found if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}


@pytest.mark.parametrize("which", ["slow", "few", "nightly"])
def test_every_name_is_that_of_a_test(which):
    for path, names in tiers.lists()[which].items():
        assert set(names) - {"*"} <= names_in(ROOT / path), path


@pytest.mark.parametrize("which", ["slow", "few"])
def test_golden_values_slow_references_and_refusals_never_wait(which):
    named = {f"{path}::{name}" for path, names in tiers.lists()[which].items() for name in names}
    assert named
    assert not {one for one in named if NEVER.search(one)}


def test_models_of_the_lists_are_those_that_there_are():
    from tests.tiny import _CONFIGS

    assert set(_CONFIGS) == tiers.FEW | tiers.FURTHER
