"""What the page "From 0.1 to 0.2" promises: old names stop with a sentence that names the new, which exists."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from circuits.comparison import MethodComparison
from interp import Task
from interp.errors import InputError
from interp.renamed import NEW_ATTRIBUTE, NEW_COLUMN, NEW_NAME, NEW_WAY
from interp.selection import select

PAGE = (Path(__file__).parents[2] / "docs" / "from-0.1-to-0.2.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")
TASK = Task.from_pairs("colours", [("The sky is", "The grass is", " blue", " green")])


def table(*heads: str) -> Iterator[list[str]]:
    """Rows of the page's table with these heads, as cells."""
    head = f"| {' | '.join(heads)} |\n"
    body = PAGE[PAGE.index(head) + len(head) :].split("\n\n")[0]
    for line in body.splitlines()[1:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def pairs(*heads: str) -> list[tuple[str, str, str]]:
    """Each name of the first cell with what stands in the others."""
    return [(name, CODE.findall(old)[0], CODE.findall(new)[0]) for names, old, new in table(*heads)
            for name in CODE.findall(names)]  # fmt: skip


def named(path: str) -> Any:
    """What a dotted name means."""
    parts = path.split(".")
    for k in range(len(parts), 0, -1):
        if importlib.util.find_spec(parts[0]) and (k == 1 or importable(".".join(parts[:k]))):
            found: Any = importlib.import_module(".".join(parts[:k]))
            for part in parts[k:]:
                found = getattr(found, part)
            return found
    raise ImportError(path)


def importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(("function", "old", "new"), pairs("in", "0.1", "0.2"))
def test_an_old_keyword_names_the_new_one(function: str, old: str, new: str) -> None:
    called = named(function)
    given = {
        one.name: TASK if one.name == "task" else None
        for one in inspect.signature(called).parameters.values()
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty and one.name != NEW_NAME.get(old)
    }
    with pytest.raises(InputError, match=rf"takes no {old}: .*{re.escape(new.partition('(')[0])}"):
        called(**given, **{old: 1})


@pytest.mark.parametrize(("function", "positional"), [("evaluate", 3), ("prompt_faithfulness", 3), ("circuit_saco", 5)])
def test_an_ablation_by_place_is_refused(function: str, positional: int) -> None:
    with pytest.raises(InputError, match=rf"{function} takes {positional} arguments by place .* also .zero."):
        getattr(metrics, function)(*[None] * positional, "zero")


def test_the_order_of_signed_scores_by_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"select takes 4 arguments by place .* give the others by name, also False"):
        select(torch.zeros(1), None, 3, "top-n", False)  # type: ignore[arg-type,call-arg]


@pytest.mark.parametrize(("result", "old", "new"), pairs("result", "0.1", "0.2"))
def test_an_old_attribute_names_the_new_one(result: str, old: str, new: str) -> None:
    kind = named(result)
    assert NEW_ATTRIBUTE[old] == new
    with pytest.raises(AttributeError, match=f"{old} of a {kind.__name__} is called {re.escape(new)} now"):
        getattr(object.__new__(kind), old)


def test_other_attributes_are_missing_as_everywhere() -> None:
    for name in ("colour", "resamples", "run"):
        assert not hasattr(object.__new__(metrics.Completeness), name)


def test_what_was_a_data_frame_says_that_it_holds_one() -> None:
    held: Any = object.__new__(MethodComparison)
    with pytest.raises(InputError, match=r"take its columns from .to_frame\(\), as 'p_adjusted'"):
        held["adjusted p"]
    with pytest.raises(AttributeError, match=r".to_frame\(\).groupby"):
        held.groupby("method")
    with pytest.raises(InputError, match=r"len\(result.to_frame\(\)\)"):
        len(held)
    with pytest.raises(InputError, match="take its columns"):
        next(iter(held))
    with pytest.raises(InputError, match=r".to_frame\(\).to_html takes index"):
        held.to_html("table.html", index=False)
    assert held


def test_the_page_tells_all_that_the_library_does() -> None:
    keywords = {old for _, old, _ in pairs("in", "0.1", "0.2")}
    assert keywords | {"absolute"} == NEW_WAY.keys()  # which a selection that is named still takes
    assert {old for _, old, _ in pairs("result", "0.1", "0.2")} == NEW_ATTRIBUTE.keys()
    columns = {CODE.findall(old)[0]: CODE.findall(new)[0] for _, old, new in table("table", "0.1", "0.2")}
    assert columns == NEW_COLUMN


@pytest.mark.parametrize(("old", "new"), list(table("name of 0.1", "0.2")))
def test_names_that_are_gone(old: str, new: str) -> None:
    (old,), (new,) = CODE.findall(old), CODE.findall(new)
    with pytest.raises((InputError, AttributeError)):
        named(old)
    assert named(new) is not None


@pytest.mark.parametrize(("package", "name"), [("interp.selection", "RULES"), ("circuits.mib", "evaluate_scores")])
def test_a_gone_name_cannot_be_imported_without_a_sentence(package: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"{package} has no {name} any more: "):
        exec(f"from {package} import {name}")


@pytest.mark.parametrize(("old", "new"), list(table("module of 0.1", "0.2")))
def test_modules_that_moved(old: str, new: str) -> None:
    (old,), (new,) = CODE.findall(old), CODE.findall(new)
    package, _, rest = old.partition(".")
    place = Path(importlib.import_module(package).__path__[0], *rest.split("."))  # not another installation
    assert not place.exists()
    assert not place.with_suffix(".py").exists()
    assert importable(new)
