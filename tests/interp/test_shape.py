"""The shape of the project: layers, no circles, narrow functions, names that stand for one thing."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from interp.result import Result

ROOT = Path(__file__).parents[2]
PACKAGES = ("interp", "attribution", "metrics", "circuits")
BELOW = {
    "interp": set(),
    "attribution": {"interp"},
    "metrics": {"interp"},
    "circuits": {"interp", "attribution", "metrics"},
}
APART = ("concepts", "inversion")  # rooms that no other room imports: only who asks for them waits for them
HEAVY = {"sklearn", "captum", "plotly", "peft", "sparsify"}
MADE_BY_US = {"Report"}  # what a search found: nobody else fills one in
WIDEST = 10  # parameters of a public function; the groups of keywords that it unpacks are not counted

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


@functools.cache  # each process that collects the tests imports this file, one of them runs it
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a module names, wherever: also late imports, and those for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    allowed = BELOW[package] | {package}
    wrong = [
        (name, found)
        for name, tree in trees().items()
        if name.split(".")[0] == package
        for found in imports(tree)
        if found.split(".")[0] in set(PACKAGES) - allowed
    ]
    assert not wrong


def test_every_import_names_a_whole_module() -> None:
    """What the two laws of imports read: relative ones would escape them."""
    relative = [
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_there_is_no_circle_of_imports_anywhere() -> None:
    graph = nx.DiGraph()
    for name, tree in trees().items():
        graph.add_edges_from((name, found) for found in imports(tree) if found in FILES and found != name)
    circles = [sorted(one) for one in nx.strongly_connected_components(graph) if len(one) > 1]
    assert not circles


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_rooms_that_stand_apart_are_imported_by_nobody_and_import_nothing_heavy() -> None:
    seen = set()
    for name, tree in trees().items():
        for found in imports(tree):
            if (other := room(found)).split(".")[-1] in APART and other != room(name):
                seen.add(other)
                assert room(name).split(".")[-1] == other.split(".")[-1], f"{name} imports {found}"
        if room(name).split(".")[-1] in APART:
            at_once = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
            at_once |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
            assert not {one.split(".")[0] for one in at_once} & HEAVY, name
    assert seen == {"interp.concepts"}  # by the rooms of the same name


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions, and methods and constructors of public classes, by name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or (inside and node.name in ("__init__", "__new__", "__call__")):
                yield f"{inside}{node.name}", node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from functions(node, inside)


def own_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> int:
    named = [*node.args.posonlyargs, *node.args.args]
    if method and named and named[0].arg in ("self", "cls"):
        named = named[1:]
    return len(named) + len(node.args.kwonlyargs)


def test_no_public_function_has_more_than_ten_parameters_of_its_own() -> None:
    wide, seen = [], 0
    for name, tree in trees().items():
        if name.startswith("circuits.cli"):  # a command lists its options: typer reads them there
            continue
        for called, node in functions(tree):
            seen += 1
            if (count := own_parameters(node, "." in called)) > WIDEST:
                wide.append(f"{name}.{called}: {count}")
    assert seen > 500
    assert not wide


def test_everything_that_the_packages_export_is_among_what_is_counted() -> None:
    """And the constructors that dataclasses make, of what a user hands in (results are made by us)."""
    counted = {f"{name}.{called}" for name, tree in trees().items() for called, _ in functions(tree)}
    wide = []
    for package in PACKAGES:
        found = importlib.import_module(package)
        for name in found.__all__:
            thing = getattr(found, name)
            if isinstance(thing, type) and issubclass(thing, Exception):
                continue
            if isinstance(thing, type):
                own = [p for p in inspect.signature(thing).parameters.values() if p.kind is not p.VAR_KEYWORD]
                if len(own) > WIDEST and not issubclass(thing, Result) and name not in MADE_BY_US:
                    wide.append(f"{package}.{name}: {len(own)}")
            elif callable(thing):
                assert f"{thing.__module__}.{thing.__qualname__}" in counted, name
    assert not wide


def test_a_name_is_the_same_thing_before_and_after_its_modules_are_imported() -> None:
    """In the packages and in every room of theirs that exports names."""
    rooms = [importlib.import_module(name) for name, path in FILES.items() if path.name == "__init__.py"]
    before = {(room.__name__, name): getattr(room, name) for room in rooms for name in getattr(room, "__all__", ())}
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert len(before) > 150
    for (room, name), thing in before.items():
        # once imported, a module of that name would hide it
        assert f"{room}.{name}" not in FILES or (room, name) == ("interp", "tasks"), f"{room}.{name} is a module"
        assert getattr(sys.modules[room], name) is thing
